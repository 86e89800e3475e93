"""The registry: endpoints joined to a store, a gate and the faults; and what tests put into it.

Owns the table of endpoints and methods, and the helpers that fill the store past every check.
Leaves out the endpoints themselves (``pulls.py``, ``pushes.py``).
"""

import json
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from tests.support.faultregistry.auth import Auth, BearerAuth, IssuedToken, needed_scopes
from tests.support.faultregistry.contents import Bytes, Memory, Sparse
from tests.support.faultregistry.faults import Fault
from tests.support.faultregistry.manifests import OCI_MANIFEST
from tests.support.faultregistry.pulls import Features, Pulls
from tests.support.faultregistry.pushes import Pushes
from tests.support.faultregistry.routes import Kind, Route, is_name, parse_route
from tests.support.faultregistry.server import HttpServer
from tests.support.faultregistry.store import Store, StoredManifest, digest_of
from tests.support.faultregistry.wire import (
    Head,
    Headers,
    Request,
    Response,
    json_response,
    violation,
)

_VERSION = ("Docker-Distribution-Api-Version", "registry/2.0")


class FaultRegistry(HttpServer):
    """A strict OCI registry in this process, on a loopback port of its own."""

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        auth: Auth | None = None,
        faults: Iterable[Fault] = (),
        store: Store | None = None,
        features: Features | None = None,
    ):
        """Prepare; ``with`` or ``start()`` makes it listen.

        Args:
            address: Which loopback address; another one is another host to a client.
            port: 0 takes a free one.
            tls: A server-side context with a certificate for the address.
            auth: ``BasicAuth`` or ``BearerAuth``; None lets everyone do everything, and records
                an Authorization header as a violation, since nobody asked for one.
            faults: What goes wrong; ``registry.faults.add`` and ``clear`` change it later.
            store: One that other servers share.
            features: What the registry offers.
        """
        super().__init__(address=address, port=port, tls=tls, faults=faults)
        self.auth = auth
        self.store = store or Store()
        self.features = features or Features()

    # Filling it

    def add_blob(self, data: Bytes, *, digest: object = None, repo: str | None = None) -> str:
        """Hold a blob, and return its digest; without ``repo``, every repository has it.

        A given ``digest`` is believed: this is how wrong bytes get under a right digest.
        """
        content = Memory(data)
        key = digest_of(content) if digest is None else str(digest)
        self.store.add_blob(key, content, repo)
        return key

    def add_sparse_blob(
        self,
        size: int,
        source: Callable[[int, int], Bytes],
        *,
        digest: object = None,
        repo: str | None = None,
    ) -> str:
        """Hold a blob whose bytes ``source(offset, length)`` makes when they are asked for.

        Several threads call it at once. Without ``digest`` all of it is made once, to hash it.
        """
        content = Sparse(size, source)
        key = digest_of(content) if digest is None else str(digest)
        self.store.add_blob(key, content, repo)
        return key

    def put_manifest(
        self,
        repo: str,
        tag: str | None,
        manifest: bytes | Mapping[str, Any],
        media_type: str = OCI_MANIFEST,
        *,
        digest: object = None,
    ) -> str:
        """Hold a manifest, whatever it says, under a tag and its digest; return the digest.

        A given ``digest`` is believed, as in ``add_blob``.
        """
        data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        key = digest_of(Memory(data)) if digest is None else str(digest)
        stored = StoredManifest(digest=key, media_type=media_type, data=data)
        self.store.put_manifest(repo, tag, stored)
        return key

    # Looking into it

    def blob(self, digest: object, repo: str | None = None) -> bytes | None:
        """Return a blob's bytes, if it is here (and in this repository)."""
        content = self.store.blob(str(digest), repo)
        if content is None or content.size is None:
            return None
        return bytes(content.read(0, content.size))

    def manifest(self, repo: str, reference: object) -> StoredManifest | None:
        """Return the manifest at a tag or digest."""
        return self.store.manifest(repo, str(reference))

    @property
    def tokens_issued(self) -> list[IssuedToken]:
        """The tokens of its Bearer authentication."""
        return self.auth.tokens_issued if isinstance(self.auth, BearerAuth) else []

    def redirect_location(self, request: Request) -> str:
        """Return the same path and query on this registry."""
        return self.url + request.target

    # Serving

    def identify(self, head: Head) -> Route:
        """Return the endpoint of the distribution specification, or the token endpoint."""
        if isinstance(self.auth, BearerAuth) and head.path == "/token":
            return Route("token")
        return parse_route(head.path)

    def authorize(self, request: Request) -> None:
        """Check the name, then the credentials."""
        repo = request.route.repo
        if repo is not None and not is_name(repo):
            raise violation("NAME_INVALID", f"not a repository: {repo!r}")
        if self.auth is None:
            if "authorization" in request.headers:
                raise violation("UNAUTHORIZED", "credentials that this registry did not ask for")
        elif request.route.kind != "token":
            self.auth.check(request, needed_scopes(request), self.url)

    def answer(self, request: Request) -> Response:
        """Answer by endpoint and method."""
        kind = request.route.kind
        if kind == "token" and isinstance(self.auth, BearerAuth):
            return self.auth.answer(request)
        if kind == "unknown":
            raise violation("UNSUPPORTED", f"no endpoint has the path {request.path!r}", 404)
        handler = self._handlers(kind).get(request.method)
        if handler is None:
            raise violation("UNSUPPORTED", f"no {request.method} of a {kind}", 405)
        response = handler(request)
        return replace(response, headers=Headers([*response.headers.items(), _VERSION]))

    def _handlers(self, kind: Kind) -> Mapping[str, Callable[[Request], Response]]:
        pulls = Pulls(self.store, self.features)
        locations = self.url if self.features.absolute_locations else ""
        pushes = Pushes(self.store, self.features, locations)
        table: dict[Kind, dict[str, Callable[[Request], Response]]] = {
            "base": dict.fromkeys(("GET", "HEAD"), _base),
            "blob": dict.fromkeys(("GET", "HEAD", "DELETE"), pulls.blob),
            "manifest": {
                **dict.fromkeys(("GET", "HEAD", "DELETE"), pulls.manifest),
                "PUT": pushes.manifest,
            },
            "tags": {"GET": pulls.tags},
            "referrers": {"GET": pulls.referrers},
            "uploads": {"POST": pushes.begin},
            "upload": {
                "GET": pushes.status,
                "PATCH": pushes.patch,
                "PUT": pushes.close,
                "DELETE": pushes.cancel,
            },
        }
        return table[kind]


def _base(request: Request) -> Response:
    request.allow_query()
    return json_response(200, {})
