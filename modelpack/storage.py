"""The seams between the engine and the places where artifacts live.

Owns the protocols that a registry repository, an OCI layout and an in-memory store all satisfy,
and the reader that verifies a stream. Leaves out every implementation (``registry/``,
``stores/``).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from modelpack.content import Content
from modelpack.descriptor import Descriptor
from modelpack.digest import Digest
from modelpack.errors import IntegrityError, TransientError
from modelpack.manifest import Index, Manifest
from modelpack.reference import Reference

Progress = Callable[[int], None]
"""Called with the number of bytes that went on since the last call."""


class ByteStream(Protocol):
    """A source of bytes that fills buffers."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from its start and return the count; 0 means the end."""


class RangeIgnoredError(Exception):
    """The server answered a ranged request with the whole blob, which ``stream`` reads."""

    def __init__(self, stream: AbstractContextManager[ByteStream]) -> None:
        super().__init__("the server sends whole blobs only")
        self.stream = stream


class WrongBytesError(TransientError):
    """Bytes arrived that are not those that were asked for; another source may have them."""


class RangeConnection(Protocol):
    """One worker's way to a blob store; used by one thread."""

    def open_range(
        self, descriptor: Descriptor, start: int, length: int
    ) -> AbstractContextManager[ByteStream]:
        """Open ``length`` bytes of a blob from ``start`` on, unverified.

        Raises:
            RangeIgnoredError: the server sends the whole blob; ``stream`` of the error is it.
            TransientError: worth trying again.
            NotFoundError, AuthError, IntegrityError: not worth it.
        """

    def abort(self) -> None:
        """Make a read in progress, in another thread, fail at once."""

    def close(self) -> None:
        """Give the connection up."""


class Fetcher(Protocol):
    """A place to read from. Every method may be called from several threads."""

    def resolve(self, name: str | Digest) -> Descriptor:
        """Return the descriptor of the manifest at a tag or digest.

        Raises:
            NotFoundError: there is none.
        """

    def fetch_manifest(self, name: str | Digest) -> Manifest | Index:
        """Return the verified manifest at a tag or digest.

        Raises:
            NotFoundError: there is none.
            IntegrityError: its bytes do not have the digest asked for, or exceed the bounds.
        """

    def fetch_blob(self, descriptor: Descriptor, *, max_bytes: int) -> bytes:
        """Return a small blob, verified.

        Raises:
            IntegrityError: wrong bytes, wrong length, or more than ``max_bytes``.
        """

    def open_blob(
        self, descriptor: Descriptor, start: int = 0, length: int | None = None
    ) -> AbstractContextManager[ByteStream]:
        """Open a blob, or a range of it, as an unverified stream of exactly that many bytes.

        The caller verifies. A short or long body raises IntegrityError or NetworkError while
        reading.
        """

    def range_connection(self) -> RangeConnection:
        """Return a new connection for fetching ranges of blobs."""

    def tags(self) -> list[str]:
        """Return all tags, sorted."""

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Return the descriptors of the manifests whose subject is ``digest``."""


class Pusher(Protocol):
    """A place to write to. Every method may be called from several threads."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Tell whether the blob is there."""

    def push_blob(
        self, descriptor: Descriptor, content: Content, progress: Progress | None = None
    ) -> None:
        """Store a blob; a normal return proves that the target has checked its digest.

        Raises:
            IntegrityError: the content does not have the descriptor's digest.
        """

    def mount_blob(self, descriptor: Descriptor, source: Reference) -> bool:
        """Take a blob from another repository of the same place without moving bytes, if offered."""

    def push_manifest(self, manifest: Manifest | Index, tag: str | None = None) -> None:
        """Store a manifest under its digest and, if given, point ``tag`` at it, atomically.

        A manifest with a ``subject`` becomes one of its referrers.
        """


class Repository(Fetcher, Pusher, Protocol):
    """A place to read from and write to."""

    @property
    def reference(self) -> Reference:
        """The name it was opened by."""

    def close(self) -> None:
        """Give up connections and locks."""


class VerifyingStream:
    """A stream that proves length and digest by the time it ends.

    Reading past the last byte raises unless everything matched, so a consumer that drains it has
    verified bytes; one that stops early has proved nothing.
    """

    def __init__(self, source: ByteStream, descriptor: Descriptor) -> None:
        self._source = source
        self._descriptor = descriptor
        self._hasher = descriptor.digest.hasher()
        self._left = descriptor.size

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` and return the count; 0 at the verified end.

        Raises:
            IntegrityError: the source ended early, went on too long, or has another digest.
        """
        count = self._source.readinto(buffer)
        if count > self._left:
            raise IntegrityError(f"blob {self._descriptor.digest} is longer than its descriptor")
        if count == 0:
            if self._left:
                raise IntegrityError(
                    f"blob {self._descriptor.digest} ended {self._left} bytes early"
                )
            if self._hasher.hexdigest() != self._descriptor.digest.hex:
                raise IntegrityError(f"blob {self._descriptor.digest} has other bytes")
            return 0
        self._hasher.update(buffer[:count])
        self._left -= count
        return count


def read_all(stream: ByteStream, size: int) -> bytes:
    """Drain a verified stream of a known, small size.

    Raises:
        IntegrityError: it holds more or fewer bytes.
    """
    data = bytearray(size)
    view = memoryview(data)
    filled = 0
    while filled < size:
        count = stream.readinto(view[filled:])
        if count == 0:
            break
        filled += count
    probe = memoryview(bytearray(1))
    if filled != size or stream.readinto(probe):
        raise IntegrityError(f"expected {size} bytes, got another number")
    return bytes(data)


def iterate(stream: ByteStream, piece_bytes: int) -> Iterator[memoryview]:
    """Yield a stream's bytes through one reused buffer."""
    buffer = memoryview(bytearray(piece_bytes))
    while count := stream.readinto(buffer):
        yield buffer[:count]
