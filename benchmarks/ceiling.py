"""How fast a pull could be if bytes moved and were hashed at no cost: what the interpreter allows.

The download engine with its real scheduling, threads and progress events, between a connection that
says it has filled the buffer and a sink that keeps nothing. What it takes is held under the
interpreter's lock, so it bounds one process on any number of cores, whatever the link.

    python -m benchmarks.ceiling [GIGABYTES]
"""

import os
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from modelpack import download
from modelpack.chunkindex import MAX_CHUNK_BYTES, ChunkIndex, FileChunks, build_index
from modelpack.content import PIECE_BYTES
from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.digest import CHUNK_HASH_BYTES, ChunkHash, Digest
from modelpack.events import ignore
from modelpack.layering import SourceFile, plan_layers
from modelpack.plan import ChunkMap, ChunkState, plan_chunks, plan_ranges, range_size

_FILE_BYTES = 1024 * MAX_CHUNK_BYTES
_CONNECTIONS = (1, 4, 16)
_NO_HASH = bytes(CHUNK_HASH_BYTES)


class _Hasher:
    """Takes bytes for what the index says."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def update(self, _: memoryview) -> None: ...

    def digest(self) -> bytes:
        return _NO_HASH


class _Connection:
    """Has every byte at once, and moves none."""

    @contextmanager
    def open_range(self, *_: object) -> Iterator["_Connection"]:
        yield self

    def readinto(self, buffer: memoryview) -> int:
        return min(len(buffer), PIECE_BYTES)

    def abort(self) -> None: ...

    def close(self) -> None: ...


class _Sink:
    def write(self, chunk: int, offset: int, data: memoryview) -> None: ...

    def verified(self, chunks: Sequence[int]) -> None: ...


def main(gigabytes: str = "64") -> None:
    """Print the rate for a few numbers of connections as Markdown."""
    index = _index_of(int(float(gigabytes) * 1e9))
    print("| connections | GB/s | CPU s/GB |\n|---|---|---|")
    with mock.patch.object(download, "blake3", _Hasher):
        for connections in _CONNECTIONS:
            seconds, cpu = _run(index, connections)
            size = index.total_bytes / 1e9
            print(f"| {connections} | {size / seconds:.1f} | {cpu / size:.3f} |")


def _index_of(total: int) -> ChunkIndex:
    """Return the index of files of equal chunks, all with the hash that is pretended."""
    count = max(1, total // _FILE_BYTES)
    files = [SourceFile(path=f"{n:05}.bin", size=_FILE_BYTES, mode=0o644) for n in range(count)]
    lengths = array("I", [MAX_CHUNK_BYTES] * (_FILE_BYTES // MAX_CHUNK_BYTES))
    plan = plan_layers(files)
    chunks = FileChunks(blake3=ChunkHash(_NO_HASH), lengths=lengths, hashes=_NO_HASH * len(lengths))
    digests = [Digest.of(str(number).encode()) for number in range(len(plan))]
    return build_index(plan, digests, [chunks] * count)


def _run(index: ChunkIndex, connections: int) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of fetching everything, so called."""
    chunk_map = ChunkMap.of(index)
    files = range(len(index.files))
    work = plan_chunks(index, files=files, have=frozenset(), local=frozenset())
    # All chunks have one hash, so all but one would be taken for copies of it.
    work.states[:] = bytes([ChunkState.FETCH]) * len(work.states)
    ranges = plan_ranges(chunk_map, work.states, range_size(index.total_bytes, connections))
    downloader = download.Downloader(
        chunk_map=chunk_map,
        states=work.states,
        layers=[
            Descriptor(media_type=OCI_LAYER_TAR, digest=layer.digest, size=layer.size)
            for layer in index.layers
        ],
        connect=_Connection,
        sink=_Sink(),
        observer=ignore,
        max_connections=connections,
        start_connections=connections,
    )
    started, times = time.perf_counter(), os.times()
    downloader.run(ranges)
    after = os.times()
    cpu = after.user + after.system - times.user - times.system
    return time.perf_counter() - started, cpu


if __name__ == "__main__":
    main(*sys.argv[1:])
