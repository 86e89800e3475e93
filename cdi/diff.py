"""What no longer matches: a stored spec against the spec of today, or against the machine itself.

Owns the kinds of difference and what counts as one. Leaves out where the specs come from: the stored
one from a spec directory (:mod:`cdi.cache`), today's from :mod:`cdi.generate`.

A node that a stored spec names without numbers is current whatever its numbers are, since the
runtime reads them when a container starts.

>>> old = Spec(cdi_version="0.5.0", kind="a.com/gpu", devices=(Device(name="0",
...     container_edits=ContainerEdits(device_nodes=(DeviceNode(path="/dev/a0", major=9, minor=0),))),))
>>> new = Spec(cdi_version="0.5.0", kind="a.com/gpu", devices=(Device(name="0",
...     container_edits=ContainerEdits(device_nodes=(DeviceNode(path="/dev/a0", major=8, minor=0),))),))
>>> print(compare(old, new)[0])
0: /dev/a0: is 9:0 in the spec and 8:0 on this node
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from cdi.discovery.tree import Tree
from cdi.generate import ALL
from cdi.spec import ContainerEdits, Device, DeviceNode, Hook, Mount, Spec
from cdi.vendors.nvidia_driver import loaded_version, version_of

_VERSION_ARGUMENT = "--host-driver-version="
# Nodes that only partitions have, of the vendors whose partitions have nodes of their own.
_PARTITION_NODE = re.compile(r"/dev/(nvidia-caps/|vdavinci\d|cambricon-caps/)")


class Kind(StrEnum):
    """What is different."""

    DEVICE_GONE = "device-gone"
    DEVICE_NEW = "device-new"
    PARTITION_GONE = "partition-gone"
    PARTITION_NEW = "partition-new"
    NODE_GONE = "node-gone"
    NODE_NEW = "node-new"
    NODE_NUMBERS = "node-numbers"
    FILE_GONE = "file-gone"
    FILE_NEW = "file-new"
    DRIVER_VERSION = "driver-version"
    EDITS = "edits"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One difference.

    ``device`` is the device's name, empty for what all devices share. ``subject`` is the node, file
    or field; ``stored`` and ``current`` are its values, empty where there is none.
    """

    kind: Kind
    device: str
    subject: str
    stored: str = ""
    current: str = ""

    def __str__(self) -> str:
        where = f"{self.device}: " if self.device else ""
        match self.kind:
            case Kind.DEVICE_GONE | Kind.PARTITION_GONE:
                return f"{self.subject}: is in the spec and not on this node"
            case Kind.DEVICE_NEW | Kind.PARTITION_NEW:
                return f"{self.subject}: is on this node and not in the spec"
            case Kind.NODE_GONE | Kind.FILE_GONE:
                return f"{where}{self.subject}: is in the spec and not on this node"
            case Kind.NODE_NEW | Kind.FILE_NEW:
                return f"{where}{self.subject}: is on this node and not in the spec"
        return (
            f"{where}{self.subject}: is {self.stored} in the spec and {self.current} on this node"
        )


def compare(stored: Spec, current: Spec) -> tuple[Difference, ...]:
    """Return what differs between a stored spec and what is generated now, in a fixed order.

    None means that writing ``current`` would change nothing for a container. A new driver version
    is one difference, not one for each file whose name holds it.
    """
    found: list[Difference] = []
    old, new = driver_version(stored), driver_version(current)
    if old and new and old != new:
        found.append(_difference(Kind.DRIVER_VERSION, "", "driver", old, new))
        stored = _with_version(stored, old, new)
    found += _devices(stored.devices, current.devices)
    found += _edits("", stored.container_edits, current.container_edits)
    before = {device.name: device for device in stored.devices}
    for device in current.devices:
        # all repeats what its devices say; it is looked at when they say nothing.
        if device.name in before and (device.name != ALL or not found):
            found += _edits(
                device.name, before[device.name].container_edits, device.container_edits
            )
    found += _rest(stored, current)
    return tuple(dict.fromkeys(found))


def needs_refresh(stored: Spec | None, current: Spec) -> bool:
    """Tell whether a spec file has to be written: there is none, or it differs."""
    return stored is None or bool(compare(stored, current))


def verify(stored: Spec, tree: Tree) -> tuple[Difference, ...]:
    """Return what a stored spec says that is not so on a machine, whoever wrote the spec.

    Looks at the device nodes, the mounted files, the hooks' programs and, for NVIDIA, the version
    of the loaded driver. Devices that the spec lacks are not found this way.
    """
    found: list[Difference] = []
    scopes = [("", stored.container_edits)]
    scopes += [(device.name, device.container_edits) for device in stored.devices]
    for name, edits in scopes:
        if name == ALL and len(stored.devices) > 1:
            continue
        found += _verify_nodes(name, edits.device_nodes, tree)
        paths = [mount.host_path for mount in edits.mounts if mount.host_path.startswith("/")]
        paths += [hook.path for hook in edits.hooks]
        found += [
            _difference(Kind.FILE_GONE, name, path, path, "")
            for path in dict.fromkeys(paths)
            if not tree.exists(path)
        ]
    old = driver_version(stored)
    new = loaded_version(tree) if stored.vendor == "nvidia.com" else ""
    if old and new and old != new:
        found.insert(0, _difference(Kind.DRIVER_VERSION, "", "driver", old, new))
    return tuple(dict.fromkeys(found))


def driver_version(spec: Spec) -> str:
    """Return the version of the NVIDIA driver that a spec was made for, or empty."""
    for edits in (spec.container_edits, *(device.container_edits for device in spec.devices)):
        for hook in edits.hooks:
            for argument in hook.args:
                if argument.startswith(_VERSION_ARGUMENT):
                    return argument.removeprefix(_VERSION_ARGUMENT)
        for mount in edits.mounts:
            name = mount.container_path.rpartition("/")[2]
            if name.startswith(("libcuda.so.", "libnvidia-ml.so.")) and version_of(name):
                return version_of(name)
    return ""


def _difference(kind: Kind, device: str, subject: str, stored: str, current: str) -> Difference:
    return Difference(kind=kind, device=device, subject=subject, stored=stored, current=current)


def _with_version(spec: Spec, old: str, new: str) -> Spec:
    """Return the spec as if it had been made for another driver version."""

    def edits(one: ContainerEdits) -> ContainerEdits:
        return replace(
            one,
            mounts=tuple(
                replace(
                    mount,
                    host_path=mount.host_path.replace(old, new),
                    container_path=mount.container_path.replace(old, new),
                )
                for mount in one.mounts
            ),
            hooks=tuple(
                replace(hook, args=tuple(text.replace(old, new) for text in hook.args))
                for hook in one.hooks
            ),
        )

    return replace(
        spec,
        container_edits=edits(spec.container_edits),
        devices=tuple(
            replace(device, container_edits=edits(device.container_edits))
            for device in spec.devices
        ),
    )


def _devices(stored: Iterable[Device], current: Iterable[Device]) -> Iterator[Difference]:
    before = {device.name: device for device in stored}
    after = {device.name: device for device in current}
    for name, device in before.items():
        if name not in after:
            kind = Kind.PARTITION_GONE if _is_partition(device) else Kind.DEVICE_GONE
            yield _difference(kind, name, name, name, "")
    for name, device in after.items():
        if name not in before:
            kind = Kind.PARTITION_NEW if _is_partition(device) else Kind.DEVICE_NEW
            yield _difference(kind, name, name, "", name)


def _is_partition(device: Device) -> bool:
    nodes = device.container_edits.device_nodes
    return device.name != ALL and any(
        _PARTITION_NODE.match(node.host_path or node.path) for node in nodes
    )


def _edits(name: str, stored: ContainerEdits, current: ContainerEdits) -> Iterator[Difference]:
    yield from _nodes(name, stored.device_nodes, current.device_nodes)
    yield from _mounts(name, stored.mounts, current.mounts)
    pairs: Mapping[str, tuple[Iterable[object], Iterable[object]]] = {
        "env": (stored.env, current.env),
        "hooks": (_hook_texts(stored.hooks), _hook_texts(current.hooks)),
        "netDevices": (stored.net_devices, current.net_devices),
        "additionalGids": (stored.additional_gids, current.additional_gids),
    }
    for field, (old, new) in pairs.items():
        if list(old) != list(new):
            yield _difference(Kind.EDITS, name, field, _listed(old), _listed(new))
    if stored.intel_rdt != current.intel_rdt:
        yield _difference(
            Kind.EDITS, name, "intelRdt", str(stored.intel_rdt), str(current.intel_rdt)
        )


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values) or "nothing"


def _hook_texts(hooks: Iterable[Hook]) -> list[str]:
    return [" ".join((hook.hook_name, hook.path, *hook.args)) for hook in hooks]


def _nodes(
    name: str, stored: Iterable[DeviceNode], current: Iterable[DeviceNode]
) -> Iterator[Difference]:
    before = {node.path: node for node in stored}
    after = {node.path: node for node in current}
    for path, node in before.items():
        if path not in after:
            yield _difference(Kind.NODE_GONE, name, path, _numbers(node), "")
            continue
        other = after[path]
        if node.major and other.major and _numbers(node) != _numbers(other):
            yield _difference(Kind.NODE_NUMBERS, name, path, _numbers(node), _numbers(other))
        old, new = _node_rest(node, other), _node_rest(other, node)
        if old != new:
            yield _difference(Kind.EDITS, name, path, old or "plain", new or "plain")
    for path, node in after.items():
        if path not in before:
            yield _difference(Kind.NODE_NEW, name, path, "", _numbers(node))


def _numbers(node: DeviceNode) -> str:
    return f"{node.major}:{node.minor or 0}" if node.major else "any"


def _node_rest(node: DeviceNode, other: DeviceNode) -> str:
    """Return what a node says beside its numbers, where both sides say it."""
    fields = {
        "hostPath": (node.host_path or node.path, other.host_path or other.path),
        "type": (node.type or "c", other.type or "c"),
        "fileMode": (node.file_mode, other.file_mode),
        "permissions": (node.permissions or "rwm", other.permissions or "rwm"),
        "uid": (node.uid, other.uid),
        "gid": (node.gid, other.gid),
    }
    return ", ".join(
        f"{field} {mine}"
        for field, (mine, theirs) in fields.items()
        if mine != theirs and mine is not None and theirs is not None
    )


def _mounts(name: str, stored: Iterable[Mount], current: Iterable[Mount]) -> Iterator[Difference]:
    before = {mount.container_path: mount for mount in stored}
    after = {mount.container_path: mount for mount in current}
    for path, mount in before.items():
        if path not in after:
            yield _difference(Kind.FILE_GONE, name, mount.host_path, path, "")
            continue
        other = after[path]
        if mount != other:
            yield _difference(Kind.EDITS, name, path, _mount_text(mount), _mount_text(other))
    for path, mount in after.items():
        if path not in before:
            yield _difference(Kind.FILE_NEW, name, mount.host_path, "", path)


def _mount_text(mount: Mount) -> str:
    return " ".join(filter(None, (mount.host_path, mount.type, ",".join(mount.options))))


def _rest(stored: Spec, current: Spec) -> Iterator[Difference]:
    if stored.kind != current.kind:
        yield _difference(Kind.EDITS, "", "kind", stored.kind, current.kind)
    if dict(stored.annotations) != dict(current.annotations):
        old, new = (
            _listed(f"{key}={value}" for key, value in sorted(spec.annotations.items()))
            for spec in (stored, current)
        )
        yield _difference(Kind.EDITS, "", "annotations", old, new)


def _verify_nodes(name: str, nodes: Iterable[DeviceNode], tree: Tree) -> Iterator[Difference]:
    for node in nodes:
        path = node.host_path or node.path
        facts = tree.lookup(path)
        if facts is None:
            yield _difference(Kind.NODE_GONE, name, path, _numbers(node), "")
        elif node.major and (node.major, node.minor or 0) != (facts.major, facts.minor):
            real = f"{facts.major}:{facts.minor}"
            yield _difference(Kind.NODE_NUMBERS, name, path, _numbers(node), real)
