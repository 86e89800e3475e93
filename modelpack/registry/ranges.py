"""The data plane: ranges of blobs over HTTP/1.1, straight into the caller's buffer.

Owns one worker's connections, redirects, and the strict reading of a ranged response
(distribution-spec, "Pulling blobs"; RFC 9110, 14.4). Leaves out retrying and verifying, which the
download engine does.

The bytes go from the socket to the buffer by ``http.client``'s ``readinto``, without a copy: httpx
needs three times the CPU time for them (docs/adr/0004-data-plane.md).
"""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from modelpack.content import PIECE_BYTES
from modelpack.descriptor import Descriptor
from modelpack.errors import (
    AuthError,
    ModelpackError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    TransientError,
)
from modelpack.registry import addresses
from modelpack.registry.addresses import Origin
from modelpack.registry.client import USER_AGENT, RegistryClient
from modelpack.registry.connections import Connection, connect
from modelpack.registry.errors import RETRIED_STATUSES, login_hint
from modelpack.registry.pacing import PacedReader
from modelpack.registry.retry import LONGEST_RETRY_AFTER, final_failure, reason_of, retry_after
from modelpack.storage import ByteStream, RangeIgnoredError

# A server may think before it answers, but bytes that stop for this long will not come.
_HEADER_SECONDS = 30.0
STALL_SECONDS = 10.0
# What one read should take at most, and the least it asks for.
_READ_SECONDS = 0.25
_SMALLEST_READ = 16 * 1024
_MAX_REDIRECTS = 5
# A token may run out between two tries, once more than is likely; so may a signed location.
_MAX_RENEWALS = 2
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_THROTTLED = frozenset({429, 503})
_DEFAULT_PAUSE = 1.0
# What is read of an error's body, so that the connection can be used again.
_ERROR_BODY_BYTES = 64 * 1024


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
        client: RegistryClient,
        locations: BlobLocations,
        *,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """Prepare, without connecting."""
        self._client = client
        self._locations = locations
        self._stall_seconds = stall_seconds
        self._open: dict[Origin, Connection] = {}

    def abort(self) -> None:
        """Make a read in progress, in another thread, fail at once."""
        for connection in list(self._open.values()):
            connection.abort()

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
        """Lend the body; a connection whose response was not read to its end is not used again."""
        try:
            yield _Body(response)
        except TimeoutError as error:
            raise TransientError(
                f"{self._host(descriptor)}: next to no data for {self._stall_seconds:.0f} seconds"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{self._host(descriptor)}: {reason_of(error)}") from error
        finally:
            if not response.isclosed() or response.will_close:
                self.close()
            response.close()

    def _request(self, descriptor: Descriptor, start: int, length: int) -> http.client.HTTPResponse:
        """Send the request, following redirects and renewing credentials; check the answer."""
        digest = str(descriptor.digest)
        at_registry = self._client.url(f"blobs/{digest}")
        url = self._locations.get(digest) or at_registry
        renewals = hops = 0
        answer: str | None = None
        while True:
            direct = addresses.same_origin(url, at_registry)
            header = (answer or self._client.authenticator.authorization()) if direct else None
            response = self._send(url, header, start, length)
            if response.status in {http.client.OK, http.client.PARTIAL_CONTENT}:
                self._check(response, descriptor, start, length)
                if url != at_registry:
                    self._locations.put(digest, url)
                return response
            location = response.headers.get("Location")
            challenge = ", ".join(response.headers.get_all("WWW-Authenticate") or ())
            self._skip_body(response)
            if response.status in _REDIRECTS and location:
                hops += 1
                if hops > _MAX_REDIRECTS:
                    raise ProtocolError(f"blob {digest}: more than {_MAX_REDIRECTS} redirects")
                url = addresses.resolve_location(url, location)
            elif response.status in {401, 403} and url != at_registry and renewals < _MAX_RENEWALS:
                # A signed location has expired: ask the registry for a new one.
                renewals += 1
                self._locations.drop(digest, url)
                url = at_registry
            elif response.status == 401 and direct and renewals < _MAX_RENEWALS:
                renewals += 1
                answer = self._client.authenticator.renew(challenge, header)
            else:
                raise self._refused(response, descriptor)

    def _send(
        self, url: str, authorization: str | None, start: int, length: int
    ) -> http.client.HTTPResponse:
        origin = addresses.origin_of(url)
        while True:
            kept = origin in self._open
            try:
                return self._try(origin, url, authorization, f"bytes={start}-{start + length - 1}")
            except (OSError, http.client.HTTPException) as error:
                self.close()
                final = final_failure(error, origin.authority)
                if final is not None:
                    raise final from error
                # A kept connection may have been closed by the server meanwhile.
                if not kept or isinstance(error, TimeoutError):
                    raise TransientError(f"{origin.authority}: {reason_of(error)}") from error

    def _try(
        self, origin: Origin, url: str, authorization: str | None, wanted: str
    ) -> http.client.HTTPResponse:
        connection = self._open.get(origin)
        if connection is None:
            connection = connect(origin, self._client.options, self._client.ssl_context)
            self._open[origin] = connection
        lines = [
            f"GET {connection.target(url)} HTTP/1.1",
            f"Host: {origin.authority}",
            f"User-Agent: {USER_AGENT}",
            "Accept-Encoding: identity",
            f"Range: {wanted}",
        ]
        if authorization:
            lines.append(f"Authorization: {authorization}")
        if connection.proxy_authorization:
            lines.append(f"Proxy-Authorization: {connection.proxy_authorization}")
        connection.socket.settimeout(_HEADER_SECONDS)
        connection.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        reader = PacedReader(connection.socket, seconds=self._stall_seconds)
        response = http.client.HTTPResponse(reader, method="GET")  # type: ignore[arg-type]
        try:
            response.begin()
        except BaseException:
            response.close()
            raise
        connection.socket.settimeout(self._stall_seconds)
        reader.watch()
        return response

    def _check(
        self,
        response: http.client.HTTPResponse,
        descriptor: Descriptor,
        start: int,
        length: int,
    ) -> None:
        """Prove that the response is the range that was asked for, or the whole blob."""
        try:
            problem = _disagreement(response, descriptor.size, start, length)
        except ModelpackError as error:
            problem = str(error)
        if problem is not None:
            response.close()
            self.close()
            raise ProtocolError(f"blob {descriptor.digest}: {problem}")

    def _refused(
        self, response: http.client.HTTPResponse, descriptor: Descriptor
    ) -> NetworkError | NotFoundError | AuthError | ProtocolError:
        """Map a final status to the project's errors."""
        status = response.status
        what = f"{self._client.name}: blob {descriptor.digest}"
        if status in RETRIED_STATUSES:
            pause = retry_after(response.headers.get("Retry-After"), now=time.time())
            if pause is None and status in _THROTTLED:
                pause = _DEFAULT_PAUSE
            if pause is not None:
                pause = min(pause, LONGEST_RETRY_AFTER)
            return TransientError(f"{self._host(descriptor)}: HTTP {status}", retry_after=pause)
        if status == http.client.NOT_FOUND:
            return NotFoundError(f"{what} is missing, though its manifest is there")
        if status in {401, 403}:
            hint = login_hint(self._client.registry, logged_in=self._client.authenticator.logged_in)
            return AuthError(f"{what}: access denied (HTTP {status}); {hint}")
        if status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return ProtocolError(f"{what} is shorter at the registry than its manifest says")
        return NetworkError(f"{what}: HTTP {status}")

    def _skip_body(self, response: http.client.HTTPResponse) -> None:
        """Read a short body to its end, so that the connection can be used again."""
        try:
            response.read(_ERROR_BODY_BYTES)
        except (OSError, http.client.HTTPException):
            self.close()
        if not response.isclosed() or response.will_close:
            response.close()
            self.close()

    def _host(self, descriptor: Descriptor) -> str:
        """Name the host that serves a blob; never its path or query, which may be secrets."""
        url = self._locations.get(str(descriptor.digest)) or self._client.url("")
        return addresses.origin_of(url).authority


class _Body:
    """A response's body as a ByteStream.

    ``http.client`` fills whatever it is given. So that a slow connection's bytes are seen, and
    kept, as they come, it is given as much as arrives in a fraction of a second.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self._piece = _SMALLEST_READ

    def readinto(self, buffer: memoryview, /) -> int:
        began = time.monotonic()
        count = self._response.readinto(buffer[: self._piece])
        took = time.monotonic() - began
        if took < _READ_SECONDS / 4:
            self._piece = min(PIECE_BYTES, self._piece * 2)
        elif took > _READ_SECONDS:
            self._piece = max(_SMALLEST_READ, self._piece // 2)
        return count


def _disagreement(
    response: http.client.HTTPResponse, size: int, start: int, length: int
) -> str | None:
    """Say in what a 200 or 206 is not an answer to the request; None if it is one."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        return f"sent with Content-Encoding {encoding!r:.40}"
    if response.status == http.client.OK:
        if response.length not in {None, size}:
            return f"the server sends {response.length} bytes, the manifest says {size}"
        return None
    first, count, total = addresses.content_range(response.headers.get("Content-Range", ""))
    if (first, count) != (start, length) or total not in {None, size}:
        return (
            f"asked for {length} bytes from {start} of {size}, "
            f"the server sent {count} from {first} of {total}"
        )
    if response.length not in {None, length}:
        return f"asked for {length} bytes, the server sends {response.length}"
    return None
