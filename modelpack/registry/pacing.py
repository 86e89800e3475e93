"""Reading from a socket that may stall, or trickle, which comes to the same.

Owns the judgement of a response's pace. A server that sends one byte a second never runs into a
read's time-out; one that is merely slow must not be taken for it, so only the time spent waiting
for the network counts. Leaves out what to do about it (``ranges.py``).

    reader = PacedReader(connection, seconds=10.0)
    response = http.client.HTTPResponse(reader)
    response.begin()
    reader.watch()
"""

import io
import socket
import time
from collections.abc import Callable
from typing import Any

# Bytes per second below which nothing worth waiting for arrives.
LEAST_RATE = 1024


class PacedReader(io.RawIOBase):
    """The receiving side of a connected socket, in place of ``socket.makefile``."""

    def __init__(
        self,
        connected: socket.socket,
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read from a socket, which stays open, and wait ``seconds`` for a little at most."""
        self._socket = connected
        self._seconds = seconds
        self._clock = clock
        self._watched = False
        self._waited = 0.0
        self._received = 0

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the file that ``http.client`` asks of a socket."""
        return io.BufferedReader(self)

    def watch(self) -> None:
        """Judge the pace from now on: a server may think before it answers."""
        self._watched = True

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Receive what is there, at least a byte; 0 at the end.

        Raises:
            TimeoutError: next to nothing came for so long.
            OSError: the connection broke.
        """
        began = self._clock()
        count = self._socket.recv_into(buffer)
        if self._watched and count:
            self._waited += self._clock() - began
            self._received += count
            if self._received >= LEAST_RATE * self._seconds:
                self._waited, self._received = 0.0, 0
            elif self._waited >= self._seconds:
                raise TimeoutError("timed out")
        return count
