"""What a server has seen: every request, every breach of the protocol, every byte it sent.

Owns the frozen records, the books they are kept in, and the sums tests ask for. A record is in
the books, with its status and its bytes, before the client can have the answer.

    assert registry.violations == []
    assert registry.repeated_bytes(digest) == 0
"""

import base64
import binascii
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tests.support.faultregistry.routes import Kind, Route
from tests.support.faultregistry.wire import Body, Head, Headers


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRecord:
    """One request and what became of it, so far."""

    number: int
    at: float
    """``time.monotonic()`` when its head had been read."""
    connection: int
    method: str
    target: str
    """Path and query as sent."""
    path: str
    """Path, decoded."""
    query: dict[str, list[str]]
    headers: Headers
    kind: Kind
    repo: str | None
    digest: str | None
    range: tuple[int, int | None] | None
    """First byte asked for and the one after the last; the end is None for "to the end"."""
    body_received: int
    body_start: bytes
    """The first kilobyte of the body."""
    status: int | None
    """None: nothing has been answered."""
    offset: int
    """Where in the blob the answer's body starts."""
    bytes_sent: int
    """Bytes of the answer's body, handed to the system."""
    faults: tuple[str, ...]
    """Names of the faults that were applied."""

    @property
    def authorization(self) -> str | None:
        """The Authorization header."""
        return self.headers.get("authorization")


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One breach of the protocol by a client."""

    message: str
    request: str
    """Method and target; empty when it was no request."""
    at: float


class Span(NamedTuple):
    """A stretch of a blob and how often it went out."""

    start: int
    end: int
    times: int


@dataclass(kw_only=True, slots=True)
class Entry:
    """A record that is still being written, by the one thread that serves the request."""

    number: int
    at: float
    connection: int
    head: Head
    route: Route
    body: Body
    status: int | None = None
    offset: int = 0
    bytes_sent: int = 0
    faults: tuple[str, ...] = ()

    def record(self) -> RequestRecord:
        """Return what is known now."""
        return RequestRecord(
            number=self.number,
            at=self.at,
            connection=self.connection,
            method=self.head.method,
            target=self.head.target,
            path=self.head.path,
            query=dict(self.head.query),
            headers=self.head.headers,
            kind=self.route.kind,
            repo=self.route.repo,
            digest=self.route.digest,
            range=asked_range(self.head.headers),
            body_received=self.body.received,
            body_start=self.body.start,
            status=self.status,
            offset=self.offset,
            bytes_sent=self.bytes_sent,
            faults=self.faults,
        )


class Books:
    """The records of one server, and questions about them. Thread-safe."""

    def __init__(self) -> None:
        self._books_lock = threading.Lock()
        self._entries: list[Entry] = []
        self._violations: list[Violation] = []
        self._numbers = 0

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request in order of arrival, those in progress included."""
        with self._books_lock:
            return [entry.record() for entry in self._entries]

    @property
    def violations(self) -> list[Violation]:
        """Every breach of the protocol; a test ends with ``assert registry.violations == []``."""
        with self._books_lock:
            return list(self._violations)

    @property
    def credentials_seen(self) -> list[str]:
        """Every different Authorization header that arrived, in order of arrival."""
        seen = (record.authorization for record in self.requests)
        return list(dict.fromkeys(value for value in seen if value is not None))

    def requests_with(self, secret: str) -> list[RequestRecord]:
        """Return the requests that carried a secret: in a header, Basic's included, URL or body."""
        return [record for record in self.requests if secret in _all_text(record)]

    def select(
        self,
        *,
        method: str | None = None,
        kind: Kind | None = None,
        repo: str | None = None,
        digest: object = None,
        status: int | None = None,
    ) -> list[RequestRecord]:
        """Return the requests that are like this."""
        wanted = {"method": method, "kind": kind, "repo": repo, "status": status}
        wanted["digest"] = None if digest is None else str(digest)
        return [
            record
            for record in self.requests
            if all(getattr(record, name) == value for name, value in wanted.items() if value)
        ]

    def served(self, digest: object) -> list[tuple[int, int]]:
        """Return the stretches (first byte, one after the last) of a blob that went out."""
        return [
            (record.offset, record.offset + record.bytes_sent)
            for record in self.select(method="GET", kind="blob", digest=digest)
            if record.status in (200, 206) and record.bytes_sent
        ]

    def bytes_sent(self, digest: object = None) -> int:
        """Return the body bytes sent of one blob, or of all blobs, repetitions included."""
        return sum(
            record.bytes_sent
            for record in self.select(method="GET", kind="blob", digest=digest)
            if record.status in (200, 206)
        )

    def coverage(self, digest: object) -> list[Span]:
        """Return which stretches of a blob went out, and how often; what never did is left out."""
        return coverage(self.served(digest))

    def repeated_bytes(self, digest: object) -> int:
        """Return how many bytes of a blob went out again after the first time."""
        return sum((span.end - span.start) * (span.times - 1) for span in self.coverage(digest))

    def clear_records(self) -> None:
        """Forget all requests and violations, as between two runs of a client."""
        with self._books_lock:
            self._entries.clear()
            self._violations.clear()

    def _begin(self, head: Head, route: Route, body: Body, connection: int) -> Entry:
        with self._books_lock:
            self._numbers += 1
            entry = Entry(
                number=self._numbers,
                at=time.monotonic(),
                connection=connection,
                head=head,
                route=route,
                body=body,
            )
            self._entries.append(entry)
        return entry

    def _violated(self, message: str, request: str = "") -> None:
        with self._books_lock:
            self._violations.append(
                Violation(message=message, request=request, at=time.monotonic())
            )


def coverage(stretches: Iterable[tuple[int, int]]) -> list[Span]:
    """Return the stretches that any of these cover, cut where the number of them changes."""
    steps: dict[int, int] = {}
    for start, end in stretches:
        steps[start] = steps.get(start, 0) + 1
        steps[end] = steps.get(end, 0) - 1
    spans: list[Span] = []
    times, since = 0, 0
    for point in sorted(place for place, step in steps.items() if step):
        if times:
            spans.append(Span(since, point, times))
        times += steps[point]
        since = point
    return spans


def asked_range(headers: Headers) -> tuple[int, int | None] | None:
    """Return what a Range header asks for, half-open; ``(-n, None)`` is the last n bytes.

    Only a well-formed single range counts; ``serving.py`` refuses the others.
    """
    unit, _, text = headers.get("range", "").partition("=")
    first, dash, last = text.partition("-")
    if unit != "bytes" or not dash:
        return None
    if first.isdecimal() and (last.isdecimal() or not last):
        return int(first), int(last) + 1 if last else None
    if not first and last.isdecimal():
        return -int(last), None
    return None


def _all_text(record: RequestRecord) -> str:
    texts = [record.target, record.path, record.body_start.decode("latin-1")]
    for value in record.headers.values():
        texts.append(value)
        scheme, _, encoded = value.partition(" ")
        if scheme.lower() == "basic":
            try:
                texts.append(base64.b64decode(encoded, validate=True).decode("latin-1"))
            except binascii.Error:
                continue
    return "\n".join(texts)
