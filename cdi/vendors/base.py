"""What every vendor module offers, and the helpers that all of them share.

Owns the seam between inventories and specs: a :class:`VendorModule` finds its devices in a tree and
says what edits each device needs. Leaves out names, ``all`` and spec versions (:mod:`cdi.generate`).

>>> node_edit(Node(path="/dev/kfd", major=235, minor=0, mode=0o660)).to_json()["fileMode"]
432
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from cdi.discovery.tree import Tree
from cdi.inventory import DRM_MAJOR, Accelerator, Driver, HostFile, Link, Node, Partition, Vendor
from cdi.spec import ContainerEdits, DeviceNode, Mount

# What nvidia-ctk gives its read-only mounts, and gpustack-runtime those of the other vendors.
FILE_OPTIONS = ("ro", "nosuid", "nodev", "rbind", "rprivate")
SOCKET_OPTIONS = ("nosuid", "nodev", "rbind", "rprivate", "noexec")
# A note is read by people: this many names show what is meant on a node with eight devices.
_MAX_NAMED = 12


class Basis(StrEnum):
    """What a vendor's support rests on, best first."""

    OFFICIAL = "official generator"
    RECORDED = "recorded real machine"
    DOCUMENTED = "documentation only"


class NoteKind(StrEnum):
    """Why a note is written."""

    LEFT_OUT = "left out"
    UNCERTAIN = "uncertain"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """One thing to tell the user beside the specs; its text stands alone."""

    vendor: Vendor
    kind: NoteKind
    text: str

    def __str__(self) -> str:
        return f"{self.vendor}: {self.kind}: {self.text}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Support:
    """What a vendor module knows, and on what grounds.

    ``kinds`` gives the CDI kind of each type of device. ``source`` names what the facts come from,
    ``uncertain`` what nobody has confirmed: each is said with every spec.
    """

    vendor: Vendor
    kinds: Mapping[str, str]
    basis: Basis
    source: str
    uncertain: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a vendor module found in a tree; ``looked`` are the places, for when it found nothing."""

    devices: tuple[Accelerator, ...] = ()
    driver: Driver = field(default_factory=Driver)
    notes: tuple[Note, ...] = ()
    looked: tuple[str, ...] = ()


class VendorModule(Protocol):
    """One vendor's devices: how to find them, and what they need in a container."""

    @property
    def support(self) -> Support:
        """Return the kinds and the grounds of this module."""

    def discover(self, tree: Tree, driver_root: str) -> Found:
        """Find the devices and the driver's files; ``driver_root`` is a path within the tree.

        A machine without such devices gives no devices, never an error.
        """

    def device_edits(self, device: Accelerator, driver: Driver) -> ContainerEdits:
        """Return the edits of one undivided device; empty when its nodes cannot be told."""

    def partition_edits(
        self, device: Accelerator, partition: Partition, driver: Driver
    ) -> ContainerEdits:
        """Return the edits of one partition of a device."""

    def common_edits(
        self, devices: Sequence[Accelerator], driver: Driver
    ) -> tuple[ContainerEdits, tuple[Note, ...]]:
        """Return the edits that devices of one type share, and what they leave out."""

    def uuid(self, device: Accelerator) -> str:
        """Return the name of a device that outlives reboots, or empty where there is none."""

    def type_name(self, device: Accelerator) -> str:
        """Return the name that says the type as well as the index, such as ``gpu0``."""

    def partition_name(self, device: Accelerator, partition: Partition) -> str:
        """Return the name of a partition by number, such as ``0:1``."""


class UsualVendor(ABC):
    """What most vendors do in the same way, for modules to inherit."""

    __slots__ = ()

    @abstractmethod
    def device_edits(self, device: Accelerator, driver: Driver) -> ContainerEdits:
        """Return the edits of one undivided device."""

    def partition_edits(
        self, device: Accelerator, partition: Partition, driver: Driver
    ) -> ContainerEdits:
        """Return the device's edits, and the partition's own nodes beside them."""
        return self.device_edits(device, driver) + node_edits(partition.nodes)

    def uuid(self, device: Accelerator) -> str:
        """Return the UUID that the inventory names."""
        return device.uuid

    def type_name(self, device: Accelerator) -> str:
        """Return the type and the index, such as ``gpu0``."""
        return f"{device.type}{device.index}"

    def partition_name(self, device: Accelerator, partition: Partition) -> str:
        """Return the index of the device and that of the partition, such as ``0:1``."""
        return f"{device.index}:{partition.index}"


def node_edit(node: Node, *, with_owner: bool = True) -> DeviceNode:
    """Return the edit that puts a node in a container.

    A node of unknown numbers is given by its path alone, and the runtime looks it up. ``uid`` is
    left out without ``with_owner``: a runtime then gives the node to the container's user.
    """
    path = node.container or node.path
    host_path = node.path if node.path != path else ""
    if node.major is None:
        return DeviceNode(path=path, host_path=host_path)
    return DeviceNode(
        path=path,
        host_path=host_path,
        type=node.type.value,
        major=node.major,
        minor=node.minor,
        file_mode=node.mode,
        permissions="rwm",
        uid=node.uid if with_owner else None,
        gid=node.gid if with_owner or node.gid else None,
    )


def node_edits(nodes: Iterable[Node]) -> ContainerEdits:
    """Return the edits that put nodes in a container, with their owners."""
    return ContainerEdits(device_nodes=tuple(node_edit(node) for node in nodes))


def mounts(
    files: Iterable[HostFile], driver: Driver, options: tuple[str, ...] = FILE_OPTIONS
) -> tuple[Mount, ...]:
    """Return the mounts of a driver's files, at their paths without the driver's root."""
    return tuple(
        Mount(
            host_path=file.path,
            container_path=file.container or driver.in_container(file.path),
            options=options,
        )
        for file in files
    )


def by_depth(found: Iterable[Mount]) -> tuple[Mount, ...]:
    """Return mounts in the order in which they can be made, each container path once."""
    unique = {mount.container_path: mount for mount in found}
    return tuple(
        sorted(unique.values(), key=lambda m: (m.container_path.count("/"), m.container_path))
    )


def existing_files(tree: Tree, driver_root: str, paths: Iterable[str]) -> tuple[HostFile, ...]:
    """Return those of a driver's paths that exist; a path may end in ``*``."""
    root = driver_root.rstrip("/")
    found: list[HostFile] = []
    for path in paths:
        directory, _, name = f"{root}{path}".rpartition("/")
        if name.endswith("*"):
            prefix = name.removesuffix("*")
            names = [n for n in tree.names(directory) if n.startswith(prefix)]
            found += [HostFile(path=f"{directory}/{n}") for n in names]
        elif tree.exists(f"{directory}/{name}"):
            found.append(HostFile(path=f"{directory}/{name}"))
    return tuple(found)


def existing_nodes(tree: Tree, paths: Iterable[str]) -> tuple[Node, ...]:
    """Return those of the paths that are device nodes, in their order."""
    return tuple(node for path in paths if (node := tree.node(path)) is not None)


def drm_nodes(device: Accelerator) -> tuple[Node, ...]:
    """Return a declared device's DRM nodes; their numbers follow from their names."""
    named = (("card", device.card), ("renderD", device.render))
    return tuple(
        Node(path=f"/dev/dri/{name}{number}", major=DRM_MAJOR, minor=number)
        for name, number in named
        if number is not None
    )


BY_PATH = "/dev/dri/by-path"


def _by_path_names(device: Accelerator) -> dict[str, str]:
    """Return the names that udev gives a PCI device's DRM nodes, and what each points to."""
    numbers = (("card", "card", device.card), ("render", "renderD", device.render))
    return {
        f"{BY_PATH}/pci-{device.pci}-{suffix}": f"../{name}{number}"
        for suffix, name, number in numbers
        if device.pci and number is not None
    }


def by_path_links(device: Accelerator, driver: Driver) -> tuple[Link, ...]:
    """Return the by-path links of a device: those that exist, or udev's usual ones.

    An inventory that names a device's nodes or any by-path link is taken to name all of them.
    """
    names = _by_path_names(device)
    named = {link.path: link.target for link in driver.links if link.path.startswith(BY_PATH)}
    if named or device.nodes:
        names = {path: named[path] for path in names if path in named}
    return tuple(Link(target=target, path=path) for path, target in names.items())


def existing_by_path(tree: Tree, devices: Iterable[Accelerator]) -> tuple[Link, ...]:
    """Return the by-path links of the devices that exist in a tree."""
    return tuple(
        Link(target=target, path=path)
        for device in devices
        for path in _by_path_names(device)
        if (target := tree.link(path)) is not None
    )


def main_node(device: Accelerator, path: str) -> Node:
    """Return a declared device's main node with the numbers that the inventory gives it."""
    return Node(
        path=path, major=device.major, minor=device.minor if device.major is not None else None
    )


def unnumbered(vendor: Vendor, edits: Iterable[ContainerEdits]) -> tuple[Note, ...]:
    """Return a note that names the nodes whose numbers are unknown, if there are any."""
    paths = {
        node.host_path or node.path: None
        for edit in edits
        for node in edit.device_nodes
        if node.major is None
    }
    if not paths:
        return ()
    named = ", ".join(list(paths)[:_MAX_NAMED])
    if len(paths) > _MAX_NAMED:
        named += f" and {len(paths) - _MAX_NAMED} more"
    text = (
        f"major and minor of {named}: the runtime reads them from the host's node, "
        "and fails where there is none"
    )
    return (Note(vendor=vendor, kind=NoteKind.LEFT_OUT, text=text),)
