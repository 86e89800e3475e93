"""Bytes as an HTTP answer: whole, or the range that was asked for (RFC 9110, section 14).

Owns Range, Content-Range and 416. Leaves out where the bytes come from.

    return serve(request, content, {"Docker-Content-Digest": digest})
"""

from collections.abc import Mapping

from tests.support.faultregistry.contents import Content, Part
from tests.support.faultregistry.records import asked_range
from tests.support.faultregistry.wire import Headers, Refusal, Request, Response, violation


def serve(
    request: Request, content: Content, headers: Mapping[str, str], *, ranges: bool = True
) -> Response:
    """Return 200 with all of it, or 206 with the range that a GET asks for.

    Raises:
        Refusal: the range is malformed (400, a violation) or not satisfiable (416).
    """
    fields = dict(headers)
    if ranges:
        fields["Accept-Ranges"] = "bytes"
    if not ranges or request.method != "GET" or "range" not in request.headers:
        return Response(status=200, headers=Headers(fields.items()), content=content)
    size = content.size
    assert size is not None, "a range of something endless"
    start, end = satisfied_range(request, size)
    fields["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Response(
        status=206,
        headers=Headers(fields.items()),
        content=Part(content, start, end - start),
        offset=start,
    )


def satisfied_range(request: Request, size: int) -> tuple[int, int]:
    """Return the half-open range of ``size`` bytes that a request asks for.

    Raises:
        Refusal: it is malformed, several, or outside.
    """
    asked = asked_range(request.headers)
    if asked is None:
        # Allowed by RFC 9110, but blob stores ignore or refuse it: no client should count on it.
        raise violation("UNSUPPORTED", f"not one byte range: {request.headers['range']!r}")
    start, end = asked
    if start < 0 or request.headers["range"] == "bytes=-0":
        start, end = max(0, size + start), size
    end = size if end is None else min(end, size)
    if asked[1] is not None and asked[1] <= asked[0]:
        raise violation("UNSUPPORTED", f"the range ends first: {request.headers['range']!r}")
    if start >= end:
        unsatisfied = {"Content-Range": f"bytes */{size}"}
        raise Refusal(416, "SIZE_INVALID", f"outside of {size} bytes", headers=unsatisfied)
    return start, end
