"""A relay that lets every request wait, as a registry far away does, and costs little else.

Bytes from the server are spliced through the kernel. Only what the client says is held back, so
round trips cost what they would, while the line's bandwidth stays the loopback's.

    with LatencyRelay("127.0.0.1:5000", 0.02) as relay:
        print(relay.host)
"""

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_SPLICE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031


class LatencyRelay:
    """A listener on loopback in front of ``target``."""

    def __init__(self, target: str, seconds: float) -> None:
        """Hold back every message of a client for so many seconds."""
        name, _, port = target.rpartition(":")
        self._target = (name, int(port))
        self._seconds = seconds
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def host(self) -> str:
        """``HOST:PORT`` to connect to."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for item in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
            item.close()
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        time.sleep(self._seconds)  # TCP's own round trip
        with contextlib.suppress(OSError):
            server = socket.create_connection(self._target)
            self._sockets.append(server)
            for item in (client, server):
                item.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(_splice, server, client)
            self._hold_back(client, server)

    def _hold_back(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                time.sleep(self._seconds)
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)


def _splice(server: socket.socket, client: socket.socket) -> None:
    reading, writing = os.pipe()
    try:
        with contextlib.suppress(OSError):
            fcntl.fcntl(writing, _F_SETPIPE_SZ, _SPLICE_BYTES)
        with contextlib.suppress(OSError):
            while count := os.splice(server.fileno(), writing, _SPLICE_BYTES):
                while count:
                    count -= os.splice(reading, client.fileno(), count)
            client.shutdown(socket.SHUT_WR)
    finally:
        os.close(reading)
        os.close(writing)
