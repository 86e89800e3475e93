"""Bounds on connections that HTTP itself does not set: how many there are, and for how long.

Owns a wrapper around a connection's protocol. aiohttp waits without limit for a request's first
line and headers; here a connection is over when its time is, whatever it is doing. Leaves out what
is said on it.
"""

import asyncio
from collections.abc import Callable

MAX_CONNECTIONS = 128
"""At once; scrapers, probes and people's browsers are a handful."""
MAX_SECONDS = 30.0
"""For one request and its answer, of which the longest is a few hundred kilobytes."""


class Limits:
    """How many connections of one listener are open."""

    def __init__(self, *, connections: int = MAX_CONNECTIONS, seconds: float = MAX_SECONDS) -> None:
        self.connections = connections
        self.seconds = seconds
        self.open = 0


class BoundedConnection(asyncio.Protocol):
    """Passes everything on to the protocol that ``make`` returns, within ``limits``."""

    def __init__(self, make: Callable[[], asyncio.Protocol], limits: Limits) -> None:
        self._make = make
        self._limits = limits
        self._inner: asyncio.Protocol | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or hang up where there are too many already."""
        assert isinstance(transport, asyncio.Transport)
        if self._limits.open >= self._limits.connections:
            transport.abort()
            return
        self._limits.open += 1
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.seconds, transport.abort)
        self._inner = self._make()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another."""
        if self._inner is None or self._timer is None:
            return
        self._timer.cancel()
        self._limits.open -= 1
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on what arrived."""
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on that nothing more will arrive."""
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        """Pass on that the peer reads too slowly."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the peer has caught up."""
        if self._inner is not None:
            self._inner.resume_writing()
