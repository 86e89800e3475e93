"""Which models containerd has, what disk they take, and what mounts them.

Owns reading image records, snapshots and leases into one picture. Leaves out changing anything.

    picture = Inventory().read(client)
    for model in picture.models:
        print(model.manifest.digest, [record.name for record in model.records])

What mounts a model is told by snapshots: a kubelet's ImageVolume, and any container, lies on the
image's topmost snapshot in one of its own, from before the mount until after it. Whatever lies
there and is not this project's counts as a mount.
"""

import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from modelpack.artifact import is_intact, is_packed
from modelpack.descriptor import MANIFEST_TYPES, MAX_MANIFEST_BYTES
from modelpack.digest import Digest
from modelpack.errors import IntegrityError
from modelpack.manifest import Index, Manifest, parse_manifest
from modelpack.runtime.client import Containerd, ImageRecord, Snapshot, SnapshotKind
from modelpack.runtime.damage import ancestry, is_sound
from modelpack.runtime.grpcapi import MissingError
from modelpack.runtime.holding import HOLD_LABEL
from modelpack.runtime.records import chain_ids
from modelpack.runtime.workplace import IMPORT_LABEL


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeModel:
    """A model that containerd has complete under at least one name."""

    manifest: Manifest
    records: tuple[ImageRecord, ...]
    chain: tuple[str, ...]
    """The names of its snapshots, lowest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What containerd has at one moment."""

    models: tuple[NodeModel, ...]
    snapshots: Mapping[str, Snapshot]
    damaged: tuple[NodeModel, ...] = ()
    """Models that have names, but also snapshots that were found damaged."""

    def find(self, digest: Digest) -> NodeModel | None:
        """Return the model of a manifest's digest, sound or not."""
        for model in (*self.models, *self.damaged):
            if model.manifest.digest == digest:
                return model
        return None


class Inventory:
    """Reads pictures, and remembers what cannot change between them; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._manifests: dict[Digest, Manifest | None] = {}
        self._usage: dict[str, int] = {}

    def read(self, client: Containerd) -> Picture:
        """Return what containerd has now."""
        by_digest: dict[Digest, list[ImageRecord]] = {}
        for record in client.images():
            if record.target.media_type in MANIFEST_TYPES:
                by_digest.setdefault(record.target.digest, []).append(record)
        snapshots = client.all_snapshots()
        models, damaged = [], []
        with self._lock:
            self._forget(by_digest, snapshots)
            for digest, records in by_digest.items():
                manifest = self._manifest(client, digest, records[0])
                if manifest is None:
                    continue
                chain = chain_ids(layer.digest for layer in manifest.layers)
                model = NodeModel(manifest=manifest, records=tuple(records), chain=chain)
                if is_sound(snapshots.get(chain[-1])):
                    models.append(model)
                elif chain[-1] in snapshots:
                    damaged.append(model)
        return Picture(models=tuple(models), damaged=tuple(damaged), snapshots=snapshots)

    def usage(self, client: Containerd, name: str) -> int:
        """Return what disk a committed snapshot takes; 0 if it has just been removed."""
        with self._lock:
            if name not in self._usage:
                with suppress(MissingError):
                    self._usage[name] = client.usage(name)
            return self._usage.get(name, 0)

    def _forget(
        self, by_digest: Mapping[Digest, object], snapshots: Mapping[str, Snapshot]
    ) -> None:
        """Drop what is remembered of things that are gone, so that memory stays bounded."""
        for digest in self._manifests.keys() - by_digest.keys():
            del self._manifests[digest]
        for name in self._usage.keys() - snapshots.keys():
            del self._usage[name]

    def _manifest(self, client: Containerd, digest: Digest, record: ImageRecord) -> Manifest | None:
        """Return a model's manifest; None for images of other kinds."""
        if digest not in self._manifests:
            found: Manifest | Index | None
            try:
                raw = client.read_content(record.target, max_bytes=MAX_MANIFEST_BYTES)
                found = parse_manifest(raw, record.target.media_type)
            except MissingError:  # being pulled, perhaps
                return None
            except IntegrityError:  # no image of ours
                found = None
            if not (isinstance(found, Manifest) and is_packed(found) and is_intact(found)):
                found = None
            self._manifests[digest] = found
        return self._manifests[digest]


def mounted_chains(client: Containerd) -> frozenset[str]:
    """Return the names of all committed snapshots, in any snapshotter, that a mount lies on."""
    found: set[str] = set()
    for snapshotter in client.snapshotters():
        everything = replace(client, snapshotter=snapshotter).all_snapshots()
        for item in everything.values():
            if item.kind in {SnapshotKind.VIEW, SnapshotKind.ACTIVE} and not _is_ours(item):
                found.update(ancestry(everything, item.name))
    return frozenset(found)


def mounted_models(client: Containerd, models: Iterable[NodeModel]) -> frozenset[Digest]:
    """Return the digests of those models that something mounts."""
    chains = mounted_chains(client)
    return frozenset(model.manifest.digest for model in models if model.chain[-1] in chains)


def unfinished_bytes(client: Containerd, inventory: Inventory) -> int:
    """Return the disk that imports take which run, or were interrupted.

    That is their staging area, and what they have committed of models that have no names yet.
    """
    picture = inventory.read(client)
    everything = dict(picture.snapshots)
    complete = {name for model in picture.models for name in model.chain}
    held = {
        name
        for lease in client.leases(IMPORT_LABEL)
        for key in client.leased_snapshots(lease)
        for name in ancestry(everything, key)
    }
    total = 0
    for name in held - complete:
        kind = everything[name].kind
        if kind is SnapshotKind.COMMITTED:
            total += inventory.usage(client, name)
        elif kind is SnapshotKind.ACTIVE:
            with suppress(MissingError):
                total += client.usage(name)
    return total


def _is_ours(snapshot: Snapshot) -> bool:
    return IMPORT_LABEL in snapshot.labels or HOLD_LABEL in snapshot.labels
