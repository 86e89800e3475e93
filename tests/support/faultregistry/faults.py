"""What can go wrong on the way, each fault a value that a server is given.

Owns the constructors: each says what happens, and takes the conditions of ``faultplan.When`` as
further keywords. Several faults may meet one request; they act in the order given. Faults come
after authentication, so a challenge never uses one up.

Those that spoil a body or a range meet ``GET`` of blobs unless ``kind`` or ``path`` says
otherwise. Numbers of bytes count the body of one response.

    Fault.status(503, retry_after=1, times=3)
    Fault.truncate(after=100_000, digest=layer, nth={1, 2})
    Fault.corrupt(5_000_000, digest=layer)          # each time that byte is asked for
    Fault.replace_body(b"{}", kind="manifest")
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, Unpack

from tests.support.faultregistry.contents import EMPTY, Flipped, Joined, Memory, Part, Zeros
from tests.support.faultregistry.faultplan import Condition, When
from tests.support.faultregistry.serving import satisfied_range
from tests.support.faultregistry.wire import (
    Delivery,
    Headers,
    Refusal,
    Request,
    Response,
)

_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 405: "UNSUPPORTED", 429: "TOOMANYREQUESTS"}
_UPLOADS: Mapping[str, Any] = {"method": ("PATCH", "PUT", "POST")}


class RedirectTarget(Protocol):
    """A server that can say where it would have a request come to."""

    def redirect_location(self, request: Request) -> str:
        """Return an absolute URL."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Fault:
    """One thing that goes wrong, and when. Two that look alike are still two."""

    name: str
    condition: Condition
    before: Callable[[Request], Request | Response] | None = None
    """Changes the request before it is handled, or answers in its place."""
    after: Callable[[Request, Response], Response] | None = None
    """Changes the answer."""

    # In place of an answer

    @classmethod
    def status(
        cls,
        status: int,
        *,
        retry_after: float | str | None = None,
        code: str | None = None,
        early: bool = False,
        **when: Unpack[When],
    ) -> Self:
        """Answer with an error; ``early`` does so before the request's body has been read."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        error = Refusal(
            status, code or _CODES.get(status, "UNKNOWN"), f"fault: {status}", headers=headers
        ).response()
        answer = replace(error, delivery=Delivery(early=early))
        return cls._of(f"status {status}", when, before=lambda _: answer)

    @classmethod
    def drop(cls, *, reset: bool = False, **when: Unpack[When]) -> Self:
        """Hang up without an answer, once the request has been read."""
        answer = Response(status=500, delivery=Delivery(silent=True, reset=reset))
        return cls._of("drop", when, before=lambda _: answer)

    @classmethod
    def redirect(cls, to: str | RedirectTarget, *, status: int = 307, **when: Unpack[When]) -> Self:
        """Send the client elsewhere: to a URL as it is, or to another server of ours."""

        def before(request: Request) -> Response:
            location = to if isinstance(to, str) else to.redirect_location(request)
            return Response(status=status, headers=Headers([("Location", location)]))

        return cls._of("redirect", when, _downloads(when), before=before)

    @classmethod
    def patch_refused(cls, status: int = 405, **when: Unpack[When]) -> Self:
        """Refuse chunked uploads, as GHCR and Google's registry do."""
        error = Refusal(status, "UNSUPPORTED", "fault: no chunked uploads").response()
        return cls._of("patch_refused", when, {"method": "PATCH"}, before=lambda _: error)

    @classmethod
    def too_many_connections(
        cls, limit: int, *, status: int | None = 429, **when: Unpack[When]
    ) -> Self:
        """Refuse whatever comes over the youngest connections beyond ``limit``, and close them.

        A status of None resets them.
        """

        defaults = {"beyond_connections": limit}
        if status is None:
            answer = Response(status=500, delivery=Delivery(silent=True, reset=True))
        else:
            refusal = Refusal(status, "TOOMANYREQUESTS", f"fault: over {limit} connections")
            answer = replace(refusal.response(), close=True)
        return cls._of("too_many_connections", when, defaults, before=lambda _: answer)

    # Ranges

    @classmethod
    def ignore_range(cls, **when: Unpack[When]) -> Self:
        """Answer 200 with the whole body to a request for a range."""

        def before(request: Request) -> Request:
            return replace(request, headers=request.headers.without("range"))

        return cls._of("ignore_range", when, _downloads(when), before=before)

    @classmethod
    def wrong_content_range(cls, shift: int = 1, **when: Unpack[When]) -> Self:
        """Send the right bytes under a Content-Range that lies ``shift`` bytes off."""

        def after(_: Request, response: Response) -> Response:
            if response.status != 206:
                return response
            start, size = _place(response)
            return _with(response, **_content_range(start + shift, _length(response), size))

        return cls._of("wrong_content_range", when, _downloads(when), after=after)

    @classmethod
    def other_range(cls, shift: int, **when: Unpack[When]) -> Self:
        """Send, and say so, a range that begins ``shift`` bytes away from what was asked."""

        def after(_: Request, response: Response) -> Response:
            content = response.content
            if response.status != 206 or not isinstance(content, Part):
                return response
            start, size = _place(response)
            start = min(max(0, start + shift), size - 1)
            length = min(content.size, size - start)
            moved = _with(response, **_content_range(start, length, size))
            return replace(moved, content=Part(content.whole, start, length), offset=start)

        return cls._of("other_range", when, _downloads(when), after=after)

    @classmethod
    def shorter_range(cls, length: int, **when: Unpack[When]) -> Self:
        """Send, and say so, at most the first ``length`` bytes of the range; HTTP allows it."""

        def after(_: Request, response: Response) -> Response:
            if response.status != 206 or _length(response) <= length:
                return response
            start, size = _place(response)
            shorter = _with(response, **_content_range(start, length, size))
            return replace(shorter, content=Part(response.content, 0, length))

        return cls._of("shorter_range", when, _downloads(when), after=after)

    # Bodies

    @classmethod
    def truncate(cls, after: int, **when: Unpack[When]) -> Self:
        """Close the connection after N bytes of a body that was announced to be longer."""
        return cls._delivered("truncate", when, stop_after=after)

    @classmethod
    def reset(cls, after: int, **when: Unpack[When]) -> Self:
        """Reset the connection after N bytes of the body, which do arrive.

        Python's ssl does not tell a reset from an end.
        """
        return cls._delivered("reset", when, stop_after=after, reset=True)

    @classmethod
    def stall(cls, after: int, seconds: float, **when: Unpack[When]) -> Self:
        """Send nothing for a while after N bytes of the body; the connection stays open."""
        return cls._delivered("stall", when, stall_after=after, stall_seconds=seconds)

    @classmethod
    def slow(cls, bytes_per_second: int, **when: Unpack[When]) -> Self:
        """Send the body at this rate, per connection."""
        return cls._delivered("slow", when, bytes_per_second=bytes_per_second)

    @classmethod
    def delay(cls, seconds: float, **when: Unpack[When]) -> Self:
        """Wait before the first byte of any answer."""

        def after(_: Request, response: Response) -> Response:
            return replace(response, delivery=replace(response.delivery, delay=seconds))

        return cls._of("delay", when, after=after)

    @classmethod
    def corrupt(cls, offset: int, **when: Unpack[When]) -> Self:
        """Turn one byte of the blob over, its length unchanged; meets only what holds the byte."""

        def after(_: Request, response: Response) -> Response:
            flipped = Flipped(response.content, offset - response.offset)
            return replace(response, content=flipped)

        defaults = {**_downloads(when), "covers": (offset, offset + 1)}
        return cls._of("corrupt", when, defaults, after=_on_success(after))

    @classmethod
    def empty_200(cls, *, announce: bool = True, **when: Unpack[When]) -> Self:
        """Answer 200 with no body; ``announce`` still promises the blob's length, then closes."""

        def after(_: Request, response: Response) -> Response:
            stripped = replace(_with(response, **{"Content-Range": None}), status=200, offset=0)
            if announce:
                return replace(stripped, delivery=replace(response.delivery, stop_after=0))
            return replace(stripped, content=EMPTY)

        return cls._of("empty_200", when, _downloads(when), after=_on_success(after))

    @classmethod
    def short_body(cls, length: int, **when: Unpack[When]) -> Self:
        """Send at most ``length`` bytes, with a Content-Length that fits them: sound, but short."""

        def after(_: Request, response: Response) -> Response:
            size = min(length, _length(response))
            return replace(response, content=Part(response.content, 0, size))

        return cls._of("short_body", when, _downloads(when), after=_on_success(after))

    @classmethod
    def extra_bytes(cls, count: int = 1, **when: Unpack[When]) -> Self:
        """Send more bytes than there are, with a Content-Length that fits them."""

        def after(_: Request, response: Response) -> Response:
            return replace(response, content=Joined(response.content, b"\xff" * count))

        return cls._of("extra_bytes", when, _downloads(when), after=_on_success(after))

    @classmethod
    def replace_body(cls, body: bytes, **when: Unpack[When]) -> Self:
        """Send other bytes, or the range of them, under the headers of the right ones."""

        def after(request: Request, response: Response) -> Response:
            whole = Memory(body)
            if response.status == 200:
                return replace(response, content=whole)
            try:
                start, end = satisfied_range(request, len(body))
            except Refusal as refusal:
                return refusal.response()
            replaced = replace(response, content=Part(whole, start, end - start), offset=start)
            return _with(replaced, **_content_range(start, end - start, len(body)))

        return cls._of("replace_body", when, _downloads(when), after=_on_success(after))

    @classmethod
    def oversize(cls, size: int | None = None, **when: Unpack[When]) -> Self:
        """Send this many zero bytes; None sends them in chunks and without an end."""

        def after(_: Request, response: Response) -> Response:
            stripped = replace(_with(response, **{"Content-Range": None}), status=200, offset=0)
            return replace(stripped, content=Zeros(size), chunked=size is None)

        return cls._of("oversize", when, _downloads(when), after=_on_success(after))

    @classmethod
    def chunked(cls, **when: Unpack[When]) -> Self:
        """Send the right body in chunks, with no Content-Length."""

        def after(_: Request, response: Response) -> Response:
            return replace(response, chunked=True)

        return cls._of("chunked", when, _downloads(when), after=_on_success(after))

    # Headers and connections

    @classmethod
    def header(cls, name: str, value: str | None, **when: Unpack[When]) -> Self:
        """Set a header of any answer; None takes it away."""
        return cls._of(f"header {name}", when, after=lambda _, got: _with(got, **{name: value}))

    @classmethod
    def wrong_digest_header(cls, **when: Unpack[When]) -> Self:
        """Name another digest in Docker-Content-Digest."""

        def after(_: Request, response: Response) -> Response:
            digest = response.headers.get("docker-content-digest")
            if digest is None:
                return response
            last = "1" if digest.endswith("0") else "0"
            return _with(response, **{"Docker-Content-Digest": digest[:-1] + last})

        return cls._of("wrong_digest_header", when, after=after)

    @classmethod
    def close(cls, **when: Unpack[When]) -> Self:
        """Close the connection after a sound answer that says so."""
        return cls._of("close", when, after=lambda _, response: replace(response, close=True))

    # Uploads

    @classmethod
    def answer_201_after_patch(cls, **when: Unpack[When]) -> Self:
        """Answer 201 rather than 202 to a chunk, as Amazon's registry does."""

        def after(_: Request, response: Response) -> Response:
            return replace(response, status=201) if response.status == 202 else response

        return cls._of("answer_201_after_patch", when, {"method": "PATCH"}, after=after)

    @classmethod
    def mount_refused(cls, **when: Unpack[When]) -> Self:
        """Open an upload (202) where a mount was asked for."""

        def before(request: Request) -> Request:
            kept = {key: request.query[key] for key in request.query.keys() - {"mount", "from"}}
            return replace(request, query=kept)

        defaults = {"method": "POST", "path": r"[?&]mount="}
        return cls._of("mount_refused", when, defaults, before=before)

    @classmethod
    def drop_upload(
        cls, after: int, *, reset: bool = True, keep: bool = True, **when: Unpack[When]
    ) -> Self:
        """Hang up after N bytes of the request's body; ``keep`` leaves them in the upload.

        N as large as the body loses the answer and nothing else.
        """
        return cls._uploading("drop_upload", when, cut_after=after, reset=reset, keep=keep)

    @classmethod
    def stall_upload(cls, after: int, seconds: float, **when: Unpack[When]) -> Self:
        """Read nothing for a while after N bytes of the request's body."""
        return cls._uploading("stall_upload", when, stall_after=after, stall_seconds=seconds)

    @classmethod
    def slow_upload(cls, bytes_per_second: int, **when: Unpack[When]) -> Self:
        """Read the request's body at this rate, per connection."""
        return cls._uploading("slow_upload", when, bytes_per_second=bytes_per_second)

    @classmethod
    def lose_upload_bytes(cls, after: int, **when: Unpack[When]) -> Self:
        """Take only the first N bytes of a chunk, and say so in Range."""
        defaults = {"method": "PATCH"}
        return cls._uploading("lose_upload_bytes", when, defaults, lose_after=after)

    @classmethod
    def upload_elsewhere(cls, server: RedirectTarget, **when: Unpack[When]) -> Self:
        """Name an upload's Location on another server; give it the same ``store``."""

        def after(request: Request, response: Response) -> Response:
            location = response.headers.get("location")
            if response.status != 202 or location is None:
                return response
            elsewhere = server.redirect_location(replace(request, target=location))
            return _with(response, Location=elsewhere)

        return cls._of("upload_elsewhere", when, {"kind": "uploads"}, after=after)

    # Common ground

    @classmethod
    def _of(
        cls,
        name: str,
        when: When,
        defaults: Mapping[str, Any] | None = None,
        before: Callable[[Request], Request | Response] | None = None,
        after: Callable[[Request, Response], Response] | None = None,
    ) -> Self:
        merged: When = {**(defaults or {}), **when}  # type: ignore[typeddict-item]
        return cls(name=name, condition=Condition.of(merged), before=before, after=after)

    @classmethod
    def _delivered(cls, name: str, when: When, **how: Any) -> Self:
        def after(_: Request, response: Response) -> Response:
            return replace(response, delivery=replace(response.delivery, **how))

        return cls._of(name, when, _downloads(when), after=_on_success(after))

    @classmethod
    def _uploading(
        cls, name: str, when: When, defaults: Mapping[str, Any] = _UPLOADS, **how: Any
    ) -> Self:
        def before(request: Request) -> Request:
            request.body.fault = replace(request.body.fault, **how)
            return request

        return cls._of(name, when, defaults, before=before)


def _downloads(when: When) -> dict[str, Any]:
    """Return the conditions of a fault in a download, which a path makes superfluous."""
    return {"method": "GET"} if "path" in when else {"method": "GET", "kind": "blob"}


def _on_success(
    after: Callable[[Request, Response], Response],
) -> Callable[[Request, Response], Response]:
    """Leave errors and redirects as they are."""
    return lambda request, got: after(request, got) if got.status in (200, 206) else got


def _with(response: Response, **fields: str | None) -> Response:
    headers = response.headers
    for name in fields:
        headers = headers.without(name)
    given = [(name, value) for name, value in fields.items() if value is not None]
    return replace(response, headers=Headers([*headers.items(), *given]))


def _content_range(start: int, length: int, size: int) -> dict[str, str | None]:
    return {"Content-Range": f"bytes {start}-{start + length - 1}/{size}"}


def _place(response: Response) -> tuple[int, int]:
    """Return where a 206 starts, and the size of the whole."""
    place, _, size = response.headers["content-range"].removeprefix("bytes ").partition("/")
    return int(place.partition("-")[0]), int(size)


def _length(response: Response) -> int:
    size = response.content.size
    assert size is not None, "an endless body has no length"
    return size
