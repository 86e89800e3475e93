"""Sending a large body fast, and hearing the server out when it answers before the end.

Owns one request with a body: the file regions of a ``BlobContent`` go by ``os.sendfile`` over
plain HTTP, and in 1 MiB pieces over TLS, without a copy that grows with the body. A registry that
refuses early (413, quota, a token that ran out) answers while bytes are still being sent, and may
stop reading; the socket is therefore watched for an answer all the while. Leaves out what the
requests are for (``uploads.py``).
"""

import contextlib
import http.client
import io
import os
import select
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from modelpack.content import PIECE_BYTES, BlobContent, Content, FileRegion, segment_size
from modelpack.errors import IntegrityError
from modelpack.ratelimit import RateLimiter
from modelpack.registry.connections import Connection
from modelpack.registry.errors import MAX_ERROR_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A server's answer to a request with a body."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    complete: bool
    """Whether the whole body had been sent when the answer came."""
    reusable: bool
    """Whether the connection may carry another request."""


class _AnsweredError(Exception):
    """The server answered, or hung up, before the body was through."""


def send(
    connection: Connection,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: Content,
    *,
    start: int,
    length: int,
    timeout: float,
    answer_timeout: float,
    limiter: RateLimiter,
    sent: Callable[[int], None],
) -> Answer:
    """Send bytes ``start`` to ``start + length`` of ``content`` and read the answer.

    ``sent`` is called with counts of bytes handed to the system. ``timeout`` is in seconds without
    a byte moving, ``answer_timeout`` in seconds until the answer to a whole body.

    Raises:
        OSError, http.client.HTTPException: the connection broke without an answer.
        IntegrityError: a file changed while it was read.
    """
    head = _head(connection, method, url, headers, length)
    wire = _Wire(connection, timeout)
    try:
        complete = True
        try:
            wire.send(memoryview(head))
            if isinstance(content, BlobContent):
                _send_segments(wire, content, start, length, limiter, sent)
            else:
                _send_pieces(wire, content, start, length, limiter, sent)
        except _AnsweredError:
            complete = False
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            # The server closed; what it said before may still be in the receive buffer.
            complete = False
        return wire.answer(method, answer_timeout if complete else timeout, complete=complete)
    finally:
        wire.close()


class _Wire:
    """A socket that sends without blocking and notices an answer meanwhile."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._socket = connection.socket
        self._tls = connection.is_tls
        self._timeout = timeout
        self._socket.settimeout(0.0)
        self._reader: BinaryIO = self._socket.makefile("rb")
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN | select.POLLOUT)

    def send(self, view: memoryview) -> None:
        """Send all of ``view``."""
        while view:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._wait()

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send up to ``count`` bytes of a file, at least one; return how many."""
        if self._tls:
            raise io.UnsupportedOperation("TLS bytes cannot be sent by the kernel")
        while True:
            try:
                return os.sendfile(self._socket.fileno(), fd, offset, count)
            except BlockingIOError:
                self._wait()

    @property
    def is_tls(self) -> bool:
        """Whether ``send_file`` is impossible."""
        return self._tls

    def check(self) -> None:
        """Raise _AnsweredError if the server has answered; never waits."""
        for _, event in self._poll.poll(0):
            if event & ~select.POLLOUT:
                self._heard()

    def answer(self, method: str, timeout: float, *, complete: bool) -> Answer:
        """Read the answer."""
        self._socket.settimeout(timeout)
        response = http.client.HTTPResponse(_Readable(self._reader), method=method)  # type: ignore[arg-type]
        response.begin()
        body = response.read(MAX_ERROR_BYTES)
        return Answer(
            status=response.status,
            headers=response.headers,
            body=body,
            complete=complete,
            reusable=complete and response.isclosed() and not response.will_close,
        )

    def close(self) -> None:
        """Give up the reader, not the socket."""
        with contextlib.suppress(OSError):
            self._reader.close()

    def _wait(self) -> None:
        """Wait until more can be sent."""
        deadline = time.monotonic() + self._timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            events = self._poll.poll(left * 1000)
            for _, event in events:
                if event & ~select.POLLOUT:
                    self._heard()
                if event & select.POLLOUT:
                    return

    def _heard(self) -> None:
        """Tell an answer from TLS's own messages, such as session tickets."""
        if self._tls:
            try:
                self._reader.peek(1)  # type: ignore[attr-defined]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
        raise _AnsweredError


class _Readable:
    """Gives ``http.client`` the reader in which an early answer may already be buffered."""

    def __init__(self, reader: BinaryIO) -> None:
        self._reader = reader

    def makefile(self, _mode: str) -> BinaryIO:
        """Return the one reader."""
        return self._reader


def _head(
    connection: Connection, method: str, url: str, headers: Mapping[str, str], length: int
) -> bytes:
    fields = {"Host": connection.origin.authority, **headers, "Content-Length": str(length)}
    if connection.proxy_authorization:
        fields["Proxy-Authorization"] = connection.proxy_authorization
    lines = [f"{method} {connection.target(url)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    if not all(line.isascii() and line.isprintable() for line in lines):
        raise ValueError("a request header holds a character that does not belong there")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _regions(
    content: BlobContent, start: int, length: int
) -> Iterator[tuple[bytes | FileRegion, int, int]]:
    """Yield segments with the offset and count that lie in the wanted range."""
    end = start + length
    base = 0
    for segment in content.segments:
        size = segment_size(segment)
        first, last = max(start, base), min(end, base + size)
        if first < last:
            yield segment, first - base, last - first
        base += size


def _send_segments(
    wire: _Wire,
    content: BlobContent,
    start: int,
    length: int,
    limiter: RateLimiter,
    sent: Callable[[int], None],
) -> None:
    for region, offset, count in _regions(content, start, length):
        if isinstance(region, FileRegion):
            _send_file(wire, region, offset, count, limiter, sent)
        else:
            _send_bytes(wire, memoryview(region)[offset : offset + count], limiter, sent)


def _send_pieces(
    wire: _Wire,
    content: Content,
    start: int,
    length: int,
    limiter: RateLimiter,
    sent: Callable[[int], None],
) -> None:
    """Send content that only comes as pieces."""
    left = length
    for piece in content.pieces(start):
        if not left:
            return
        part = piece[:left]
        _send_bytes(wire, part, limiter, sent)
        left -= len(part)
    if left:
        raise IntegrityError(f"content ended {left} bytes early; it changed while it was read")


def _send_bytes(
    wire: _Wire, view: memoryview, limiter: RateLimiter, sent: Callable[[int], None]
) -> None:
    piece = limiter.piece(PIECE_BYTES)
    for offset in range(0, len(view), piece):
        part = view[offset : offset + piece]
        limiter.take(len(part))
        wire.check()
        wire.send(part)
        sent(len(part))


def _send_file(
    wire: _Wire,
    region: FileRegion,
    offset: int,
    count: int,
    limiter: RateLimiter,
    sent: Callable[[int], None],
) -> None:
    fd = region.open()
    try:
        piece = limiter.piece(PIECE_BYTES)
        buffer = memoryview(bytearray(piece)) if wire.is_tls else memoryview(b"")
        end = offset + count
        while offset < end:
            wanted = min(piece, end - offset)
            limiter.take(wanted)
            wire.check()
            if wire.is_tls:
                done = os.preadv(fd, [buffer[:wanted]], offset)
                wire.send(buffer[:done])
            else:
                done = wire.send_file(fd, offset, wanted)
            if done == 0:
                raise IntegrityError(f"{region.path} became shorter while it was being read")
            offset += done
            sent(done)
    finally:
        os.close(fd)
