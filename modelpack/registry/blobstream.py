"""Reading a blob, or a range of it, as one stream that survives broken connections.

Owns the plain GET with its strict range check and its resumption. Leaves out verifying the bytes
(``storage.VerifyingStream``) and parallel reading (``ranges.py``).
"""

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import httpx

from modelpack.descriptor import Descriptor
from modelpack.errors import ProtocolError
from modelpack.registry.addresses import content_range
from modelpack.registry.client import RegistryClient
from modelpack.registry.errors import MAX_ERROR_BYTES, RETRIED_STATUSES, response_error
from modelpack.registry.retry import retry_after


class BlobStream:
    """A ``ByteStream`` of exactly the bytes asked for; a context manager, for one thread."""

    def __init__(
        self,
        client: RegistryClient,
        descriptor: Descriptor,
        start: int,
        length: int | None,
        *,
        what: str,
    ) -> None:
        end = descriptor.size if length is None else start + length
        if not 0 <= start <= end <= descriptor.size:
            raise ValueError(f"{what}: bytes {start} to {end} of {descriptor.size}")
        self._client = client
        self._descriptor = descriptor
        self._position = start
        self._end = end
        self._what = what
        self._backoff = client.backoff(what)
        self._stack = contextlib.ExitStack()
        self._pieces: Iterator[bytes] | None = None
        self._rest = memoryview(b"")

    def __enter__(self) -> Self:
        """Send the request, so that a missing blob is known now."""
        if self._position < self._end:
            self._connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from its start and return the count; 0 at the end.

        Raises:
            ProtocolError: the server sent other bytes than it announced.
            NetworkError: the connection broke and could not be resumed in time.
        """
        while not self._rest:
            if self._position == self._end:
                return 0
            piece = self._next()
            if piece:
                self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _next(self) -> bytes:
        """Return the next piece off the wire; empty when a new connection has to be made first."""
        reason = "the connection was closed early"
        try:
            if self._pieces is None:
                self._connect()
            assert self._pieces is not None
            piece = next(self._pieces, b"")
        except httpx.TransportError as error:
            reason, piece = self._client.transient(error), b""
        if not piece:
            self._stack.close()
            self._pieces = None
            self._backoff.wait(reason)
            return b""
        self._backoff.progress()
        if len(piece) > self._end - self._position:
            raise ProtocolError(f"{self._what}: the registry sent more bytes than announced")
        self._position += len(piece)
        return piece

    def _connect(self) -> None:
        whole = self._position == 0 and self._end == self._descriptor.size
        headers = {} if whole else {"Range": f"bytes={self._position}-{self._end - 1}"}
        url = self._client.url(f"blobs/{self._descriptor.digest}")
        while True:
            try:
                response = self._stack.enter_context(
                    self._client.open("GET", url, what=self._what, headers=headers)
                )
                if response.status_code not in RETRIED_STATUSES:
                    break
                reason = f"HTTP status {response.status_code}"
                after = retry_after(response.headers.get("Retry-After"), now=time.time())
            except httpx.TransportError as error:
                reason, after = self._client.transient(error), None
            self._stack.close()
            self._backoff.wait(reason, after)
        self._pieces = self._checked(response)

    def _checked(self, response: httpx.Response) -> Iterator[bytes]:
        """Return the body's pieces from the current position on."""
        status = response.status_code
        if status == 206:
            first, length, total = content_range(response.headers.get("Content-Range", ""))
            expected = (self._position, self._end - self._position)
            if (first, length) != expected or total not in {None, self._descriptor.size}:
                raise ProtocolError(f"{self._what}: the registry sent another range than asked for")
            return response.iter_raw()
        if status == 200:
            announced = response.headers.get("Content-Length")
            if announced is not None and announced != str(self._descriptor.size):
                raise ProtocolError(
                    f"{self._what}: the registry has {announced[:20]} bytes, "
                    f"the descriptor says {self._descriptor.size}"
                )
            return _cut(response.iter_raw(), self._position, self._end)
        body = b"".join(_cut(response.iter_raw(), 0, MAX_ERROR_BYTES))
        raise response_error(
            status,
            body,
            what=self._what,
            registry=self._client.registry,
            logged_in=self._client.authenticator.logged_in,
        )


def _cut(pieces: Iterator[bytes], start: int, end: int) -> Iterator[bytes]:
    """Yield bytes ``start`` to ``end`` of a body: what a server that ignores Range sends."""
    offset = 0
    for piece in pieces:
        wanted = piece[max(0, start - offset) : max(0, end - offset)]
        offset += len(piece)
        if wanted:
            yield wanted
        if offset >= end:
            return
