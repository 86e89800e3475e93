"""containerd's services, typed: leases, snapshots, content and images of one namespace.

Owns the calls that an import makes and the values they take and give. Leaves out the wire
(``grpcapi.py``), CRI (``cri.py``) and the order of the calls (``containerd.py``).

    client = Containerd(connection, namespace="k8s.io", snapshotter="overlayfs")
    print(client.version(), client.snapshotters())
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from modelpack.descriptor import Descriptor
from modelpack.digest import Digest
from modelpack.errors import IntegrityError
from modelpack.runtime.grpcapi import CALL_SECONDS, AlreadyExistsError, Connection, MissingError

_VERSION = "containerd.services.version.v1.Version"
_INTROSPECTION = "containerd.services.introspection.v1.Introspection"
_LEASES = "containerd.services.leases.v1.Leases"
_SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots"
_CONTENT = "containerd.services.content.v1.Content"
_IMAGES = "containerd.services.images.v1.Images"
_SNAPSHOTTER_TYPE = "io.containerd.snapshotter.v1"
_COMMIT = 2  # content's WriteAction
# A collection walks all that the namespace has.
_COLLECT_SECONDS = 300.0


class SnapshotKind(IntEnum):
    """What a snapshot is (snapshots.proto, ``Kind``)."""

    UNKNOWN = 0
    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """How a snapshot is mounted."""

    type: str
    source: str
    options: tuple[str, ...] = ()

    def option(self, name: str) -> str | None:
        """Return the value of the option ``name=value``."""
        for item in self.options:
            key, equals, value = item.partition("=")
            if equals and key == name:
                return value
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A snapshot's record."""

    name: str
    parent: str
    kind: SnapshotKind
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord:
    """A name, and the manifest that it stands for."""

    name: str
    target: Descriptor
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Containerd:
    """One namespace and snapshotter of a containerd; ``lease`` holds what calls create."""

    connection: Connection
    namespace: str
    snapshotter: str
    lease: str | None = None

    # The daemon itself

    def version(self) -> str:
        """Return containerd's version."""
        return str(self._call(_VERSION, "Version").version)

    def snapshotters(self) -> tuple[str, ...]:
        """Return the names of the snapshotters that work."""
        plugins = self._call(_INTROSPECTION, "Plugins", filters=[f"type=={_SNAPSHOTTER_TYPE}"])
        return tuple(item.id for item in plugins.plugins if not item.HasField("init_err"))

    def snapshotter_root(self) -> str | None:
        """Return the node's path of the directory where the snapshotter keeps its files."""
        plugins = self._call(
            _INTROSPECTION,
            "Plugins",
            filters=[f"type=={_SNAPSHOTTER_TYPE},id=={self.snapshotter}"],
        ).plugins
        return next((item.exports["root"] for item in plugins if item.exports.get("root")), None)

    # Leases

    def create_lease(self, lease: str, labels: Mapping[str, str]) -> None:
        """Create a lease; one of that name may be there already."""
        try:
            self._call(_LEASES, "Create", id=lease, labels=labels)
        except AlreadyExistsError:
            return

    def delete_lease(self, lease: str, *, collect: bool = False) -> None:
        """Drop a lease if it is there; with ``collect``, return when what it held is gone."""
        try:
            self._call(_LEASES, "Delete", id=lease, sync=collect, timeout=_COLLECT_SECONDS)
        except MissingError:
            return

    def leases(self, label: str, value: str | None = None) -> list[str]:
        """Return the leases that carry a label, of whatever value if ``value`` is None."""
        wanted = f'labels."{label}"'
        answer = self._call(
            _LEASES, "List", filters=[wanted if value is None else f'{wanted}=="{value}"']
        )
        return [lease.id for lease in answer.leases]

    def leased_snapshots(self, lease: str) -> list[str]:
        """Return the keys of this snapshotter's snapshots that a lease holds by name."""
        try:
            resources = self._call(_LEASES, "ListResources", id=lease).resources
        except MissingError:
            return []
        return [item.id for item in resources if item.type == f"snapshots/{self.snapshotter}"]

    def hold_snapshot(self, key: str) -> None:
        """Have this client's lease keep a snapshot and those below it.

        Raises:
            MissingError: there is no such snapshot, or no such lease any more.
        """
        self._hold(key, f"snapshots/{self.snapshotter}")

    def hold_content(self, digest: Digest) -> None:
        """Have this client's lease keep a blob."""
        self._hold(str(digest), "content")

    def _hold(self, name: str, kind: str) -> None:
        self._call(_LEASES, "AddResource", id=self.lease or "", resource={"id": name, "type": kind})

    # Snapshots

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> tuple[Mount, ...]:
        """Make a snapshot to write into.

        Raises:
            AlreadyExistsError: the key is there, or what ``containerd.io/snapshot.ref`` names.
            MissingError: there is no such parent.
        """
        answer = self._snapshots("Prepare", key=key, parent=parent, labels=labels)
        return _mounts(answer.mounts)

    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> tuple[Mount, ...]:
        """Make a snapshot to read ``parent`` through."""
        return _mounts(self._snapshots("View", key=key, parent=parent, labels=labels).mounts)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return how an active snapshot is mounted.

        Raises:
            MissingError: there is none.
        """
        return _mounts(self._snapshots("Mounts", key=key).mounts)

    def commit(self, key: str, name: str, labels: Mapping[str, str]) -> None:
        """Turn an active snapshot into the committed one ``name``.

        Raises:
            AlreadyExistsError: there is one of that name.
            MissingError: there is no such active snapshot.
        """
        self._snapshots("Commit", key=key, name=name, labels=labels)

    def remove_snapshot(self, key: str) -> None:
        """Remove a snapshot if it is there.

        Raises:
            HeldError: another snapshot lies on it, so it may be mounted.
        """
        try:
            self._snapshots("Remove", key=key)
        except MissingError:
            return

    def snapshot(self, key: str) -> Snapshot | None:
        """Return a snapshot's record, or None."""
        try:
            return _snapshot(self._snapshots("Stat", key=key).info)
        except MissingError:
            return None

    def snapshots(self, label: str, value: str) -> list[Snapshot]:
        """Return the snapshots that carry a label."""
        answers = self._snapshots("List", filters=[f'labels."{label}"=="{value}"'])
        return [_snapshot(info) for answer in answers for info in answer.info]

    def all_snapshots(self) -> dict[str, Snapshot]:
        """Return the records of all snapshots by their keys."""
        found = [_snapshot(info) for answer in self._snapshots("List") for info in answer.info]
        return {item.name: item for item in found}

    def label_snapshot(self, key: str, labels: Mapping[str, str]) -> None:
        """Set labels of a snapshot.

        Raises:
            MissingError: there is no such snapshot.
        """
        self._snapshots(
            "Update",
            info={"name": key, "labels": labels},
            update_mask={"paths": _label_paths(labels)},
        )

    def usage(self, key: str) -> int:
        """Return how many bytes of disk a snapshot takes, those below it left out.

        Raises:
            MissingError: there is no such snapshot.
        """
        return int(self._snapshots("Usage", key=key).size)

    def _snapshots(self, method: str, **fields: Any) -> Any:
        return self._call(_SNAPSHOTS, method, snapshotter=self.snapshotter, **fields)

    # Content

    def write_content(self, digest: Digest, data: bytes, labels: Mapping[str, str]) -> None:
        """Store a small blob, which containerd checks; one that is there gets the labels too."""
        try:
            self._call(
                _CONTENT,
                "Write",
                action=_COMMIT,
                ref=f"modelpack-{digest}",
                total=len(data),
                expected=str(digest),
                data=data,
                labels=labels,
            )
        except AlreadyExistsError:
            self.hold_content(digest)
            self._call(
                _CONTENT,
                "Update",
                info={"digest": str(digest), "labels": labels},
                update_mask={"paths": [f"labels.{label}" for label in labels]},
            )

    def read_content(self, descriptor: Descriptor, *, max_bytes: int) -> bytes:
        """Return a small blob, verified.

        Raises:
            MissingError: it is not there.
            IntegrityError: it is larger than ``max_bytes``, or not what its digest says.
        """
        if descriptor.size > max_bytes:
            raise IntegrityError(f"{descriptor.digest} has {descriptor.size} bytes, too many")
        digest = descriptor.digest
        answers = self._call(_CONTENT, "Read", digest=str(digest), size=descriptor.size)
        data = b"".join(answer.data for answer in answers)
        digest.check(data, f"content {digest} of containerd")
        return data

    def content_sizes(self) -> dict[str, int]:
        """Return the sizes of all blobs by their digests."""
        answers = self._call(_CONTENT, "List")
        return {info.digest: int(info.size) for answer in answers for info in answer.info}

    # Images

    def images(self) -> list[ImageRecord]:
        """Return all image records."""
        return [_image(item) for item in self._call(_IMAGES, "List").images]

    def image(self, name: str) -> ImageRecord | None:
        """Return an image record, or None."""
        try:
            return _image(self._call(_IMAGES, "Get", name=name).image)
        except MissingError:
            return None

    def put_image(self, record: ImageRecord) -> None:
        """Create an image record, or point the one of that name here and add the labels."""
        fields = _image_fields(record)
        try:
            self._call(_IMAGES, "Create", image=fields)
        except AlreadyExistsError:
            self._update_image(fields, ["target", *_label_paths(record.labels)])

    def label_image(self, record: ImageRecord, labels: Mapping[str, str]) -> None:
        """Set labels of an image record; an empty value removes one.

        Raises:
            MissingError: the record is gone.
        """
        fields = {**_image_fields(record), "labels": dict(labels)}
        self._update_image(fields, _label_paths(labels))

    def delete_image(self, name: str) -> None:
        """Delete an image record if it is there; what it alone held is collected sometime."""
        try:
            self._call(_IMAGES, "Delete", name=name)
        except MissingError:
            return

    def _update_image(self, fields: Mapping[str, Any], paths: Sequence[str]) -> None:
        self._call(_IMAGES, "Update", image=fields, update_mask={"paths": paths})

    def _call(
        self, service: str, method: str, *, timeout: float = CALL_SECONDS, **fields: Any
    ) -> Any:
        headers = {"containerd-namespace": self.namespace}
        if self.lease is not None:
            headers["containerd-lease"] = self.lease
        return self.connection.call(service, method, fields, headers=headers, timeout=timeout)


def _mounts(messages: Sequence[Any]) -> tuple[Mount, ...]:
    return tuple(
        Mount(type=item.type, source=item.source, options=tuple(item.options)) for item in messages
    )


def _snapshot(message: Any) -> Snapshot:
    return Snapshot(
        name=message.name,
        parent=message.parent,
        kind=SnapshotKind(message.kind),
        labels=dict(message.labels),
    )


def _image(message: Any) -> ImageRecord:
    return ImageRecord(
        name=message.name,
        target=Descriptor(
            media_type=message.target.media_type,
            digest=Digest.parse(message.target.digest),
            size=message.target.size,
        ),
        labels=dict(message.labels),
    )


def _image_fields(record: ImageRecord) -> dict[str, Any]:
    target = record.target
    return {
        "name": record.name,
        "labels": dict(record.labels),
        "target": {
            "media_type": target.media_type,
            "digest": str(target.digest),
            "size": target.size,
        },
    }


def _label_paths(labels: Mapping[str, str]) -> list[str]:
    return [f"labels.{label}" for label in labels]
