"""The bare floor: ranges into files with the same connections, and nothing else.

No hash, no journal, no fsync, no retries; it prints its own seconds, so its start-up is not counted.
What modelpack takes beyond this is the price of verification and crash safety.

    python -m benchmarks.floor HOST REPOSITORY DEST CONNECTIONS DIGEST:SIZE...
"""

import http.client
import os
import sys
import threading
import time
from collections import deque
from pathlib import Path

_RANGE = 32 * 1024 * 1024
_PIECE = 1024 * 1024


def main(host: str, repository: str, destination: str, connections: str, *blobs: str) -> None:
    """Fetch the blobs and print the seconds it took."""
    Path(destination).mkdir(parents=True, exist_ok=True)
    work: deque[tuple[int, str, int, int]] = deque()
    files = []
    for blob in blobs:
        digest, _, size = blob.rpartition(":")
        fd = os.open(Path(destination, digest[7:]), os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(fd, int(size))
        files.append(fd)
        for start in range(0, int(size), _RANGE):
            work.append((fd, digest, start, min(_RANGE, int(size) - start)))

    def fetch() -> None:
        connection = http.client.HTTPConnection(host)
        buffer = memoryview(bytearray(_PIECE))
        while work:
            try:
                fd, digest, start, length = work.popleft()
            except IndexError:
                return
            headers = {"Range": f"bytes={start}-{start + length - 1}"}
            connection.request("GET", f"/v2/{repository}/blobs/{digest}", headers=headers)
            response = connection.getresponse()
            position = start
            while count := response.readinto(buffer):
                os.pwrite(fd, buffer[:count], position)
                position += count
        connection.close()

    started = time.perf_counter()
    threads = [threading.Thread(target=fetch) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for fd in files:
        os.close(fd)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
