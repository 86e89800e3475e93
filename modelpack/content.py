"""Blob content that can be read again from any offset without being held in memory.

Owns content made of byte strings and file regions, such as a tar layer over a model's files.
Leaves out what the bytes mean.

    >>> content = BlobContent((b"hello ", b"world"))
    >>> b"".join(bytes(piece) for piece in content.pieces(start=4))
    b'o world'
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from modelpack.errors import IntegrityError, ModelpackError

# What opening says of a path that no longer is the file it was.
_REPLACED = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
# Large enough that a system call's cost vanishes, small enough to stay in a core's cache.
PIECE_BYTES = 1024 * 1024


class Content(Protocol):
    """Bytes of a known number that can be read again from any offset."""

    @property
    def size(self) -> int:
        """Total bytes."""

    def pieces(self, start: int = 0) -> Iterator[memoryview]:
        """Yield the bytes from offset ``start`` on; a view is valid until the next is asked for."""


@dataclass(frozen=True, slots=True)
class FileRegion:
    """The first ``size`` bytes of a regular file, which must not change while it is used."""

    path: Path
    size: int

    def open(self) -> int:
        """Return a file descriptor, having checked the length.

        Raises:
            IntegrityError: the file is gone, is no regular file any more, or has another length.
            ModelpackError: it may not be read.
        """
        try:
            # O_NONBLOCK: a FIFO that came into its place must not hold the open
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            kind = IntegrityError if error.errno in _REPLACED else ModelpackError
            raise kind(f"{self.path} cannot be read: {error.strerror}") from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != self.size:
            os.close(fd)
            raise IntegrityError(f"{self.path} changed while it was being read; try again")
        return fd

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Read at most ``buffer``'s length from ``offset``, at least one byte; return how many.

        Raises:
            IntegrityError: the file ends there by now.
            ModelpackError: the disk fails.
        """
        try:
            count = os.preadv(fd, [buffer], offset)
        except OSError as error:
            raise ModelpackError(f"{self.path} cannot be read: {error.strerror}") from error
        if count == 0:
            raise IntegrityError(f"{self.path} became shorter while it was being read")
        return count


@dataclass(frozen=True)
class BlobContent:
    """Segments that together are one blob."""

    segments: tuple[bytes | FileRegion, ...]

    @cached_property
    def size(self) -> int:
        """Total bytes."""
        return sum(segment_size(segment) for segment in self.segments)

    def pieces(self, start: int = 0) -> Iterator[memoryview]:
        """Yield the bytes from offset ``start`` on, at most ``PIECE_BYTES`` at a time.

        A yielded view is only valid until the next one is asked for.

        Raises:
            IntegrityError: a file is not what it was when the content was described.
        """
        buffer = memoryview(bytearray(PIECE_BYTES))
        for segment in self.segments:
            size = segment_size(segment)
            if start >= size:
                start -= size
                continue
            if isinstance(segment, bytes):
                view = memoryview(segment)
                for offset in range(start, size, PIECE_BYTES):
                    yield view[offset : offset + PIECE_BYTES]
            else:
                yield from _file_pieces(segment, start, buffer)
            start = 0


def segment_size(segment: bytes | FileRegion) -> int:
    """Return the byte length of a segment."""
    return len(segment) if isinstance(segment, bytes) else segment.size


def _file_pieces(region: FileRegion, start: int, buffer: memoryview) -> Iterator[memoryview]:
    fd = region.open()
    try:
        offset = start
        while offset < region.size:
            wanted = min(len(buffer), region.size - offset)
            count = region.read_into(fd, buffer[:wanted], offset)
            offset += count
            yield buffer[:count]
    finally:
        os.close(fd)
