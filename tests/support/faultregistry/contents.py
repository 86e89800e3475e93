"""What a response carries: bytes in memory, bytes made on demand, and both of them spoiled.

Owns the ``Content`` values, which are cut into pieces and sent by ``server.py`` without copying.
Leaves out who asked and which headers go with it.

    >>> bytes(Flipped(Memory(b"abc"), at=1).read(0, 3))
    b'a\\x9dc'
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Bytes = bytes | bytearray | memoryview

# One send() each: large enough to be fast, small enough that a stopping server is not kept waiting
# by a callable that makes bytes.
PIECE_BYTES = 256 * 1024


class Content(Protocol):
    """Bytes of a known size, or (size None) without an end."""

    @property
    def size(self) -> int | None:
        """How many bytes there are; None means that they never end."""

    def read(self, offset: int, length: int) -> Bytes:
        """Return exactly ``length`` bytes, which the caller knows to be there."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in memory, sent as slices of one view."""

    data: Bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> Bytes:
        return memoryview(self.data)[offset : offset + length]


EMPTY = Memory(b"")


@dataclass(frozen=True, slots=True)
class Sparse:
    """Bytes made by ``source(offset, length)`` when asked for: a blob larger than memory."""

    size: int
    source: Callable[[int, int], Bytes]

    def read(self, offset: int, length: int) -> Bytes:
        made = self.source(offset, length)
        assert len(made) == length, f"the source made {len(made)} bytes, not {length}"
        return made


@dataclass(frozen=True, slots=True)
class Part:
    """``size`` bytes of something else, from ``offset`` on."""

    whole: Content
    offset: int
    size: int

    def read(self, offset: int, length: int) -> Bytes:
        return self.whole.read(self.offset + offset, length)


@dataclass(frozen=True, slots=True)
class Flipped:
    """Something else with every bit of the byte ``at`` turned over."""

    whole: Content
    at: int

    @property
    def size(self) -> int | None:
        return self.whole.size

    def read(self, offset: int, length: int) -> Bytes:
        piece = self.whole.read(offset, length)
        if not offset <= self.at < offset + length:
            return piece
        spoiled = bytearray(piece)
        spoiled[self.at - offset] ^= 0xFF
        return spoiled


@dataclass(frozen=True, slots=True)
class Joined:
    """Something else, followed by more bytes."""

    first: Content
    more: bytes

    @property
    def size(self) -> int | None:
        return None if self.first.size is None else self.first.size + len(self.more)

    def read(self, offset: int, length: int) -> Bytes:
        size = self.first.size
        if size is None or offset + length <= size:
            return self.first.read(offset, length)
        if offset >= size:
            return self.more[offset - size : offset - size + length]
        return bytes(self.first.read(offset, size - offset)) + self.more[: offset + length - size]


@dataclass(frozen=True, slots=True)
class Zeros:
    """Zero bytes: this many, or for ever."""

    size: int | None

    def read(self, offset: int, length: int) -> Bytes:
        return bytes(length)
