"""The other servers around a registry: where blobs are redirected to, and where tokens come from.

Owns ``BlobHost`` and ``TokenHost``. On another loopback address each is another host to a client,
and its records show which credentials got there.

    with BlobHost(store, address="127.0.0.2", uses=1) as blobs:
        registry.faults.add(Fault.redirect(blobs))
"""

import secrets
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Self
from urllib.parse import urlencode

from tests.support.faultregistry.auth import BearerAuth
from tests.support.faultregistry.faults import Fault
from tests.support.faultregistry.routes import UNKNOWN, Route, is_digest
from tests.support.faultregistry.server import HttpServer
from tests.support.faultregistry.serving import serve
from tests.support.faultregistry.store import Store
from tests.support.faultregistry.wire import Head, Refusal, Request, Response, violation


class BlobHost(HttpServer):
    """A blob store behind signed URLs, as the clouds have them.

    A URL is good for GET alone, for some seconds or some uses, then answered 403. Credentials
    beside the signature are refused (400) and recorded as a violation.
    """

    def __init__(
        self,
        store: Store,
        *,
        address: str = "127.0.0.2",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        lifetime: float | None = None,
        uses: int | None = None,
        faults: Iterable[Fault] = (),
    ):
        """``lifetime`` in seconds, and ``uses``, hold for each URL; None means for ever."""
        super().__init__(address=address, port=port, tls=tls, faults=faults)
        self.lifetime = lifetime
        self.uses = uses
        self._store = store
        self._signing = threading.Lock()
        self._signed: dict[str, tuple[str, float]] = {}
        self._used: dict[str, int] = {}

    def signed_url(self, digest: object) -> str:
        """Return a fresh URL for a blob."""
        signature = secrets.token_hex(16)
        with self._signing:
            self._signed[signature] = (str(digest), time.monotonic())
        return f"{self.url}/{digest}?{urlencode({'X-Signature': signature})}"

    def redirect_location(self, request: Request) -> str:
        """Return a fresh URL for the blob that a registry was asked for."""
        digest = request.route.digest
        assert digest is not None, f"{request.target} is about no blob"
        return self.signed_url(digest)

    def identify(self, head: Head) -> Route:
        """Return the blob that a path names."""
        digest = head.path[1:]
        return Route("blob", digest=digest) if is_digest(digest) else UNKNOWN

    def authorize(self, request: Request) -> None:
        """Check that nothing but the signature speaks for the client."""
        if "authorization" in request.headers:
            raise violation("UNAUTHORIZED", "credentials sent to the host of a signed URL")

    def answer(self, request: Request) -> Response:
        """Send the blob, or the range asked for."""
        digest = request.route.digest
        if digest is None:
            raise violation("UNSUPPORTED", f"not the path of a blob: {request.path!r}", 404)
        if not self._is_signed(request, digest):
            raise Refusal(403, "DENIED", "the signature is unknown, expired or used up")
        content = self._store.blob(digest)
        if content is None:
            raise Refusal(404, "BLOB_UNKNOWN", f"no blob {digest}")
        return serve(request, content, {"Content-Type": "application/octet-stream"})

    def _is_signed(self, request: Request, digest: str) -> bool:
        request.allow_query("X-Signature")
        signature = request.argument("X-Signature") or ""
        with self._signing:
            signed, at = self._signed.get(signature, ("", 0.0))
            used = self._used.get(signature, 0)
            good = (
                request.method == "GET"
                and signed == digest
                and (self.lifetime is None or time.monotonic() - at < self.lifetime)
                and (self.uses is None or used < self.uses)
            )
            self._used[signature] = used + 1
        return good


class TokenHost(HttpServer):
    """The token endpoint of a ``BearerAuth`` on an address of its own, at ``/token``."""

    def __init__(
        self,
        auth: BearerAuth,
        *,
        address: str = "127.0.0.3",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        faults: Iterable[Fault] = (),
    ):
        """Serve ``auth``'s tokens; once started, challenges name this host."""
        super().__init__(address=address, port=port, tls=tls, faults=faults)
        self._auth = auth

    def start(self) -> Self:
        """Listen, and become the realm unless the test has set another one."""
        super().start()
        self._auth.realm = self._auth.realm or f"{self.url}/token"
        return self

    def identify(self, head: Head) -> Route:
        """Return the only endpoint."""
        return Route("token") if head.path == "/token" else UNKNOWN

    def authorize(self, request: Request) -> None:
        """Let every request through: credentials are checked when the token is given."""

    def answer(self, request: Request) -> Response:
        """Give a token."""
        if request.route.kind != "token":
            raise violation("UNSUPPORTED", f"no endpoint has the path {request.path!r}", 404)
        return self._auth.answer(request)
