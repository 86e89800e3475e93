"""The data plane: ranges of blobs over HTTP/1.1, straight into the caller's buffer.

Owns one connection per worker, redirects, and the strict reading of a ranged response
(distribution-spec, "Pulling blobs"; RFC 9110, 14.4). Leaves out retrying and verifying, which the
download engine does.

``http.client`` rather than httpx, because its ``readinto`` goes from the socket to the buffer
without a copy: four connections reach three times the throughput at a third of the CPU time
(docs/adr/0004-data-plane.md).
"""

import http.client
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

from modelpack._version import __version__
from modelpack.descriptor import Descriptor
from modelpack.errors import (
    AuthError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    TransientError,
)
from modelpack.storage import ByteStream, RangeIgnoredError

USER_AGENT = f"modelpack/{__version__}"
# A server may think before it answers, but bytes that stop for this long will not come.
_HEADER_SECONDS = 30.0
_STALL_SECONDS = 10.0
_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_THROTTLED = {429, 503}
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")
# What is read of an error's body, so that the connection can be used again.
_ERROR_BODY_BYTES = 64 * 1024
_LONGEST_RETRY_AFTER = 60.0


class Authorizer(Protocol):
    """What the data plane needs of ``registry.auth``."""

    def authorization(self) -> str | None:
        """Return the header to send now, if any."""

    def renew(self, challenge: str, failed: str | None) -> str:
        """Return a new header after ``failed`` was refused with ``challenge``."""


@dataclass
class BlobLocations:
    """Where the registry redirects each blob to, shared by all connections of a transfer."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[str, str] = field(default_factory=dict)

    def get(self, digest: str) -> str | None:
        """Return the location found last, if it still holds."""
        with self._lock:
            return self._known.get(digest)

    def put(self, digest: str, url: str) -> None:
        """Remember a location."""
        with self._lock:
            self._known[digest] = url

    def drop(self, digest: str, url: str) -> None:
        """Forget a location that no longer works, unless it was replaced meanwhile."""
        with self._lock:
            if self._known.get(digest) == url:
                del self._known[digest]


class HttpRangeConnection:
    """A worker's connections: one to the registry, and one to each host it redirects to."""

    def __init__(
        self,
        *,
        origin: str,
        repository: str,
        authorizer: Authorizer,
        locations: BlobLocations,
        tls: ssl.SSLContext | None,
        stall_seconds: float = _STALL_SECONDS,
    ) -> None:
        """Prepare; ``origin`` is ``http://host:port`` or ``https://host:port``."""
        self._origin = origin
        self._repository = repository
        self._authorizer = authorizer
        self._locations = locations
        self._tls = tls
        self._stall_seconds = stall_seconds
        self._open: dict[tuple[str, str], http.client.HTTPConnection] = {}
        self._aborted = False

    def abort(self) -> None:
        """Make a read in progress, in another thread, fail at once."""
        self._aborted = True
        for connection in list(self._open.values()):
            sock = connection.sock
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(2)

    def close(self) -> None:
        """Close every connection; the next request opens new ones."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()

    @contextmanager
    def open_range(self, descriptor: Descriptor, start: int, length: int) -> Iterator[ByteStream]:
        """Open ``length`` bytes of a blob from ``start`` on (see ``storage.RangeConnection``)."""
        response = self._request(descriptor, start, length)
        whole = start == 0 and length == descriptor.size
        if response.status == http.client.OK and not whole:
            raise RangeIgnoredError(self._body(response, descriptor))
        with self._body(response, descriptor) as stream:
            yield stream

    @contextmanager
    def _body(
        self, response: http.client.HTTPResponse, descriptor: Descriptor
    ) -> Iterator[ByteStream]:
        try:
            yield _Body(response)
        except TimeoutError as error:
            self.close()
            raise TransientError(
                f"no data for {self._stall_seconds:.0f} seconds from {self._host(descriptor)}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise TransientError(
                f"connection to {self._host(descriptor)} broke: {_reason(error)}"
            ) from error
        except BaseException:
            self.close()
            raise

    def _request(self, descriptor: Descriptor, start: int, length: int) -> http.client.HTTPResponse:
        """Send the request, following redirects and renewing credentials; check the answer."""
        digest = str(descriptor.digest)
        origin_url = f"{self._origin}/v2/{self._repository}/blobs/{digest}"
        url = self._locations.get(digest) or origin_url
        renewals = hops = 0
        challenge_answer: str | None = None
        while True:
            at_origin = url == origin_url
            header = None
            if at_origin:
                header = challenge_answer or self._authorizer.authorization()
            response = self._send(url, header, start, length)
            status = response.status
            if status in {http.client.OK, http.client.PARTIAL_CONTENT}:
                self._check(response, descriptor, start, length)
                if not at_origin:
                    self._locations.put(digest, url)
                return response
            location = response.headers.get("Location")
            challenge = response.headers.get("WWW-Authenticate", "")
            self._finish_error(response)
            if status in _REDIRECTS and location:
                hops += 1
                if hops > _MAX_REDIRECTS:
                    raise ProtocolError(f"blob {digest}: more than {_MAX_REDIRECTS} redirects")
                url = self._redirect(url, location, digest)
            elif status in {401, 403} and not at_origin and renewals < 2:
                # A signed location has expired: ask the registry for a new one.
                renewals += 1
                self._locations.drop(digest, url)
                url = origin_url
            elif status == http.client.UNAUTHORIZED and at_origin and renewals < 2:
                renewals += 1
                challenge_answer = self._authorizer.renew(challenge, header)
            else:
                raise self._refused(response, descriptor)

    def _send(
        self, url: str, authorization: str | None, start: int, length: int
    ) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        headers = {
            "User-Agent": USER_AGENT,
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{start + length - 1}",
        }
        if authorization:
            headers["Authorization"] = authorization
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        fresh = False
        while True:
            connection, fresh = self._connection(parts)
            try:
                connection.request("GET", target, headers=headers)
                response = connection.getresponse()
                if connection.sock is not None:
                    connection.sock.settimeout(self._stall_seconds)
            except ssl.SSLCertVerificationError as error:
                raise NetworkError(
                    f"{parts.netloc}: its certificate is not trusted ({error.verify_message}); "
                    "give its CA with --ca-file"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A kept connection may have been closed by the server meanwhile.
                if not fresh and not self._aborted and not isinstance(error, TimeoutError):
                    continue
                raise TransientError(f"{parts.netloc}: {_reason(error)}") from error
            else:
                return response

    def _connection(self, parts: SplitResult) -> tuple[http.client.HTTPConnection, bool]:
        key = (parts.scheme, parts.netloc)
        connection = self._open.get(key)
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(_HEADER_SECONDS)
            return connection, False
        connection = dial(parts.scheme, parts.netloc, tls=self._tls, timeout=_HEADER_SECONDS)
        self._open[key] = connection
        return connection, True

    def _check(
        self,
        response: http.client.HTTPResponse,
        descriptor: Descriptor,
        start: int,
        length: int,
    ) -> None:
        """Prove that the response is the range that was asked for, or the whole blob."""
        what = f"blob {descriptor.digest}"
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise self._drop(ProtocolError(f"{what}: sent with Content-Encoding {encoding!r:.40}"))
        if response.status == http.client.OK:
            if response.length is not None and response.length != descriptor.size:
                raise self._drop(
                    ProtocolError(
                        f"{what}: the server sends {response.length} bytes, "
                        f"the manifest says {descriptor.size}"
                    )
                )
            return
        value = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.match(value)
        if (
            not match
            or int(match[1]) != start
            or int(match[2]) != start + length - 1
            or match[3] not in {"*", str(descriptor.size)}
            or response.length not in {None, length}
        ):
            raise self._drop(
                ProtocolError(
                    f"{what}: asked for bytes {start}-{start + length - 1} of {descriptor.size}, "
                    f"the server sent {value!r:.80}"
                )
            )

    def _drop(self, error: ProtocolError) -> ProtocolError:
        self.close()
        return error

    def _redirect(self, url: str, location: str, digest: str) -> str:
        target = urljoin(url, location)
        parts = urlsplit(target)
        if parts.scheme not in {"http", "https"} or not parts.netloc or "@" in parts.netloc:
            raise ProtocolError(f"blob {digest}: redirected to something that is no web address")
        if parts.scheme == "http" and self._origin.startswith("https:"):
            raise ProtocolError(
                f"blob {digest}: redirected from https to plain http at {parts.netloc!r:.100}"
            )
        return target

    def _refused(
        self, response: http.client.HTTPResponse, descriptor: Descriptor
    ) -> NetworkError | NotFoundError | AuthError | ProtocolError:
        """Map a final status to the project's errors."""
        status = response.status
        what = f"{self._host(descriptor)}/{self._repository}: blob {descriptor.digest}"
        if status in _TRANSIENT:
            retry_after = parse_retry_after(response.headers.get("Retry-After"))
            if retry_after is None and status in _THROTTLED:
                retry_after = 1.0
            return TransientError(f"{what}: HTTP {status}", retry_after=retry_after)
        if status == http.client.NOT_FOUND:
            return NotFoundError(f"{what}: not found, though its manifest is there")
        if status in {401, 403}:
            return AuthError(
                f"{what}: access denied (HTTP {status}); try: modelpack login {self._netloc()}"
            )
        if status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return ProtocolError(f"{what}: shorter at the registry than its manifest says")
        return NetworkError(f"{what}: HTTP {status}")

    def _finish_error(self, response: http.client.HTTPResponse) -> None:
        try:
            rest = response.read(_ERROR_BODY_BYTES + 1)
        except (OSError, http.client.HTTPException):
            rest = None
        if rest is None or len(rest) > _ERROR_BODY_BYTES:
            self.close()

    def _netloc(self) -> str:
        return urlsplit(self._origin).netloc

    def _host(self, descriptor: Descriptor) -> str:
        """Name the host that serves a blob; never its path or query, which may be secrets."""
        url = self._locations.get(str(descriptor.digest)) or self._origin
        return urlsplit(url).netloc


class _Body:
    """A response's body as a ByteStream."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def readinto(self, buffer: memoryview, /) -> int:
        return self._response.readinto(buffer)


def dial(
    scheme: str, netloc: str, *, tls: ssl.SSLContext | None, timeout: float
) -> http.client.HTTPConnection:
    """Return an unopened connection to a host, through the environment's proxy if it names one."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - slow to import

    proxy = getproxies().get(scheme)
    through = urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else None
    host = urlsplit(f"//{netloc}").hostname or netloc
    if through is not None and proxy_bypass(host):
        through = None
    address = through.netloc.rpartition("@")[2] if through is not None else netloc
    if scheme == "https":
        context = tls or ssl.create_default_context()
        secure = http.client.HTTPSConnection(address, timeout=timeout, context=context)
        if through is not None:
            secure.set_tunnel(netloc)
        return secure
    plain = http.client.HTTPConnection(address, timeout=timeout)
    if through is not None:
        plain.set_tunnel(netloc)
    return plain


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, at most a minute; None if none."""
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _LONGEST_RETRY_AFTER)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - rarely needed

    try:
        moment = parsedate_to_datetime(value)
        seconds = moment.timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return max(0.0, min(seconds, _LONGEST_RETRY_AFTER))


def _reason(error: Exception) -> str:
    """Say what went wrong in a connection without repeating a request's target."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
