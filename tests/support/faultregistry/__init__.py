"""A strict OCI registry inside the test process, with faults to order: used instead of mocks.

It speaks the distribution specification 1.1 over real sockets, refuses and records whatever
breaks it, and counts every byte of every blob it sends.

    with FaultRegistry() as registry:
        layer = registry.add_blob(b"x" * 10_000_000)
        registry.put_manifest("team/model", "v1", build_manifest(b"x" * 10_000_000))

        cut = Fault.truncate(after=1_000_000, digest=layer, times=2)
        registry.faults.add(cut, Fault.status(503, retry_after=1, kind="manifest", nth=1))

        pull(f"{registry.host}/team/model:v1")          # the code under test

        assert registry.faults.fired(cut) == 2          # the fault did happen
        assert registry.repeated_bytes(layer) < 100_000 # nothing was fetched twice
        assert registry.violations == []                # and the protocol was kept

What arrived is in ``registry.requests`` (frozen records, in order, those in progress included);
``select``, ``served``, ``bytes_sent``, ``coverage``, ``repeated_bytes``, ``credentials_seen`` and
``requests_with(secret)`` answer the usual questions. Bytes count when they are handed to the
system: after a client is killed, up to some megabytes of them may have died in socket buffers.

Putting things in by ``add_blob``, ``add_sparse_blob`` and ``put_manifest`` is not checked, so
wrong bytes under a right digest and hostile manifests are a line each. Pushing over HTTP is.

What the specification leaves open is set by ``Features``: no referrers API, pages, no mounts,
absolute Locations, a least chunk, Docker's streamed PATCH for real clients.

Another host is another loopback address: credentials must not follow a redirect there.

    auth = BearerAuth(users={"ada": "secret"}, lifetime=0.5)
    with (
        TokenHost(auth) as tokens,                              # 127.0.0.3
        FaultRegistry(auth=auth) as registry,                   # 127.0.0.1
        BlobHost(registry.store, uses=1) as blobs,              # 127.0.0.2
    ):
        registry.faults.add(Fault.redirect(blobs))
        ...
        assert blobs.credentials_seen == []
        assert blobs.requests_with("secret") == []

Every server can be stopped and started again on its port, drop all connections, and have faults
of its own. ``tls=`` takes a server's ``ssl.SSLContext``. An error inside a server's thread fails
the test through pytest's own check of threads.
"""

from tests.support.faultregistry.auth import BasicAuth, BearerAuth, IssuedToken, Scope
from tests.support.faultregistry.faultplan import When
from tests.support.faultregistry.faults import Fault
from tests.support.faultregistry.hosts import BlobHost, TokenHost
from tests.support.faultregistry.manifests import (
    OCI_INDEX,
    OCI_MANIFEST,
    build_manifest,
    describe,
)
from tests.support.faultregistry.pulls import Features
from tests.support.faultregistry.records import RequestRecord, Span, Violation, coverage
from tests.support.faultregistry.registry import FaultRegistry
from tests.support.faultregistry.store import Store, StoredManifest

__all__ = [
    "OCI_INDEX",
    "OCI_MANIFEST",
    "BasicAuth",
    "BearerAuth",
    "BlobHost",
    "Fault",
    "FaultRegistry",
    "Features",
    "IssuedToken",
    "RequestRecord",
    "Scope",
    "Span",
    "Store",
    "StoredManifest",
    "TokenHost",
    "Violation",
    "When",
    "build_manifest",
    "coverage",
    "describe",
]
