"""Addresses that a registry hands out, and the rules for following them.

Owns origins, resolving ``Location`` and ``Link`` targets, and parsing ``Link`` and ``Range``
headers; pure. Leaves out token realms, whose rules are stricter (``realms.py``).

    >>> base = "https://r.example/v2/m/blobs/uploads/"
    >>> resolve_location(base, "/v2/m/blobs/uploads/1?state=x")
    'https://r.example/v2/m/blobs/uploads/1?state=x'
    >>> same_origin(base, "https://r.example:443/x")
    True
"""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from modelpack.errors import FormatError
from modelpack.registry.errors import UnsafeAddressError

_DEFAULT_PORTS = {"http": 80, "https": 443}
# Presigned storage URLs reach a few KiB; browsers and proxies stop at 8 or 16.
MAX_URL = 16 * 1024
_PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+\Z")
_LINK = re.compile(r"\s*<(?P<target>[^<>]*)>(?P<parameters>[^,<]*)(?:,|\Z)")
_LINK_REL = re.compile(
    r";\s*rel\s*=\s*(?:\"(?P<quoted>[^\"]*)\"|(?P<token>[^\s;\",]+))\s*(?=;|\Z)", re.IGNORECASE
)
_UPLOAD_RANGE = re.compile(r"(?:bytes=)?0-(?P<last>[0-9]{1,19})\Z")
_CONTENT_RANGE = re.compile(
    r"bytes (?P<first>[0-9]{1,19})-(?P<last>[0-9]{1,19})/(?P<total>[0-9]{1,19}|\*)\Z", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what decides whether credentials go along."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """``host`` or ``host:port``, as it stands in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The origin as a URL without a path."""
        return f"{self.scheme}://{self.authority}"


def split_url(url: str) -> SplitResult:
    """Split an absolute http or https URL.

    Raises:
        UnsafeAddressError: another scheme, no host, user information, a port that is none, or
            characters that do not belong in a URL.
    """
    if len(url) > MAX_URL or not _PRINTABLE_ASCII.match(url) or "\\" in url:
        raise UnsafeAddressError(f"the server sent an address that is not a URL: {url[:80]!r}")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise UnsafeAddressError(
            f"the server sent an address that is not a URL: {without_query(url)[:80]!r}"
        ) from error
    if parts.scheme not in _DEFAULT_PORTS or not host or port == 0:
        raise UnsafeAddressError(
            f"the server sent an address that is not http or https: {without_query(url)[:80]!r}"
        )
    if "@" in parts.netloc:
        raise UnsafeAddressError(f"the server sent an address with a user name in it ({host})")
    return parts


def origin_of(url: str) -> Origin:
    """Return the origin of an absolute URL (RFC 6454); raises as ``split_url`` does."""
    parts = split_url(url)
    assert parts.hostname is not None
    return Origin(
        parts.scheme, parts.hostname.rstrip("."), parts.port or _DEFAULT_PORTS[parts.scheme]
    )


def same_origin(first: str, second: str) -> bool:
    """Tell whether two URLs have the same scheme, host and port."""
    return origin_of(first) == origin_of(second)


def resolve_location(base: str, location: str) -> str:
    """Return the absolute URL of a ``Location`` or redirect, relative to the URL asked.

    Another host is allowed here, since registries hand blobs and uploads to storage services;
    whether credentials go along is decided by origin.

    Raises:
        UnsafeAddressError: not a URL, or plain HTTP after HTTPS.
    """
    if not location or len(location) > MAX_URL or not _PRINTABLE_ASCII.match(location):
        raise UnsafeAddressError(f"the server sent a location that is not a URL: {location[:80]!r}")
    try:
        url = urljoin(base, location)
    except ValueError as error:
        raise UnsafeAddressError("the server sent a location that is not a URL") from error
    target = split_url(url)
    if urlsplit(base).scheme == "https" and target.scheme != "https":
        raise UnsafeAddressError(
            f"the server at {origin_of(base).authority} points from https to plain http "
            f"({without_query(url)[:200]}); not followed"
        )
    return url.partition("#")[0]


def add_query(url: str, query: str) -> str:
    """Append an encoded query to a URL that may have one, which stays as it is."""
    return f"{url}{'&' if '?' in url else '?'}{query}"


def path_of(url: str) -> str:
    """Return the path and query of a URL, as they go into a request line."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def without_query(url: str) -> str:
    """Return a URL fit for a message: a query may hold a signature or a token."""
    return url.partition("?")[0].partition("#")[0]


def next_link(header: str) -> str | None:
    """Return the target of the ``rel="next"`` link of a ``Link`` header (RFC 8288), if any.

    Raises:
        FormatError: the header is not a list of links.
    """
    position = 0
    while position < len(header):
        match = _LINK.match(header, position)
        if not match:
            raise FormatError(f"Link header is malformed: {header[:100]!r}")
        rel = _LINK_REL.search(match["parameters"])
        if rel and "next" in (rel["quoted"] or rel["token"] or "").lower().split():
            return match["target"]
        position = match.end()
    return None


def uploaded_bytes(header: str) -> int:
    """Return how many bytes an upload has, from its ``Range`` header (``0-LAST``).

    An upload without bytes is reported as ``0-0`` by some registries, which is indistinguishable
    from one byte, and is taken for none: the byte is then sent again.

    Raises:
        FormatError: it is something else.
    """
    match = _UPLOAD_RANGE.match(header.strip())
    if not match:
        raise FormatError(f"upload Range header is malformed: {header[:60]!r}")
    last = int(match["last"])
    return last + 1 if last else 0


def content_range(header: str) -> tuple[int, int, int | None]:
    """Return first byte, length and total (None if unknown) of a ``Content-Range`` (RFC 9110).

    Raises:
        FormatError: it is malformed, ends before it starts, or goes past its own total.
    """
    match = _CONTENT_RANGE.match(header.strip())
    if not match:
        raise FormatError(f"Content-Range header is malformed: {header[:60]!r}")
    first, last = int(match["first"]), int(match["last"])
    total = None if match["total"] == "*" else int(match["total"])
    if last < first or (total is not None and last >= total):
        raise FormatError(f"Content-Range header contradicts itself: {header[:60]!r}")
    return first, last - first + 1, total
