"""The inventory of a node: its accelerators, their partitions and the driver's files.

Owns the types and their JSON form. The same inventory comes from a file that a platform team wrote
(:mod:`cdi.inventory_load`) or from a node (:mod:`cdi.inventory_discover`), and
:mod:`cdi.generate` makes CDI specs of it without looking at any hardware. Leaves out what each
vendor's devices need in a container (:mod:`cdi.vendors`).

An empty string, an empty tuple and None mean that a fact is not known. ``schemas/`` holds the JSON
Schema of the form, and ``examples/inventories/`` one for each vendor.

>>> gpu = Accelerator(vendor=Vendor.NVIDIA, type="gpu", index=0, major=195, minor=0)
>>> node = Inventory(devices=(gpu,), drivers={Vendor.NVIDIA: Driver(version="580.95.05")})
>>> node.to_json()["driver"]
{'version': '580.95.05'}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from cdi.inventory_quantity import format_quantity
from cdi.inventory_reader import MAX_MAJOR, MAX_MINOR, InventoryReader, Scalar
from cdi.spec import UINT32_MAX

DRM_MAJOR = 226  # Documentation/admin-guide/devices.txt of Linux: 226 is the DRM subsystem's


class Vendor(StrEnum):
    """The vendors whose devices an inventory can hold."""

    NVIDIA = "nvidia"
    AMD = "amd"
    INTEL = "intel"
    ASCEND = "ascend"
    CAMBRICON = "cambricon"
    HYGON = "hygon"
    ILUVATAR = "iluvatar"
    BIREN = "biren"
    ENFLAME = "enflame"
    METAX = "metax"
    MTHREADS = "mthreads"
    KUNLUNXIN = "kunlunxin"
    VASTAI = "vastai"


# What a vendor's devices can be; the first is meant where a device names no type.
TYPES: Mapping[Vendor, tuple[str, ...]] = {
    Vendor.NVIDIA: ("gpu", "imex-channel"),
    Vendor.AMD: ("gpu",),
    Vendor.INTEL: ("gpu", "gaudi"),
    Vendor.ASCEND: ("npu",),
    Vendor.CAMBRICON: ("mlu",),
    Vendor.HYGON: ("dcu",),
    Vendor.ILUVATAR: ("gpu",),
    Vendor.BIREN: ("gpu",),
    Vendor.ENFLAME: ("gcu",),
    Vendor.METAX: ("gpu",),
    Vendor.MTHREADS: ("gpu",),
    Vendor.KUNLUNXIN: ("xpu",),
    Vendor.VASTAI: ("va",),
}


class NodeType(StrEnum):
    """The kinds of device node that mknod(2) makes and a driver uses."""

    CHARACTER = "c"
    BLOCK = "b"


class PartitionType(StrEnum):
    """How a device is divided into parts that the driver shows as devices of their own."""

    MIG = "mig"  # NVIDIA: a compute instance of a GPU instance
    VNPU = "vnpu"  # Ascend: /dev/vdavinci<index>
    MIM = "mim"  # Cambricon: /dev/cambricon-caps/cap_dev<device>_mi<index>


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A device node of the host; ``container`` is its path in a container where that differs.

    ``mode`` holds permission bits. Without a major and minor the runtime looks the node up when a
    container starts.
    """

    path: str
    container: str = ""
    type: NodeType = NodeType.CHARACTER
    major: int | None = None
    minor: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def read(cls, reader: InventoryReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            path=reader.path("path", required=True),
            container=reader.path("container"),
            type=reader.choice("type", NodeType) or NodeType.CHARACTER,
            major=reader.integer("major", 0, MAX_MAJOR),
            minor=reader.integer("minor", 0, MAX_MINOR),
            mode=reader.mode("mode"),
            uid=reader.integer("uid", 0, UINT32_MAX),
            gid=reader.integer("gid", 0, UINT32_MAX),
        )
        if (value.major is None) != (value.minor is None):
            reader.fault("", "has only one of major and minor; a node needs both or neither")
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, absent fields left out."""
        return _known(
            path=self.path,
            container=self.container,
            type="" if self.type is NodeType.CHARACTER else self.type.value,
            major=self.major,
            minor=self.minor,
            mode="" if self.mode is None else f"{self.mode:04o}",
            uid=self.uid,
            gid=self.gid,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class HostFile:
    """A file, directory or socket of the host that a container gets; JSON is the path alone or both.

    Without ``container`` it appears there under the same path, less the driver's root.
    """

    path: str
    container: str = ""

    @classmethod
    def read(cls, reader: InventoryReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(path=reader.path("path", required=True), container=reader.path("container"))
        reader.finish()
        return value

    def to_json(self) -> object:
        """Return the path, or both paths where they differ."""
        return _known(path=self.path, container=self.container) if self.container else self.path


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A symbolic link that a container needs: ``path`` there, and the text it points to."""

    target: str
    path: str

    @classmethod
    def read(cls, reader: InventoryReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            target=reader.text("target", required=True), path=reader.path("path", required=True)
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"target": self.target, "path": self.path}


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """What one vendor's driver puts on the host.

    ``root`` is where the driver's user space lies (``/run/nvidia/driver`` for a driver in a
    container); paths hold it in full, and containers see them without it. ``nodes`` are the control
    nodes that all devices share. ``hook`` is the host's nvidia-cdi-hook or nvidia-ctk.
    """

    version: str = ""
    root: str = "/"
    nodes: tuple[Node, ...] = ()
    libraries: tuple[HostFile, ...] = ()
    binaries: tuple[HostFile, ...] = ()
    firmware: tuple[HostFile, ...] = ()
    sockets: tuple[HostFile, ...] = ()
    configs: tuple[HostFile, ...] = ()
    links: tuple[Link, ...] = ()
    hook: str = ""

    @property
    def has_files(self) -> bool:
        """Tell whether any file of the driver's user space is known."""
        return bool(self.libraries or self.binaries or self.firmware or self.configs)

    def in_container(self, path: str) -> str:
        """Return a host path as a container sees it: without the driver's root."""
        root = self.root.rstrip("/")
        return path.removeprefix(root) if root and path.startswith(root + "/") else path

    @classmethod
    def read(cls, reader: InventoryReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            version=reader.string("version"),
            root=reader.path("root") or "/",
            nodes=reader.files("nodes", Node.read),
            libraries=reader.files("libraries", HostFile.read),
            binaries=reader.files("binaries", HostFile.read),
            firmware=reader.files("firmware", HostFile.read),
            sockets=reader.files("sockets", HostFile.read),
            configs=reader.files("configs", HostFile.read),
            links=reader.records("links", Link.read),
            hook=reader.path("hook"),
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, absent fields left out."""
        return _known(
            version=self.version,
            root="" if self.root == "/" else self.root,
            nodes=[node.to_json() for node in self.nodes],
            libraries=[file.to_json() for file in self.libraries],
            binaries=[file.to_json() for file in self.binaries],
            firmware=[file.to_json() for file in self.firmware],
            sockets=[file.to_json() for file in self.sockets],
            configs=[file.to_json() for file in self.configs],
            links=[link.to_json() for link in self.links],
            hook=self.hook,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """A part of a device that the driver shows as a device.

    ``index`` numbers it as the driver does: the MIG device of its GPU, the number of the vdavinci
    node, the Cambricon instance. ``gi`` and ``ci`` are the ids of a MIG device's GPU instance and
    compute instance, and ``gi_minor`` and ``ci_minor`` their nvidia-cap nodes. ``nodes`` are the
    partition's own nodes, beside the device's; without them they follow from the numbers.
    """

    type: PartitionType
    index: int
    uuid: str = ""
    profile: str = ""
    memory: int | None = None
    gi: int | None = None
    ci: int | None = None
    gi_minor: int | None = None
    ci_minor: int | None = None
    nodes: tuple[Node, ...] = ()

    @classmethod
    def read(cls, reader: InventoryReader) -> Self:
        """Read the fields, noting faults in the reader."""
        kind = reader.choice("type", PartitionType, required=True)
        value = cls(
            type=kind or PartitionType.MIG,
            index=reader.number("index"),
            uuid=reader.string("uuid"),
            profile=reader.string("profile"),
            memory=reader.quantity("memory"),
            gi=reader.integer("gi", 0, MAX_MINOR),
            ci=reader.integer("ci", 0, MAX_MINOR),
            gi_minor=reader.integer("giMinor", 0, MAX_MINOR),
            ci_minor=reader.integer("ciMinor", 0, MAX_MINOR),
            nodes=reader.files("nodes", Node.read),
        )
        if kind is not None:
            value._check(reader)
        reader.finish()
        return value

    def _check(self, reader: InventoryReader) -> None:
        is_mig = self.type is PartitionType.MIG
        for name, number in (("gi", self.gi), ("ci", self.ci)):
            if is_mig and number is None:
                reader.fault(name, "is required for a MIG device")
        minors = (("giMinor", self.gi_minor), ("ciMinor", self.ci_minor))
        for name, number in minors:
            if is_mig and number is None and not self.nodes:
                reader.fault(
                    name,
                    "is required unless nodes are named; "
                    "/proc/driver/nvidia-caps/mig-minors of the node has it",
                )
        for name, number in (("gi", self.gi), ("ci", self.ci), *minors):
            if not is_mig and number is not None:
                reader.fault(name, f"belongs to MIG devices, not to {self.type.value}")

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, absent fields left out."""
        return _known(
            type=self.type.value,
            index=self.index,
            uuid=self.uuid,
            profile=self.profile,
            memory="" if self.memory is None else format_quantity(self.memory),
            gi=self.gi,
            ci=self.ci,
            giMinor=self.gi_minor,
            ciMinor=self.ci_minor,
            nodes=[node.to_json() for node in self.nodes],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """One device of a node.

    ``major`` and ``minor`` are those of the device's main node, ``card`` and ``render`` the numbers
    in ``/dev/dri/card<N>`` and ``renderD<N>``. ``nodes``, where named, is the whole list of the
    device's own nodes. ``partitions`` is None for an undivided device, and empty for one that is set
    up to be divided and is not yet: neither that one nor a divided one is offered whole.
    ``memory`` is in bytes, ``numa`` a NUMA node. ``attributes`` are further facts for schedulers.
    """

    vendor: Vendor
    type: str
    index: int
    uuid: str = ""
    product: str = ""
    memory: int | None = None
    pci: str = ""
    numa: int | None = None
    major: int | None = None
    minor: int | None = None
    card: int | None = None
    render: int | None = None
    nodes: tuple[Node, ...] = ()
    partitions: tuple[Partition, ...] | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict, hash=False)

    @classmethod
    def read(cls, reader: InventoryReader) -> Self:
        """Read the fields, noting faults in the reader."""
        vendor = reader.choice("vendor", Vendor, required=True)
        has_partitions = reader.has("partitions")
        partitions = reader.records("partitions", Partition.read)
        value = cls(
            vendor=vendor or Vendor.NVIDIA,
            type=reader.text("type") or TYPES[vendor or Vendor.NVIDIA][0],
            index=reader.number("index"),
            uuid=reader.string("uuid"),
            product=reader.string("product"),
            memory=reader.quantity("memory"),
            pci=reader.pci("pci"),
            numa=reader.integer("numa", 0, MAX_MINOR),
            major=reader.integer("major", 0, MAX_MAJOR),
            minor=reader.integer("minor", 0, MAX_MINOR),
            card=reader.integer("card", 0, MAX_MINOR),
            render=reader.integer("render", 0, MAX_MINOR),
            nodes=reader.files("nodes", Node.read),
            partitions=partitions if has_partitions else None,
            attributes=reader.scalars("attributes"),
        )
        if vendor is not None and value.type not in TYPES[vendor]:
            known = " or ".join(TYPES[vendor])
            reader.fault("type", f"{value.type[:40]!r} is no type of {vendor}; it has {known}")
        if value.major is not None and value.minor is None:
            reader.fault("minor", "is required with major")
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, absent fields left out."""
        parts = self.partitions
        return {
            **_known(
                vendor=self.vendor.value,
                type="" if self.type == TYPES[self.vendor][0] else self.type,
                index=self.index,
                uuid=self.uuid,
                product=self.product,
                memory="" if self.memory is None else format_quantity(self.memory),
                pci=self.pci,
                numa=self.numa,
                major=self.major,
                minor=self.minor,
                card=self.card,
                render=self.render,
                nodes=[node.to_json() for node in self.nodes],
            ),
            **({} if parts is None else {"partitions": [part.to_json() for part in parts]}),
            **_known(attributes=dict(sorted(self.attributes.items()))),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """The accelerators of one node, and each vendor's driver."""

    devices: tuple[Accelerator, ...]
    drivers: Mapping[Vendor, Driver] = field(default_factory=dict, hash=False)
    node: str = ""

    @property
    def vendors(self) -> tuple[Vendor, ...]:
        """Return the vendors of the devices, in the order of :class:`Vendor`."""
        present = {device.vendor for device in self.devices}
        return tuple(vendor for vendor in Vendor if vendor in present)

    def driver(self, vendor: Vendor) -> Driver:
        """Return what is known of a vendor's driver, which may be nothing."""
        return self.drivers.get(vendor, Driver())

    def to_json(self) -> dict[str, object]:
        """Return the JSON form: ``driver`` for devices of one vendor, else ``drivers``."""
        drivers: dict[str, object] = {
            vendor.value: self.drivers[vendor].to_json()
            for vendor in Vendor
            if vendor in self.drivers
        }
        if set(drivers) == {vendor.value for vendor in self.vendors} and len(drivers) == 1:
            known = {"driver": next(iter(drivers.values()))}
        else:
            known = {"drivers": drivers} if drivers else {}
        return {
            **_known(node=self.node),
            **known,
            "devices": [device.to_json() for device in self.devices],
        }


def _known(**fields: object) -> dict[str, object]:
    """Return the fields that are known; the number 0 is."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and not (isinstance(value, (str, list, dict)) and not value)
    }
