"""Bounds on connections that HTTP itself does not set: how many there are, and for how long.

Owns a wrapper around a connection's protocol. aiohttp waits without limit for a request's first
line and headers; here a connection is over when its time is, whatever it is doing. Leaves out what
is said on it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

# Of the event loop: one in which a connection is made, one in which an aborted one is lost, and some
# to spare.
_ROUNDS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The bounds on one listener's connections."""

    connections: int = 128
    """At once; scrapers, probes and people's browsers are a handful."""
    seconds: float = 30.0
    """For one request and its answer, of which the longest is a few hundred kilobytes."""


class Connections:
    """The connections of one listener that are open; used in the event loop's thread only."""

    def __init__(self, make: Callable[[], asyncio.Protocol], limits: Limits) -> None:
        """Bound connections, each of which is served by a protocol that ``make`` returns."""
        self.make = make
        self.limits = limits
        self.open: set[asyncio.Transport] = set()
        self.coming = 0
        """Accepted, and about to be made."""

    def __call__(self) -> "BoundedConnection":
        """Return the protocol for one more, as ``create_server`` asks."""
        self.coming += 1
        return BoundedConnection(self)

    async def end(self) -> None:
        """Hang up on everybody, after nobody is let in any more."""
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
            for transport in self.open:
                transport.abort()
            if not self.open and not self.coming:
                return


class BoundedConnection(asyncio.Protocol):
    """Passes everything on to a protocol of its own, within the limits."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or hang up where there are too many already."""
        assert isinstance(transport, asyncio.Transport)
        limits = self._connections.limits
        refused = len(self._connections.open) >= limits.connections
        self._connections.coming -= 1
        self._connections.open.add(transport)
        self._transport = transport
        if refused:
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(limits.seconds, transport.abort)
        self._inner = self._connections.make()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another."""
        if self._transport is not None:
            self._connections.open.discard(self._transport)
        if self._timer is not None:
            self._timer.cancel()
        if self._inner is not None:
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
