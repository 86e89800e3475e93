"""HTTP/1.1 as values: a request that was read, a response to send, a refusal.

Owns strict reading of request heads and bodies. Leaves out sockets and threads (``server.py``)
and every meaning of a path.

    request.headers["Content-Type"]      # names in any case
    raise Refusal(404, "BLOB_UNKNOWN", "no such blob")
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.faultregistry.contents import EMPTY, PIECE_BYTES, Content, Memory
from tests.support.faultregistry.routes import Route

MAX_HEAD_LINE_BYTES = 16 * 1024  # nginx and Go refuse lines of about this size too
MAX_HEADERS = 100
KEPT_BODY_BYTES = 1024  # of a request, for tests that look for secrets in it

_TLS_HANDSHAKE = b"\x16"  # the type of its first record (RFC 8446, 5.1)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ONCE = {"authorization", "content-length", "content-range", "content-type", "host", "range"}


class Headers(Mapping[str, str]):
    """Header fields by name, in any case; repeated ones are joined by a comma."""

    __slots__ = ("_fields",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()):
        self._fields: dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            self._fields[key] = f"{self._fields[key]}, {value}" if key in self._fields else value

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({self._fields!r})"

    def without(self, name: str) -> "Headers":
        """Return the same fields less one."""
        return Headers((key, value) for key, value in self.items() if key != name.lower())


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An error answer, in the JSON of the distribution specification ("Error Codes")."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        violation: bool = False,
        headers: Mapping[str, str] | None = None,
    ):
        """``violation`` says that the client broke the protocol, and has it recorded."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.violation = violation
        self.headers = dict(headers or {})

    def response(self) -> "Response":
        """Return the answer."""
        error = {"code": self.code, "message": self.message, "detail": None}
        return json_response(self.status, {"errors": [error]}, self.headers)


def violation(code: str, message: str, status: int = 400) -> Refusal:
    """Return the refusal of a request that breaks the protocol."""
    return Refusal(status, code, message, violation=True)


class Hangup(Exception):  # noqa: N818 - the end of a connection is no error here
    """The connection ends now, without an answer or in the middle of one."""

    def __init__(self, *, reset: bool = False, keep: bool = True):
        """``reset`` sends an RST; ``keep`` lets an upload keep what has arrived of it."""
        super().__init__("the connection ends here")
        self.reset = reset
        self.keep = keep


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadFault:
    """What goes wrong while a request body is read."""

    cut_after: int | None = None
    reset: bool = True
    keep: bool = True
    stall_after: int | None = None
    stall_seconds: float = 0
    bytes_per_second: int | None = None
    lose_after: int | None = None  # what lies beyond is read and thrown away


class Body:
    """A request body, read piece by piece by whoever wants it."""

    def __init__(
        self,
        stream: BufferedReader,
        headers: Headers,
        *,
        before_reading: Callable[[], None],
        wait: Callable[[float], None],
    ):
        self.chunked = "transfer-encoding" in headers
        self.length = int(headers.get("content-length", "0"))
        """Bytes announced; 0 when nothing was, or when the body comes in chunks."""
        self.received = 0
        self.start = b""
        self.done = not self.chunked and not self.length
        self.fault = UploadFault()
        self._stream = stream
        self._source = self._chunks() if self.chunked else self._counted(self.length)
        self._before_reading: Callable[[], None] | None = before_reading
        self._wait = wait

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes as they arrive, faults included.

        Raises:
            Hangup: the client went away, or a fault says so.
        """
        kept = 0
        for piece in self._source:
            if self.fault.lose_after is not None:
                piece = piece[: max(0, self.fault.lose_after - kept)]  # noqa: PLW2901
                kept += len(piece)
            yield piece
        self._misbehave()
        self.done = True

    def read(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            Refusal: 413, it is longer than ``limit``.
        """
        data = bytearray()
        for piece in self.pieces():
            data += piece
            if len(data) > limit:
                raise Refusal(413, "SIZE_INVALID", f"more than {limit} bytes")
        return bytes(data)

    def drain(self) -> None:
        """Read what nobody has read, and forget it."""
        if not self.done:
            for _ in self.pieces():
                pass

    def _counted(self, length: int) -> Iterator[bytes]:
        if self._before_reading is not None:
            self._before_reading()
            self._before_reading = None
        left = length
        while left:
            self._misbehave()
            piece = self._stream.read1(min(left, self._until_fault()))
            if not piece:
                raise Hangup
            if len(self.start) < KEPT_BODY_BYTES:
                self.start += piece[: KEPT_BODY_BYTES - len(self.start)]
            left -= len(piece)
            self.received += len(piece)
            if self.fault.bytes_per_second:
                self._wait(len(piece) / self.fault.bytes_per_second)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while size := self._chunk_size():
            yield from self._counted(size)
            if self._stream.readline(MAX_HEAD_LINE_BYTES) != b"\r\n":
                raise Hangup
        if self._stream.readline(MAX_HEAD_LINE_BYTES) != b"\r\n":
            raise Hangup

    def _chunk_size(self) -> int:
        line = self._stream.readline(MAX_HEAD_LINE_BYTES)
        try:
            return int(line.split(b";")[0], 16)
        except ValueError:
            raise Hangup from None

    def _until_fault(self) -> int:
        """Return how many bytes may be read before the next fault is due."""
        points = [self.fault.cut_after, self.fault.stall_after]
        ahead = [point - self.received for point in points if point and point > self.received]
        rate = self.fault.bytes_per_second
        return min([PIECE_BYTES, *ahead, *([max(1, rate // 20)] if rate else [])])

    def _misbehave(self) -> None:
        fault = self.fault
        if fault.stall_after is not None and self.received == fault.stall_after:
            self._wait(fault.stall_seconds)
        if fault.cut_after is not None and self.received >= fault.cut_after:
            raise Hangup(reset=fault.reset, keep=fault.keep)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request, its body still on the wire."""

    method: str
    target: str
    path: str
    query: Mapping[str, list[str]]
    headers: Headers
    route: Route
    body: Body
    connection_rank: int
    """How many connections are open that are older than this one."""

    def argument(self, name: str) -> str | None:
        """Return a query argument that may be given once.

        Raises:
            Refusal: it is given more than once.
        """
        values = self.query.get(name, [])
        if len(values) > 1:
            raise violation("UNSUPPORTED", f"the query gives {name} {len(values)} times")
        return values[0] if values else None

    def allow_query(self, *names: str) -> None:
        """Insist that the query holds nothing else, but for what mirrors are told: whose they are.

        Raises:
            Refusal: it does.
        """
        unknown = sorted(set(self.query) - {*names, "ns"})
        if unknown:
            raise violation("UNSUPPORTED", f"the query has an unknown {unknown[0]!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """How a response goes out, other than at once and whole. Bytes count those of its body."""

    delay: float = 0
    silent: bool = False  # hang up without a word
    stop_after: int | None = None
    reset: bool = False  # at the stop: RST rather than FIN
    stall_after: int | None = None
    stall_seconds: float = 0
    bytes_per_second: int | None = None
    early: bool = False  # answer before the request's body is read, and close


PROMPT = Delivery()


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What is answered; Content-Length is that of ``content`` unless said otherwise."""

    status: int
    headers: Headers = field(default_factory=Headers)
    content: Content = EMPTY
    offset: int = 0
    """Where in its blob the content starts, for the records."""
    length: int | None = None
    """What Content-Length says, if not the content's size."""
    chunked: bool = False
    close: bool = False
    delivery: Delivery = PROMPT


def json_response(
    status: int, value: Any, headers: Mapping[str, str] | None = None, media_type: str | None = None
) -> Response:
    """Return an answer whose body is JSON."""
    fields = {"Content-Type": media_type or "application/json", **(headers or {})}
    return Response(
        status=status,
        headers=Headers(fields.items()),
        content=Memory(json.dumps(value).encode()),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The first lines of a request."""

    method: str
    target: str
    path: str
    query: Mapping[str, list[str]]
    headers: Headers


class NotHttpError(ValueError):
    """What arrived is no HTTP/1.1 request."""


def read_head(stream: BufferedReader) -> Head | None:
    """Return the next request's head, or None when the client is done.

    Raises:
        NotHttpError: it breaks RFC 9112; nothing after it on the connection can be understood.
    """
    if stream.peek(1)[:1] == _TLS_HANDSHAKE:  # which need not hold a line's end to wait for
        raise NotHttpError("TLS, spoken to a port without it")
    first = stream.readline(MAX_HEAD_LINE_BYTES)
    if _is_cut_off(first):
        return None
    parts = first.decode("latin-1").rstrip("\r\n").split(" ")
    if len(parts) != 3 or not first.endswith(b"\r\n") or not _TOKEN.fullmatch(parts[0]):
        raise NotHttpError(f"not a request line (or bytes beyond the last body): {first[:80]!r}")
    method, target, version = parts
    if version != "HTTP/1.1":
        raise NotHttpError(f"{version} is not HTTP/1.1")
    if not target.startswith("/") or "#" in target or target.startswith("//"):
        raise NotHttpError(f"the target is not an absolute path: {target[:80]!r}")
    headers = _read_headers(stream)
    if headers is None:
        return None
    url = urlsplit(target)
    try:
        query = (
            parse_qs(url.query, keep_blank_values=True, strict_parsing=True) if url.query else {}
        )
    except ValueError as error:
        raise NotHttpError(f"not a query: {url.query[:80]!r}") from error
    return Head(method=method, target=target, path=unquote(url.path), query=query, headers=headers)


def _is_cut_off(line: bytes) -> bool:
    """Return whether the client was gone before the line ended, which breaks no rule."""
    return not line.endswith(b"\n") and len(line) < MAX_HEAD_LINE_BYTES


def _read_headers(stream: BufferedReader) -> Headers | None:
    pairs = []
    while (line := stream.readline(MAX_HEAD_LINE_BYTES)) != b"\r\n":
        if _is_cut_off(line):
            return None
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not _TOKEN.fullmatch(name) or not line.endswith(b"\r\n"):
            raise NotHttpError(f"not a header line: {line[:80]!r}")
        pairs.append((name, value.strip(" \t\r\n")))
        if len(pairs) > MAX_HEADERS:
            raise NotHttpError(f"more than {MAX_HEADERS} header lines")
    names = [name.lower() for name, _ in pairs]
    repeated = sorted(name for name in _ONCE if names.count(name) > 1)
    if repeated:
        raise NotHttpError(f"the header {repeated[0]} comes twice")
    headers = Headers(pairs)
    if not headers.get("host"):
        raise NotHttpError("no Host header (RFC 9112, 3.2)")
    if not headers.get("content-length", "0").isdecimal():
        raise NotHttpError(f"not a Content-Length: {headers['content-length']!r}")
    if "transfer-encoding" in headers and (
        "content-length" in headers or headers["transfer-encoding"].lower() != "chunked"
    ):
        raise NotHttpError("a Transfer-Encoding other than chunked, or beside a Content-Length")
    return headers
