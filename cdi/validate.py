"""The rules that a CDI spec must keep: every fault found, with its path.

Owns the rules between and within fields, which are the reference implementation's. Leaves out the
shape of the document (:mod:`cdi.spec`), text (:mod:`cdi.parse`), and advice about valid specs
(:mod:`cdi.lint`). ``schemas/cdi-1.1.0.schema.json`` states the same rules a second time; a table of
fixtures holds the two together. The schema cannot say that names are unique.

>>> for fault in check({"cdiVersion": "0.4.0", "kind": "a.com/gpu", "devices": [{"name": "0"}]}):
...     print(fault)
cdiVersion: is 0.4.0, but devices[0].name (a device name that starts with a digit) needs 0.5.0
devices[0].containerEdits: is required
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from cdi._reader import ObjectReader
from cdi.errors import Fault, InvalidSpecError
from cdi.names import device_fault, kind_fault
from cdi.spec import ContainerEdits, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec
from cdi.version import VERSIONS, is_known, minimum_version, normalize, older

T = TypeVar("T")

NODE_TYPES = ("", "b", "c", "u", "p")
# Requests an empty set of cgroup permissions, where an empty string means the default, rwm.
NO_PERMISSIONS = "none"
HOOK_NAMES = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)
# A class of service is a directory in resctrl; the limit is Linux's PATH_MAX, in bytes.
MAX_CLOS_ID_BYTES = 4095

_INDEX = re.compile(r"\[(\d+)\]")


def check(value: object) -> tuple[Fault, ...]:
    """Check any JSON value as a CDI spec and return every fault, sorted by path.

    Never raises, whatever the value. No fault proves that ``Spec.from_json(value)`` succeeds and
    that :func:`validate` finds nothing.
    """
    _, faults = read_and_check(value)
    return faults


def read_and_check(value: object, found: Iterable[Fault] = ()) -> tuple[Spec, tuple[Fault, ...]]:
    """Read any JSON value as far as it goes; return the spec and every fault, sorted by path.

    ``found`` are faults that an earlier step has found in the document. The spec is whole only when
    there are no faults. A rule is not reported where the shape is already wrong.
    """
    shape = list(found)
    spec = Spec.read(ObjectReader(value, "", shape))
    broken = {fault.path for fault in shape}
    rules = [fault for fault in _rules(spec) if broken.isdisjoint(_ancestry(fault.path))]
    return spec, tuple(sorted({*shape, *rules}, key=_document_order))


def validate(spec: Spec) -> tuple[Fault, ...]:
    """Check a spec built from types and return every fault, sorted by path."""
    _, faults = read_and_check(spec.to_json())
    return faults


def require_valid(spec: Spec, source: str = "") -> None:
    """Return when the spec is valid.

    Raises:
        InvalidSpecError: it is not; the error holds every fault and names ``source``.
    """
    if faults := validate(spec):
        raise InvalidSpecError(faults, source=source)


def _rules(spec: Spec) -> Iterator[Fault]:
    yield from _version(spec)
    if reason := kind_fault(spec.kind):
        yield Fault(path="kind", reason=reason)
    if not spec.devices:
        yield Fault(path="devices", reason="invalid spec, no devices")
    seen: dict[str, int] = {}
    for i, device in enumerate(spec.devices):
        path = f"devices[{i}]"
        if reason := device_fault(device.name):
            yield Fault(path=f"{path}.name", reason=reason)
        if device.name in seen:
            first = f"devices[{seen[device.name]}]"
            yield Fault(path=f"{path}.name", reason=f"is {device.name!r}, the name of {first} too")
        seen.setdefault(device.name, i)
        if not device.container_edits:
            yield Fault(path=f"{path}.containerEdits", reason="invalid device, empty device edits")
    for path, edits in spec.all_edits():
        yield from _edits(path, edits)


def _version(spec: Spec) -> Iterator[Fault]:
    if not is_known(spec.cdi_version):
        known = ", ".join(VERSIONS)
        yield Fault(
            path="cdiVersion", reason=f"invalid version {spec.cdi_version!r}; known are {known}"
        )
        return
    needed = minimum_version(spec)
    if older(spec.cdi_version, needed.version):
        reason = (
            f"is {normalize(spec.cdi_version)}, but {needed.path} ({needed.why}) "
            f"needs {needed.version}"
        )
        yield Fault(path="cdiVersion", reason=reason)


def _edits(path: str, edits: ContainerEdits) -> Iterator[Fault]:
    yield from _env(f"{path}.env", edits.env)
    yield from _each(f"{path}.deviceNodes", edits.device_nodes, _device_node)
    yield from _each(f"{path}.netDevices", edits.net_devices, _net_device)
    yield from _unique_net_devices(f"{path}.netDevices", edits.net_devices)
    yield from _each(f"{path}.hooks", edits.hooks, _hook)
    yield from _each(f"{path}.mounts", edits.mounts, _mount)
    if edits.intel_rdt is not None:
        yield from _intel_rdt(f"{path}.intelRdt", edits.intel_rdt)


def _each(
    path: str, values: Iterable[T], rule: Callable[[str, T], Iterator[Fault]]
) -> Iterator[Fault]:
    for i, value in enumerate(values):
        yield from rule(f"{path}[{i}]", value)


def _env(path: str, env: Iterable[str]) -> Iterator[Fault]:
    for i, variable in enumerate(env):
        if variable.find("=") <= 0:
            reason = f"invalid environment variable {_short(variable)}; write NAME=value"
            yield Fault(path=f"{path}[{i}]", reason=reason)


def _device_node(path: str, node: DeviceNode) -> Iterator[Fault]:
    yield from _not_empty(f"{path}.path", node.path)
    if node.type not in NODE_TYPES:
        reason = f"invalid type {_short(node.type)}; it is one of b, c, u, p"
        yield Fault(path=f"{path}.type", reason=reason)
    if node.permissions != NO_PERMISSIONS and node.permissions.strip("rwm"):
        reason = f"invalid permissions {_short(node.permissions)}; they are letters of rwm, or none"
        yield Fault(path=f"{path}.permissions", reason=reason)


def _net_device(path: str, device: NetDevice) -> Iterator[Fault]:
    yield from _not_empty(f"{path}.hostInterfaceName", device.host_interface_name)
    yield from _not_empty(f"{path}.name", device.name)


def _unique_net_devices(path: str, devices: tuple[NetDevice, ...]) -> Iterator[Fault]:
    seen: dict[tuple[str, str], int] = {}
    for i, device in enumerate(devices):
        for field, name in (
            ("hostInterfaceName", device.host_interface_name),
            ("name", device.name),
        ):
            first = seen.setdefault((field, name), i)
            if first != i and name:
                reason = f"is {_short(name)}, as in {path}[{first}]; it must be unique"
                yield Fault(path=f"{path}[{i}].{field}", reason=reason)


def _hook(path: str, hook: Hook) -> Iterator[Fault]:
    if hook.hook_name not in HOOK_NAMES:
        reason = f"invalid hook name {_short(hook.hook_name)}; known are {', '.join(HOOK_NAMES)}"
        yield Fault(path=f"{path}.hookName", reason=reason)
    yield from _not_empty(f"{path}.path", hook.path)
    yield from _env(f"{path}.env", hook.env)


def _mount(path: str, mount: Mount) -> Iterator[Fault]:
    yield from _not_empty(f"{path}.hostPath", mount.host_path)
    yield from _not_empty(f"{path}.containerPath", mount.container_path)


def _intel_rdt(path: str, rdt: IntelRdt) -> Iterator[Fault]:
    name = rdt.clos_id
    if name == "/":  # the root class of service
        return
    if name in (".", "..") or "/" in name or "\n" in name:
        reason = f"invalid closID {_short(name)}; it is a file name, or exactly /"
        yield Fault(path=f"{path}.closID", reason=reason)
    elif len(name.encode()) > MAX_CLOS_ID_BYTES:
        yield Fault(path=f"{path}.closID", reason=f"is longer than {MAX_CLOS_ID_BYTES} bytes")


def _not_empty(path: str, text: str) -> Iterator[Fault]:
    if not text:
        yield Fault(path=path, reason="is empty")


def _short(text: str) -> str:
    """Quote a text on one line, cut where it would make the message unreadable."""
    return ascii(text if len(text) <= 60 else text[:60] + "…")


def _ancestry(path: str) -> Iterator[str]:
    """Yield the path and every path it lies under, up to the document itself."""
    yield path
    for i in range(len(path) - 1, 0, -1):
        if path[i] in ".[":
            yield path[:i]
    yield ""


def _document_order(fault: Fault) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort by path, with indexes as numbers and the whole document first."""
    parts = _INDEX.split(fault.path)
    order = tuple(
        (0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts) if part
    )
    return order, fault.reason
