"""A node's containerd as the place for models: what the daemon does there.

Owns the mapping between the daemon's seam and ``modelpack.runtime``, which does the work. A
model's version is a manifest's digest; its parts are snapshots, by the chain IDs that versions may
share, and blobs in the content store.

    node = ContainerdNode(RuntimeOptions(kind="containerd"), Network())
    print([model.names for model in node.models()])
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelpack.connect import open_repository
from modelpack.digest import Digest
from modelpack.errors import NetworkError, NotFoundError
from modelpack.events import Observer
from modelpack.manifest import Manifest
from modelpack.prefetch.config import Network, RuntimeOptions
from modelpack.prefetch.node import (
    Damage,
    GoneError,
    Installed,
    InstallResult,
    InUseError,
    Part,
    Resolution,
)
from modelpack.prefetch.nodes.resolving import Resolver, connection_options, gate_for, pinned_to
from modelpack.pulling import Gate
from modelpack.ratelimit import RateLimiter
from modelpack.reference import RegistryReference, parse_reference
from modelpack.runtime import removal
from modelpack.runtime.client import Containerd
from modelpack.runtime.containerd import check_runtime, import_from
from modelpack.runtime.cri import CriImages
from modelpack.runtime.grpcapi import Connection, HeldError
from modelpack.runtime.holding import drop_stale_holds
from modelpack.runtime.inventory import Inventory, NodeModel, mounted_models, unfinished_bytes
from modelpack.runtime.mounts import Host
from modelpack.runtime.options import NAMESPACE, SOCKET, ImportOptions, NothingHereError
from modelpack.runtime.records import is_pinned
from modelpack.runtime.scrubbing import quarantine_model, scrub_model
from modelpack.runtime.source import check_platform, fetch_config
from modelpack.runtime.workplace import abandon
from modelpack.storage import Repository

# The daemon asks again by itself; it should not stand still while containerd restarts.
_PATIENCE_SECONDS = 5.0


class ContainerdNode:
    """One namespace and snapshotter of a containerd, as a ``Node``."""

    kind = "containerd"

    def __init__(self, runtime: RuntimeOptions, network: Network) -> None:
        """Prepare, without connecting."""
        self._runtime = runtime
        self._network = network
        self._host = Host(runtime.host_root)
        self._inventory = Inventory()
        self._resolver = Resolver(network, _check_image)
        self._lock = threading.Lock()
        self._checked = False

    def check(self) -> None:
        """Return if containerd answers and can take models; the first time, tidy up as well."""
        with self._connect() as (client, cri):
            check_runtime(client, cri)
            with self._lock:
                if not self._checked:
                    drop_stale_holds(client)
                    # Nobody goes on with an import of what is complete.
                    for model in self._inventory.read(client).models:
                        abandon(client, self._host, model.manifest.digest)
                    self._checked = True

    def resolve(self, reference: str, *, gate: Gate | None) -> Resolution:
        """Look a reference up, and see that containerd could take what it names."""
        return self._resolver.resolve(reference, gate=gate)

    def install(
        self,
        reference: str,
        digest: Digest,
        *,
        gate: Gate | None,
        limiter: RateLimiter,
        observer: Observer,
        fetches: bool = True,
    ) -> InstallResult:
        """Import a version, have CRI know it under the reference, and pin it.

        What the reference's tag named before keeps its other names and its pin.

        Raises:
            InUseError: snapshots that must be replaced, as they are damaged, are mounted.
        """
        pinned = pinned_to(reference, digest)
        name = parse_reference(reference)
        options = ImportOptions(
            address=self._runtime.address,
            namespace=self._runtime.namespace,
            snapshotter=self._runtime.snapshotter,
            host_root=self._runtime.host_root,
            name=name if isinstance(name, RegistryReference) else None,
            unpin_superseded=False,
            fetch=fetches,
            page_cache=self._runtime.page_cache,
        )
        connection = connection_options(self._network, reference)
        with open_repository(pinned, connection, observer=observer) as repository:
            try:
                done = import_from(
                    repository,
                    options,
                    connection=connection,
                    gate=gate_for(reference, gate),
                    limiter=limiter,
                    observer=observer,
                )
            except HeldError as error:
                raise InUseError(str(error)) from error
            except NothingHereError as error:
                raise GoneError(str(error)) from error
        return InstallResult(
            digest=digest,
            bytes=done.pull.bytes,
            fetched_bytes=done.pull.fetched_bytes,
            reused_bytes=done.pull.reused_bytes,
        )

    def models(self) -> tuple[Installed, ...]:
        """Return the sound models that containerd has, whoever brought them.

        Names are references; the bare ids under which CRI keeps records too are left out.
        """
        with self._connect() as (client, _):
            picture = self._inventory.read(client)
            content = client.content_sizes()
            return tuple(self._installed(client, model, content) for model in picture.models)

    def mounted(self) -> frozenset[Digest]:
        """Return the models that a container or ImageVolume mounts, by the snapshots they use.

        A pod counts until its sandbox is stopped. Whatever else lies on a model's snapshots counts
        too.
        """
        with self._connect() as (client, _):
            picture = self._inventory.read(client)
            return mounted_models(client, (*picture.models, *picture.damaged))

    def remove(self, digest: Digest) -> None:
        """Remove a model, unless something mounts it; see ``removal.remove_model``.

        What an import of it left that was killed after its last step goes as well.
        """
        with self._connect() as (client, cri):
            try:
                removal.remove_model(client, cri, self._inventory, digest)
            except HeldError as error:
                raise InUseError(str(error)) from error
            abandon(client, self._host, digest)

    def pin(self, digest: Digest, *, pinned: bool) -> None:
        """Keep a model from the kubelet's garbage collection, or leave it to that."""
        with self._connect() as (client, _):
            removal.set_pinned(client, self._find(client, digest), pinned=pinned)

    def abandon(self, digest: Digest) -> None:
        """Drop the staging area and lease of an interrupted import, unless one runs."""
        with self._connect() as (client, _):
            abandon(client, self._host, digest)

    def unfinished_bytes(self) -> int:
        """Return the disk that imports take which run or were interrupted, whoever began them."""
        with self._connect() as (client, _):
            return unfinished_bytes(client, self._inventory)

    def free_bytes(self) -> int:
        """Return what the snapshotter's file system has left."""
        with self._connect() as (client, _):
            root = client.snapshotter_root()
        if root is None:
            raise NetworkError("containerd does not say where its snapshotter keeps files")
        path = self._host.path(root)
        try:
            status = os.statvfs(path)
        except OSError as error:
            raise NotFoundError(
                f"{path}, where containerd keeps its files, cannot be seen from here "
                f"({error.strerror}); mount the node's file system and name it as hostRoot"
            ) from error
        return status.f_bavail * status.f_frsize

    def scrub(
        self, digest: Digest, *, limiter: RateLimiter, stop: Callable[[], bool]
    ) -> tuple[Damage, ...]:
        """Read a model's snapshots again and hold them against its chunk index."""
        with self._connect() as (client, _):
            model = self._find(client, digest)
            found = scrub_model(client, self._host, model, limiter=limiter, stop=stop)
        return tuple(Damage(digest=digest, path=item.path, reason=item.reason) for item in found)

    def quarantine(self, digest: Digest, damage: Iterable[Damage]) -> None:
        """Take a damaged model out of use, with all that share the damaged snapshots.

        What is mounted cannot be replaced, and a kubelet that pulls the image meanwhile gets the
        same snapshots: ``install`` raises InUseError until nothing mounts them any more.
        """
        with self._connect() as (client, _):
            model = self._inventory.read(client).find(digest)
            if model is not None:
                paths = [item.path for item in damage]
                quarantine_model(client, self._host, self._inventory, model, paths)

    @contextmanager
    def _connect(self) -> Iterator[tuple[Containerd, CriImages | None]]:
        runtime = self._runtime
        address: Path = runtime.address or self._host.path(SOCKET)
        with Connection(address, patience=_PATIENCE_SECONDS) as connection:
            client = Containerd(
                connection=connection,
                namespace=runtime.namespace,
                snapshotter=runtime.snapshotter,
            )
            yield client, CriImages(connection) if runtime.namespace == NAMESPACE else None

    def _find(self, client: Containerd, digest: Digest) -> NodeModel:
        model = self._inventory.read(client).find(digest)
        if model is None:
            raise NotFoundError(f"containerd has no model {digest}")
        return model

    def _installed(
        self, client: Containerd, model: NodeModel, content: dict[str, int]
    ) -> Installed:
        manifest = model.manifest
        parts = [Part(key=name, bytes=self._inventory.usage(client, name)) for name in model.chain]
        blobs = [manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        stored = [str(digest) for digest in (manifest.digest, *blobs)]
        parts += [
            Part(key=f"content {digest}", bytes=content[digest])
            for digest in stored
            if digest in content
        ]
        names = tuple(
            record.name for record in model.records if not record.name.startswith("sha256:")
        )
        return Installed(
            digest=manifest.digest,
            names=names,
            parts=tuple(parts),
            pinned=any(is_pinned(record) for record in model.records),
        )


def _check_image(repository: Repository, manifest: Manifest) -> None:
    """Prove that containerd could mount an image here."""
    check_platform(repository.reference, fetch_config(repository, manifest))
