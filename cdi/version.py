"""Versions of the CDI specification, and the lowest one that a spec needs.

Owns the table of features by version. Leaves out whether the spec is otherwise valid
(:mod:`cdi.validate`).

A runtime refuses a version it does not know, so a generator writes the lowest one that fits:

>>> from cdi.spec import ContainerEdits, Device, Spec
>>> device = Device(name="0", container_edits=ContainerEdits(env=("A=1",)))
>>> with_minimum_version(Spec(cdi_version="", kind="a.com/gpu", devices=(device,))).cdi_version
'0.5.0'
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cdi.spec import ContainerEdits, Spec

# Released versions, oldest first. 0.1.0 and 0.2.0 were released too, but every spec needs 0.3.0.
VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
CURRENT_VERSION = VERSIONS[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """The lowest version a spec needs, and the first field that needs it (empty for the floor)."""

    version: str
    path: str
    why: str


def normalize(version: str) -> str:
    """Return a version without its one optional leading ``v``."""
    return version.removeprefix("v")


def is_known(version: str) -> bool:
    """Tell whether this is a released version that a spec may give, with or without ``v``."""
    return normalize(version) in VERSIONS


def older(one: str, other: str) -> bool:
    """Tell whether one known version is older than another."""
    return VERSIONS.index(normalize(one)) < VERSIONS.index(normalize(other))


def minimum_version(spec: Spec) -> Requirement:
    """Find the lowest version that has every feature the spec uses; the newest feature decides."""
    for version, why, uses in _FEATURES:
        path = next(uses(spec), None)
        if path is not None:
            return Requirement(version=version, path=path, why=why)
    return Requirement(version=VERSIONS[0], path="", why="is the oldest version in use")


def with_minimum_version(spec: Spec) -> Spec:
    """Return the spec with the lowest version it can have."""
    return replace(spec, cdi_version=minimum_version(spec).version)


def _in_edits(
    find: Callable[[ContainerEdits], Iterator[str]],
) -> Callable[[Spec], Iterator[str]]:
    def search(spec: Spec) -> Iterator[str]:
        for path, edits in spec.all_edits():
            for found in find(edits):
                yield f"{path}.{found}"

    return search


def _net_devices(edits: ContainerEdits) -> Iterator[str]:
    if edits.net_devices:
        yield "netDevices"


def _rdt_1_1(edits: ContainerEdits) -> Iterator[str]:
    if edits.intel_rdt is not None and edits.intel_rdt.schemata is not None:
        yield "intelRdt.schemata"
    if edits.intel_rdt is not None and edits.intel_rdt.enable_monitoring:
        yield "intelRdt.enableMonitoring"


def _rdt(edits: ContainerEdits) -> Iterator[str]:
    if edits.intel_rdt is not None:
        yield "intelRdt"


def _gids(edits: ContainerEdits) -> Iterator[str]:
    if edits.additional_gids:
        yield "additionalGids"


def _annotations(spec: Spec) -> Iterator[str]:
    if spec.annotations:
        yield "annotations"
    for i, device in enumerate(spec.devices):
        if device.annotations:
            yield f"devices[{i}].annotations"


def _dotted_class(spec: Spec) -> Iterator[str]:
    if "." in spec.class_:
        yield "kind"


def _digit_first(spec: Spec) -> Iterator[str]:
    for i, device in enumerate(spec.devices):
        if device.name[:1] in tuple("0123456789"):
            yield f"devices[{i}].name"


def _host_paths(edits: ContainerEdits) -> Iterator[str]:
    for i, node in enumerate(edits.device_nodes):
        if node.host_path:
            yield f"deviceNodes[{i}].hostPath"


def _mount_types(edits: ContainerEdits) -> Iterator[str]:
    for i, mount in enumerate(edits.mounts):
        if mount.type:
            yield f"mounts[{i}].type"


# Newest first: the first row that finds a use decides. 1.0.0 and 0.8.0 changed the reference
# library's interface only, so no field needs them.
_FEATURES: tuple[tuple[str, str, Callable[[Spec], Iterator[str]]], ...] = (
    ("1.1.0", "network devices", _in_edits(_net_devices)),
    ("1.1.0", "schemata and monitoring", _in_edits(_rdt_1_1)),
    ("0.7.0", "Intel RDT", _in_edits(_rdt)),
    ("0.7.0", "additional group ids", _in_edits(_gids)),
    ("0.6.0", "annotations", _annotations),
    ("0.6.0", "a dot in the class", _dotted_class),
    ("0.5.0", "a device name that starts with a digit", _digit_first),
    ("0.5.0", "a device node's own host path", _in_edits(_host_paths)),
    ("0.4.0", "a mount type", _in_edits(_mount_types)),
)
