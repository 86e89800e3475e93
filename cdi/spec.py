"""The types of a CDI spec, version 1.1.0, and their JSON form.

Owns the fields, their JSON names and their number ranges. Leaves out the rules between fields
(:mod:`cdi.validate`), text formats (:mod:`cdi.parse`, :mod:`cdi.emit`) and files (:mod:`cdi.files`).

Values are frozen. An empty string, an empty tuple and None mean that a field is absent, and absent
fields are left out of the JSON form, so ``Spec.from_json(spec.to_json()) == spec``.

>>> node = DeviceNode(path="/dev/nvidia0", type="c", major=195, minor=0)
>>> device = Device(name="0", container_edits=ContainerEdits(device_nodes=(node,)))
>>> Spec(cdi_version="0.5.0", kind="nvidia.com/gpu", devices=(device,)).to_json()["kind"]
'nvidia.com/gpu'
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self, cast

from cdi._reader import ObjectReader
from cdi.errors import Fault, InvalidSpecError

# Go's int64 and uint32, which the format inherits from the OCI runtime specification.
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
UINT32_MAX = 2**32 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceNode:
    """A device node to create in the container (CDI specification, "deviceNodes").

    ``path`` is in the container, ``host_path`` on the host where it differs. ``type`` is ``b``,
    ``c``, ``u`` or ``p``. Without a type and a major other than 0 the runtime looks the node up on
    the host. ``file_mode`` holds permission bits as a plain number (0o666 is 438); ``permissions``
    is the cgroup access, letters of ``rwm``, and means ``rwm`` when empty.
    """

    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def read(cls, reader: ObjectReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            path=reader.string("path", required=True),
            host_path=reader.string("hostPath"),
            type=reader.string("type"),
            major=reader.integer("major", INT64_MIN, INT64_MAX),
            minor=reader.integer("minor", INT64_MIN, INT64_MAX),
            file_mode=reader.integer("fileMode", 0, UINT32_MAX),
            permissions=reader.string("permissions"),
            uid=reader.integer("uid", 0, UINT32_MAX),
            gid=reader.integer("gid", 0, UINT32_MAX),
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, absent fields left out."""
        return {
            "path": self.path,
            **_present("hostPath", self.host_path),
            **_present("type", self.type),
            **_present("major", self.major),
            **_present("minor", self.minor),
            **_present("fileMode", self.file_mode),
            **_present("permissions", self.permissions),
            **_present("uid", self.uid),
            **_present("gid", self.gid),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class NetDevice:
    """A network interface to move into the container under a name (since 1.1.0)."""

    host_interface_name: str
    name: str

    @classmethod
    def read(cls, reader: ObjectReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            host_interface_name=reader.string("hostInterfaceName", required=True),
            name=reader.string("name", required=True),
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"hostInterfaceName": self.host_interface_name, "name": self.name}


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """An OCI hook; ``hook_name`` is one of :data:`HOOK_NAMES`, ``timeout`` is in seconds.

    ``args`` starts with the program's own name, as in the OCI runtime specification.
    """

    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None

    @classmethod
    def read(cls, reader: ObjectReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            hook_name=reader.string("hookName", required=True),
            path=reader.string("path", required=True),
            args=reader.strings("args"),
            env=reader.strings("env"),
            timeout=reader.integer("timeout", INT64_MIN, INT64_MAX),
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, absent fields left out."""
        return {
            "hookName": self.hook_name,
            "path": self.path,
            **_present("args", self.args),
            **_present("env", self.env),
            **_present("timeout", self.timeout),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A mount; ``type`` (since 0.4.0) is the file system's, ``options`` those of mount(8)."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""

    @classmethod
    def read(cls, reader: ObjectReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            host_path=reader.string("hostPath", required=True),
            container_path=reader.string("containerPath", required=True),
            options=reader.strings("options"),
            type=reader.string("type"),
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, absent fields left out."""
        return {
            "hostPath": self.host_path,
            "containerPath": self.container_path,
            **_present("options", self.options),
            **_present("type", self.type),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class IntelRdt:
    """Intel resource director settings (since 0.7.0; the last two fields since 1.1.0).

    ``schemata`` tells an empty list from an absent one: the list alone already needs 1.1.0.
    """

    clos_id: str = ""
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    schemata: tuple[str, ...] | None = None
    enable_monitoring: bool = False

    @classmethod
    def read(cls, reader: ObjectReader) -> Self:
        """Read the fields, noting faults in the reader."""
        has_schemata = reader.has("schemata")
        schemata = reader.strings("schemata")
        value = cls(
            clos_id=reader.string("closID"),
            l3_cache_schema=reader.string("l3CacheSchema"),
            mem_bw_schema=reader.string("memBwSchema"),
            schemata=schemata if has_schemata else None,
            enable_monitoring=reader.boolean("enableMonitoring"),
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, absent fields left out."""
        return {
            **_present("closID", self.clos_id),
            **_present("l3CacheSchema", self.l3_cache_schema),
            **_present("memBwSchema", self.mem_bw_schema),
            **({} if self.schemata is None else {"schemata": list(self.schemata)}),
            **({"enableMonitoring": True} if self.enable_monitoring else {}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerEdits:
    """What a runtime changes in a container, for a device or for every device of a spec."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()
    hooks: tuple[Hook, ...] = ()
    mounts: tuple[Mount, ...] = ()
    intel_rdt: IntelRdt | None = None
    additional_gids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is anything to edit."""
        return self != _NO_EDITS

    def __add__(self, other: "ContainerEdits") -> "ContainerEdits":
        """Return these edits followed by others; the later Intel RDT settings replace."""
        return ContainerEdits(
            env=self.env + other.env,
            device_nodes=self.device_nodes + other.device_nodes,
            net_devices=self.net_devices + other.net_devices,
            hooks=self.hooks + other.hooks,
            mounts=self.mounts + other.mounts,
            intel_rdt=self.intel_rdt if other.intel_rdt is None else other.intel_rdt,
            additional_gids=self.additional_gids + other.additional_gids,
        )

    @classmethod
    def read(cls, reader: ObjectReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            env=reader.strings("env"),
            device_nodes=reader.objects("deviceNodes", DeviceNode.read),
            net_devices=reader.objects("netDevices", NetDevice.read),
            hooks=reader.objects("hooks", Hook.read),
            mounts=reader.objects("mounts", Mount.read),
            intel_rdt=reader.nested("intelRdt", IntelRdt.read),
            additional_gids=reader.integers("additionalGids", 0, UINT32_MAX),
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, absent fields left out."""
        rdt = None if self.intel_rdt is None else self.intel_rdt.to_json()
        return {
            **_present("env", self.env),
            **_present("deviceNodes", [node.to_json() for node in self.device_nodes]),
            **_present("netDevices", [device.to_json() for device in self.net_devices]),
            **_present("hooks", [hook.to_json() for hook in self.hooks]),
            **_present("mounts", [mount.to_json() for mount in self.mounts]),
            **({} if rdt is None else {"intelRdt": rdt}),
            **_present("additionalGids", self.additional_gids),
        }


_NO_EDITS = ContainerEdits()


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A named device of a spec; its own edits must not be empty."""

    name: str
    container_edits: ContainerEdits
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def read(cls, reader: ObjectReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            name=reader.string("name", required=True),
            annotations=reader.string_map("annotations"),
            container_edits=reader.nested("containerEdits", ContainerEdits.read, required=True)
            or ContainerEdits(),
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form: annotations by key, absent fields left out."""
        return {
            "name": self.name,
            **_present("annotations", dict(sorted(self.annotations.items()))),
            "containerEdits": self.container_edits.to_json(),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """A CDI spec: the devices of one kind, and the edits common to all of them."""

    cdi_version: str
    kind: str
    devices: tuple[Device, ...]
    container_edits: ContainerEdits = _NO_EDITS
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def vendor(self) -> str:
        """Return the part of the kind before the slash."""
        return self.kind.partition("/")[0]

    @property
    def class_(self) -> str:
        """Return the part of the kind after the slash."""
        return self.kind.partition("/")[2]

    def qualified(self, device: str) -> str:
        """Return the fully qualified name of one of this spec's devices."""
        return f"{self.kind}={device}"

    def all_edits(self) -> Iterator[tuple[str, ContainerEdits]]:
        """Yield the spec's own edits and then each device's, each with its path in the document."""
        yield "containerEdits", self.container_edits
        for i, device in enumerate(self.devices):
            yield f"devices[{i}].containerEdits", device.container_edits

    @classmethod
    def read(cls, reader: ObjectReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            cdi_version=reader.string("cdiVersion", required=True),
            kind=reader.string("kind", required=True),
            annotations=reader.string_map("annotations"),
            devices=reader.objects("devices", Device.read, required=True),
            container_edits=reader.nested("containerEdits", ContainerEdits.read)
            or ContainerEdits(),
        )
        reader.finish()
        return value

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Build a spec from its JSON form, strictly in shape but not yet in meaning.

        A normal return proves known fields, right types and numbers in range; the rules between
        fields are :func:`cdi.validate.validate`'s.

        Raises:
            InvalidSpecError: the shape is wrong; it holds every fault.
        """
        faults: list[Fault] = []
        spec = cls.read(ObjectReader(value, "", faults))
        if faults:
            raise InvalidSpecError(faults)
        return spec

    def to_json(self) -> dict[str, object]:
        """Return the JSON form in the specification's field order, absent fields left out."""
        return {
            "cdiVersion": self.cdi_version,
            "kind": self.kind,
            **_present("annotations", dict(sorted(self.annotations.items()))),
            "devices": [device.to_json() for device in self.devices],
            **_present("containerEdits", self.container_edits.to_json()),
        }


def _present(name: str, value: object) -> dict[str, object]:
    """Return the field unless it is absent; the number 0 is present."""
    if value is None or value in ("", (), [], {}):
        return {}
    return {name: list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value}
