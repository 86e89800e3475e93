"""Requests to one registry's API: authenticated, retried, bounded, never leaking credentials.

Owns everything that is the same for every request of the control plane. Leaves out what the
requests mean (``repository.py``) and moving bulk bytes (``uploads.py``, ``ranges.py``), which
share its authenticator, TLS context and retry rules.
"""

import contextlib
import logging
import ssl
import time
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from modelpack._version import __version__
from modelpack.descriptor import MAX_MANIFEST_BYTES
from modelpack.errors import IntegrityError, NetworkError
from modelpack.events import Observer
from modelpack.registry import addresses
from modelpack.registry.auth import PULL, Authenticator, TokenAnswer
from modelpack.registry.errors import (
    MAX_ERROR_BYTES,
    RETRIED_STATUSES,
    is_out_of_space,
    passing_reason,
    response_error,
)
from modelpack.registry.options import ConnectionOptions, Mirror
from modelpack.registry.proxies import ProxyingTransport
from modelpack.registry.retry import Backoff, Contact, final_failure, reason_of, retry_after

# They log whole URLs and headers; a signed query is a credential.
for _logger_name in ("httpx", "httpcore"):
    logging.getLogger(_logger_name).setLevel(logging.WARNING)

USER_AGENT = f"modelpack/{__version__}"
_DEFAULT_CONNECTIONS = 16
# Registries redirect a blob once, some CDNs twice.
_MAX_REDIRECTS = 5
# A token may run out between two tries, once more than is likely.
_MAX_RENEWALS = 2
MOVED = frozenset({301, 308})
TO_STORAGE = frozenset({302, 303, 307})
"""By these a registry says that it has a blob, and where; the signed URL may be good for GET only."""
REDIRECTS = MOVED | TO_STORAGE
_TOKEN_SECONDS = 30.0
# A few MiB at most; without this a server could send one byte a minute for ever.
_BODY_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """An answer whose body was read."""

    status: int
    headers: Mapping[str, str]
    """Looked up in any case."""
    body: bytes
    url: str


class RegistryClient:
    """The connections to one repository of a registry; thread-safe."""

    def __init__(
        self,
        registry: str,
        repository: str | None,
        options: ConnectionOptions | None = None,
        observer: Observer | None = None,
        *,
        mirror: Mirror | None = None,
    ) -> None:
        """Prepare, without connecting; with ``mirror``, requests go there.

        Raises:
            UsageError: the options' certificate file is unusable.
        """
        self.registry = registry if mirror is None else mirror.origin.authority
        self.repository = repository
        self.options = options or ConnectionOptions()
        self.endpoint = self.options.endpoint(registry) if mirror is None else mirror.origin
        self._api = f"{self.endpoint.url}/v2" if mirror is None else mirror.api
        # By this a mirror of several registries tells them apart; containerd sends it, too.
        self._namespace = {} if mirror is None else {"ns": mirror.registry}
        self.ssl_context: ssl.SSLContext = self.options.ssl_context()
        self.contact = Contact()
        self._observer = observer
        # The limit the user sets is for bulk bytes; requests that wait for each other need a few.
        connections = max(_DEFAULT_CONNECTIONS, self.options.max_connections or 0)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.Client(
            transport=ProxyingTransport(self.options.proxy, self.ssl_context, limits),
            follow_redirects=False,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            # Harbor takes whoever returns its cookies for a browser.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self.authenticator = Authenticator(
            registry=self.registry,
            repository=repository,
            endpoint=self.endpoint,
            options=self.options,
            send=self._send_for_token,
            backoff=self.backoff,
        )

    @property
    def name(self) -> str:
        """``registry/repository``, for messages."""
        return f"{self.registry}/{self.repository}" if self.repository else self.registry

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def backoff(self, what: str, patience: float | None = None) -> Backoff:
        """Return fresh retries for one piece of work, with the options' patience or less."""
        longest = self.options.patience
        return Backoff(
            what,
            patience=longest if patience is None else min(patience, longest),
            contact=self.contact,
            observer=self._observer,
        )

    def url(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """Return the URL of ``path`` in the repository's part of the API (``/v2/NAME/``)."""
        prefix = f"{self.repository}/" if self.repository else ""
        url = f"{self._api}/{prefix}{path}"
        query = {**(query or {}), **self._namespace}
        return f"{url}?{urllib.parse.urlencode(query)}" if query else url

    def request(
        self,
        method: str,
        target: str,
        *,
        what: str,
        expect: Collection[int] = (200,),
        actions: str = PULL,
        also: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        max_bytes: int = MAX_MANIFEST_BYTES,
        read_timeout: float | None = None,
        patience: float | None = None,
        redirects: Collection[int] = REDIRECTS,
    ) -> Response:
        """Send a request until it is answered for good, and read its body.

        ``target`` is a path in the repository or an absolute URL. ``what`` says in an error what
        was being done. A status outside ``expect`` is raised as the error it means; one of
        ``redirects`` is followed.

        Raises:
            ModelpackError: any class, as ``errors.response_error`` maps the answer.
            NetworkError: no answer within the patience.
            IntegrityError: a body above ``max_bytes``, or an unsafe redirect.
        """
        url = target if "://" in target else self.url(target, query)
        backoff = self.backoff(what, patience)
        while True:
            try:
                with self.open(
                    method,
                    url,
                    what=what,
                    actions=actions,
                    also=also,
                    headers=headers,
                    content=content,
                    read_timeout=read_timeout,
                    redirects=redirects,
                ) as opened:
                    status = opened.status_code
                    good = status in expect
                    limit = max_bytes if good else MAX_ERROR_BYTES
                    body = _read(opened, limit, what, strict=good, seconds=_BODY_SECONDS)
                    if good or status not in RETRIED_STATUSES or is_out_of_space(status, body):
                        break
                    reason = passing_reason(status, body)
                    after = retry_after(opened.headers.get("Retry-After"), now=time.time())
            except httpx.TransportError as error:
                reason, after = self.transient(error), None
            backoff.wait(reason, after)
        if status not in expect:
            raise response_error(
                status,
                body,
                what=what,
                registry=self.registry,
                logged_in=self.authenticator.logged_in,
            )
        return Response(status=status, headers=opened.headers, body=body, url=str(opened.url))

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        url: str,
        *,
        what: str,
        actions: str = PULL,
        also: str | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        read_timeout: float | None = None,
        redirects: Collection[int] = REDIRECTS,
    ) -> Iterator[httpx.Response]:
        """Send one request, with authentication and redirects but no retries; the body is unread.

        Only GET and HEAD are redirected. Authorization goes to the registry's own origin only.

        Raises:
            httpx.TransportError: the connection failed; see ``transient``.
            AuthError, UnsafeAddressError: as ``Authenticator.renew`` and ``resolve_location``.
        """
        renewals = hops = 0
        while True:
            own = addresses.origin_of(url) == self.endpoint
            authorization = self.authenticator.authorization(actions, also=also) if own else None
            sent = dict(headers or {})
            if authorization:
                sent["Authorization"] = authorization
            request = self._http.build_request(
                method, url, headers=sent, content=content, timeout=self._timeout(read_timeout)
            )
            response = self._http.send(request, stream=True)
            try:
                self.contact.make()
                if response.status_code == 401 and own and renewals < _MAX_RENEWALS:
                    challenge = ", ".join(response.headers.get_list("WWW-Authenticate"))
                    response.close()
                    self.authenticator.renew(challenge, authorization, actions, also=also)
                    renewals += 1
                    continue
                location = response.headers.get("Location")
                if (
                    response.status_code in redirects
                    and location is not None
                    and method in {"GET", "HEAD"}
                ):
                    hops += 1
                    if hops > _MAX_REDIRECTS:
                        raise NetworkError(f"{what}: more than {_MAX_REDIRECTS} redirects")
                    url = addresses.resolve_location(url, location)
                    continue
                yield response
                return
            finally:
                response.close()

    def transient(self, error: httpx.TransportError) -> str:
        """Return the reason of a connection failure that may pass.

        Raises:
            NetworkError: it will not pass (no such host, certificate not trusted, no TLS there).
        """
        final = final_failure(error, self._host_of(error))
        if final is not None:
            raise final from error
        return reason_of(error)

    def _host_of(self, error: httpx.TransportError) -> str:
        try:
            return addresses.origin_of(str(error.request.url)).authority
        except RuntimeError:  # it was raised before there was a request
            return self.endpoint.authority

    def _timeout(self, read: float | None) -> httpx.Timeout:
        return httpx.Timeout(
            read or self.options.read_timeout, connect=self.options.connect_timeout, pool=None
        )

    def _send_for_token(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None,
        max_bytes: int,
    ) -> TokenAnswer:
        request = self._http.build_request(
            method,
            url,
            headers=dict(headers),
            data=dict(form) if form is not None else None,
            timeout=self._timeout(min(_TOKEN_SECONDS, self.options.read_timeout)),
        )
        try:
            response = self._http.send(request, stream=True)
            try:
                body = _read(
                    response, max_bytes, "token service", strict=True, seconds=_TOKEN_SECONDS
                )
            finally:
                response.close()
        except httpx.TransportError as error:
            raise ConnectionError(self.transient(error)) from error
        return TokenAnswer(response.status_code, body, response.headers.get("Retry-After"))


def _read(
    response: httpx.Response, limit: int, what: str, *, strict: bool, seconds: float
) -> bytes:
    """Read a body of at most ``limit`` bytes; a longer one is an error, or cut if not strict."""
    data = bytearray()
    deadline = time.monotonic() + seconds
    for piece in response.iter_raw():
        data += piece
        if time.monotonic() > deadline:
            raise NetworkError(f"{what}: the answer is not complete after {seconds:.0f} s")
        if len(data) > limit:
            if strict:
                raise IntegrityError(f"{what}: the answer is larger than {limit} bytes")
            return bytes(data[:limit])
    return bytes(data)
