"""Pulling a model into containerd, where a kubelet's own pull of the image then finds it.

Owns the order of the steps and the result (docs/adr tells why they are these). The files are
fetched, verified and resumed by the engine that every pull uses; each layer's files are then moved
into a snapshot that is committed under the layer's chain ID. containerd never fetches a layer
whose snapshot is there, so its pull of the image writes records and nothing else: no byte is
stored twice.

    result = import_model("registry.example/team/model:v1")
    print(result.image_id, result.imported_bytes)

Stop an import from another thread by having the observer raise: the exception comes out of
``import_model``, and the next run goes on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.artifact import Artifact, load_artifact
from modelpack.connect import open_repository
from modelpack.errors import UsageError
from modelpack.events import Observer, ignore
from modelpack.pulling import VERIFY_LEVELS, Gate, PullResult
from modelpack.ratelimit import RateLimiter
from modelpack.reference import Reference, RegistryReference, parse_reference
from modelpack.registry.credentials import Credentials, find_credentials
from modelpack.registry.options import ConnectionOptions
from modelpack.runtime import records
from modelpack.runtime.building import Builder, Built, announce
from modelpack.runtime.client import Containerd
from modelpack.runtime.cri import CriImages
from modelpack.runtime.damage import is_sound
from modelpack.runtime.grpcapi import Connection
from modelpack.runtime.mounts import Host
from modelpack.runtime.options import NAMESPACE, SOCKET, ImportOptions, ImportResult
from modelpack.runtime.source import Warnings, check_platform, fetch_image
from modelpack.runtime.workplace import Workplace, has_leftovers
from modelpack.storage import Repository

# Image volumes came with this one.
_OLDEST = (2, 1)


def import_model(
    reference: str | Reference,
    options: ImportOptions | None = None,
    *,
    connection: ConnectionOptions | None = None,
    gate: Gate | None = None,
    observer: Observer = ignore,
) -> ImportResult:
    """Pull a model into a node's containerd; see ``import_from``."""
    parsed = parse_reference(reference) if isinstance(reference, str) else reference
    chosen = options or ImportOptions()
    with open_repository(parsed, connection, observer=observer) as repository:
        return import_from(repository, chosen, connection=connection, gate=gate, observer=observer)


def import_from(
    repository: Repository,
    options: ImportOptions,
    *,
    connection: ConnectionOptions | None = None,
    gate: Gate | None = None,
    limiter: RateLimiter | None = None,
    observer: Observer = ignore,
) -> ImportResult:
    """Bring the model at a repository's reference into containerd, and prove it.

    Idempotent: snapshots that are there are kept, an interrupted import goes on where it stopped,
    and of two at once for one model the second finds all done. A normal return proves that
    every file's chunks have the hashes of an index that the manifest's digest covers, and that
    CRI knows the image under the reference's names. A ``limiter``, which other transfers may
    share, takes the place of the connection's own rate.

    Raises:
        UsageError: the image is not one that can be imported, or containerd not one that takes it.
        NotFoundError: no such reference.
        AuthError: the registry or the socket asks for more rights.
        IntegrityError: bytes are not what the manifest promises.
        PolicyError: ``gate`` or containerd's image verifier refuses.
        NothingHereError: the options say that nothing may be fetched, but something would have to.
        NetworkError, SpaceError: try again; what is verified is kept.
    """
    if options.verify not in VERIFY_LEVELS:
        raise UsageError(f"--verify takes {' or '.join(VERIFY_LEVELS)}, not {options.verify!r}")
    name = options.name or repository.reference
    if not isinstance(name, RegistryReference):
        raise UsageError(
            f"{name} has no registry, whose name the image in containerd would carry; push it to "
            "one, or load the layout with: ctr images import"
        )
    with Connection(_socket(options)) as channel:
        client = Containerd(
            connection=channel, namespace=options.namespace, snapshotter=options.snapshotter
        )
        cri = CriImages(channel) if options.namespace == NAMESPACE else None
        check_runtime(client, cri)
        warnings = Warnings(observer)
        manifest, config = fetch_image(repository, gate, warnings)
        check_platform(repository.reference, config)
        job = _Import(
            client=client,
            cri=cri,
            name=name,
            repository=repository,
            artifact=load_artifact(repository, manifest),
            config=config,
            options=options,
            connection=connection or ConnectionOptions(),
            limiter=limiter,
            observer=warnings,
        )
        return job.run()


def check_runtime(client: Containerd, cri: CriImages | None) -> None:
    """Prove that a containerd is one that images can be imported into.

    Raises:
        UsageError: too old, without the snapshotter, without CRI, or CRI uses another snapshotter.
        NetworkError: it does not answer.
    """
    version = client.version()
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < _OLDEST:
        raise UsageError(
            f"containerd is {version:.40}; image volumes need {_OLDEST[0]}.{_OLDEST[1]} or later"
        )
    working = client.snapshotters()
    if client.snapshotter not in working:
        raise UsageError(
            f"containerd has no snapshotter {client.snapshotter!r:.60}; it has "
            f"{', '.join(working) or 'none'}"
        )
    used = cri.snapshotters() if cri is not None else ()
    if used and client.snapshotter not in used:
        raise UsageError(
            f"containerd's CRI keeps images in the snapshotter {', '.join(used)}, not in "
            f"{client.snapshotter}; name it with --snapshotter"
        )


def _socket(options: ImportOptions) -> Path:
    if options.address is not None:
        return options.address
    return Host(options.host_root).path(SOCKET)


@dataclass(frozen=True, kw_only=True)
class _Import:
    """One import of an artifact that may be imported."""

    client: Containerd
    cri: CriImages | None
    name: RegistryReference
    repository: Repository
    artifact: Artifact
    config: bytes
    options: ImportOptions
    connection: ConnectionOptions
    limiter: RateLimiter | None
    observer: Warnings

    def run(self) -> ImportResult:
        manifest = self.artifact.manifest
        chain = records.chain_ids(layer.digest for layer in manifest.layers)
        if self._is_there(chain):
            announce(self.artifact.index, (), fetch_bytes=0, observer=self.observer)
            return self._result(Built(), str(manifest.config.digest))
        # 1. Hold all that follows, against garbage collection and other processes.
        with Workplace(
            self.client,
            Host(self.options.host_root),
            manifest.digest,
            self.artifact.index.total_bytes,
            self.observer,
        ) as place:
            # 2. Fetch what is missing, verified, and commit a snapshot for each layer.
            builder = Builder(
                place=place,
                repository=self.repository,
                artifact=self.artifact,
                chain=chain,
                name=records.repository_name(self.name),
                fetch=self.options.fetch,
                seeds=self.options.seeds,
                full=self.options.verify == "full",
                connection=self.connection,
                limiter=self.limiter,
                page_cache=self.options.page_cache,
                observer=self.observer,
            )
            built = builder.run()
            # 3. Store the documents, linked to each other and to the snapshots.
            records.write_documents(place.client, manifest, self.config, chain)
            # 4. Have the image recorded; every layer is in place, so nothing is fetched.
            image_id = self._record(place.client)
            # 5. Leaving drops the lease: the records hold everything now.
        return self._result(built, image_id)

    def _is_there(self, chain: Sequence[str]) -> bool:
        """Tell whether nothing is left to do; a full verification is always done."""
        return (
            self.options.verify != "full"
            and not has_leftovers(self.client, self.artifact.manifest.digest)
            and is_sound(self.client.snapshot(chain[-1]))
            and records.is_recorded(
                self.client, self.cri, self.name, self.artifact.manifest, pin=self.options.pin
            )
        )

    def _record(self, client: Containerd) -> str:
        manifest = self.artifact.manifest
        if self.cri is None:
            return records.record_directly(client, self.name, manifest)
        tag = records.tag_name(self.name)
        before = client.image(tag) if tag is not None else None
        image_id = records.record_through_cri(
            client, self.cri, self.name, manifest, self._credentials(), pin=self.options.pin
        )
        if (
            self.options.unpin_superseded
            and before is not None
            and before.target.digest != manifest.digest
        ):
            records.unpin_superseded(client, before.target.digest)
        return image_id

    def _credentials(self) -> Credentials | None:
        """Return the login that containerd should use, which a mirror's is not."""
        if self.options.credentials is not None:
            return self.options.credentials
        if self.connection.credentials is not None and self.options.name is None:
            return self.connection.credentials
        return find_credentials(
            self.name.registry, self.name.repository, only=self.connection.auth_file
        )

    def _result(self, built: Built, image_id: str) -> ImportResult:
        artifact = self.artifact
        total = artifact.index.total_bytes
        pull = PullResult(
            reference=str(self.repository.reference),
            digest=str(artifact.manifest.digest),
            files=len(artifact.index.files),
            bytes=total,
            fetched_bytes=artifact.fetched_bytes + len(self.config) + built.received_bytes,
            reused_bytes=total - built.content_bytes,
            removed=0,
            verified=self.options.verify,
            warnings=tuple(self.observer.messages),
        )
        return ImportResult(
            pull=pull,
            image_id=image_id,
            snapshots=len(artifact.manifest.layers),
            imported_bytes=built.imported_bytes,
        )
