"""Apply container edits to an OCI runtime spec: pure, in the reference implementation's order.

Owns what each edit does to the runtime spec. Leaves out which devices exist (:mod:`cdi.cache`) and
what the host's nodes are (:mod:`cdi.nodes`).

Steps, in this order: environment (the same name replaces, in place), device nodes (the same path
replaces) with a cgroup rule each, network devices, mounts (the same container path replaces, then
all are sorted by depth, stably), hooks (appended), Intel RDT (replaces), additional groups (those
not there yet, 0 never).

Differs from the reference in one point: an identical hook or cgroup rule that is already there
moves to the end instead of being there twice, and every mount at a replaced path goes, not only the
first. So injecting twice is injecting once.

>>> from cdi.spec import ContainerEdits
>>> from cdi.nodes import RecordedNodes
>>> edits = ContainerEdits(env=("A=2", "B=3"))
>>> apply_edits({"process": {"env": ["A=1"]}}, edits, nodes=RecordedNodes({}))
{'process': {'env': ['A=2', 'B=3']}}
"""

import copy
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from cdi._reader import kind_of
from cdi.errors import InjectionError, InvalidOciError
from cdi.nodes import NodeFacts, NodeLookup
from cdi.spec import ContainerEdits, DeviceNode, Hook, Mount
from cdi.validate import NO_PERMISSIONS

_FIFO = "p"
# A kernel mount option that maps ids, needed for bind mounts inside a user namespace.
_ID_MAPPED = {"bind": "idmap", "rbind": "ridmap"}


def apply_edits(
    oci: Mapping[str, object], edits: ContainerEdits, *, nodes: NodeLookup
) -> dict[str, object]:
    """Return a copy of an OCI runtime spec with the edits applied; idempotent.

    ``edits`` are valid and in the order in which they are to apply. ``nodes`` tells the facts of
    host device nodes that the edits leave open. Fields of the spec that no edit touches are kept as
    they are. The argument is not changed, whether or not this raises.

    Raises:
        InjectionError: a device node is neither fully specified nor on the host, or is of another
            type there.
        InvalidOciError: a field of the runtime spec that an edit touches has a wrong type.
    """
    document = _Document(copy.deepcopy(dict(oci)))
    if edits.env:
        _set_env(document, edits.env)
    _set_devices(document, [_resolve(node, nodes) for node in edits.device_nodes])
    if edits.net_devices:
        table = document.mapping("linux", "netDevices")
        for device in edits.net_devices:
            table[device.host_interface_name] = {"name": device.name}
    if edits.mounts:
        _set_mounts(document, edits.mounts)
    _append_hooks(document, edits.hooks)
    if edits.intel_rdt is not None:
        # The OCI runtime specification has the same field names.
        document.mapping("linux")["intelRdt"] = edits.intel_rdt.to_json()
    _add_groups(document, edits.additional_gids)
    return document.root


@dataclass(frozen=True, slots=True)
class _Document:
    """An OCI runtime spec, with typed access that creates what is missing."""

    root: dict[str, object]

    def find(self, *path: str) -> object:
        """Return the value at a path, or None when it or something above it is absent."""
        value: object = self.root
        for depth, name in enumerate(path):
            if value is None:
                return None
            value = _expect_object(value, path[:depth]).get(name)
        return value

    def mapping(self, *path: str) -> dict[str, object]:
        """Return the object at a path, created where absent."""
        value = self.root
        for depth, name in enumerate(path):
            if value.get(name) is None:
                value[name] = {}
            value = _expect_object(value[name], path[: depth + 1])
        return value

    def array(self, *path: str) -> list[object]:
        """Return the array at a path, created where absent."""
        parent = self.mapping(*path[:-1])
        if parent.get(path[-1]) is None:
            parent[path[-1]] = []
        value = parent[path[-1]]
        if not isinstance(value, list):
            raise InvalidOciError(_wrong(path, value, "an array"))
        return cast("list[object]", value)

    def objects(self, *path: str) -> list[dict[str, object]]:
        """Return the array of objects at a path, created where absent."""
        found = self.array(*path)
        for element in found:
            _expect_object(element, (*path, "[]"))
        return cast("list[dict[str, object]]", found)


def _expect_object(value: object, path: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidOciError(_wrong(path, value, "an object"))
    return cast("dict[str, object]", value)


def _wrong(path: tuple[str, ...], value: object, expected: str) -> str:
    return f"OCI runtime spec: {'.'.join(path)} is {kind_of(value)}, not {expected}"


def _set_env(document: _Document, variables: Iterable[str]) -> None:
    env = document.array("process", "env")
    # Where a name occurs twice, the last one counts in the container, so that one is replaced.
    places = {str(entry).partition("=")[0]: i for i, entry in enumerate(env)}
    for variable in variables:
        name = variable.partition("=")[0]
        if name in places:
            env[places[name]] = variable
        else:
            places[name] = len(env)
            env.append(variable)


def _resolve(node: DeviceNode, nodes: NodeLookup) -> tuple[DeviceNode, NodeFacts | None]:
    """Look the node up on the host and check that it can be created; return both."""
    host_path = node.host_path or node.path
    facts = nodes.lookup(host_path)
    if _is_specified(node):
        return node, facts
    if facts is None:
        raise InjectionError(
            f"no device node at {host_path} on the host, and the spec gives no type and major for "
            f"{node.path}; load the driver, or generate the spec again"
        )
    if node.type not in ("", facts.type):
        raise InjectionError(
            f"device node {host_path} has type {facts.type} on the host, but type {node.type} in "
            "the spec; generate the spec again"
        )
    return node, facts


def _is_specified(node: DeviceNode) -> bool:
    return bool(node.type) and (bool(node.major) or node.type == _FIFO)


def _set_devices(document: _Document, resolved: list[tuple[DeviceNode, NodeFacts | None]]) -> None:
    if not resolved:
        return
    uid, gid = _process_ids(document)
    devices = [_device_to_oci(node, facts, uid=uid, gid=gid) for node, facts in resolved]
    rules = [
        _cgroup_rule(device, node.permissions)
        for device, (node, _) in zip(devices, resolved, strict=True)
        if device["type"] in ("b", "c")
    ]
    present = document.objects("linux", "devices")
    for device in devices:
        present[:] = [other for other in present if other.get("path") != device["path"]]
        present.append(device)
    if rules:
        _move_to_end(document.objects("linux", "resources", "devices"), rules)


def _process_ids(document: _Document) -> tuple[int, int]:
    """Return the container process's user and group, 0 where not given."""
    uid = document.find("process", "user", "uid")
    gid = document.find("process", "user", "gid")
    return (uid if isinstance(uid, int) else 0, gid if isinstance(gid, int) else 0)


def _device_to_oci(
    node: DeviceNode, facts: NodeFacts | None, *, uid: int, gid: int
) -> dict[str, object]:
    major, minor = node.major or 0, node.minor or 0
    kind, mode = node.type, node.file_mode
    if facts is not None:
        # Also for a specified node: rootless runtimes bind-mount it and need the mode.
        mode = facts.file_mode if mode is None else mode
        if not _is_specified(node):
            kind = facts.type
            if kind != _FIFO and major == 0:
                major, minor = facts.major, facts.minor
    owner = uid if node.uid is None and uid > 0 else node.uid
    group = gid if node.gid is None and gid > 0 else node.gid
    return {
        "path": node.path,
        "type": kind,
        "major": major,
        "minor": minor,
        **({} if mode is None else {"fileMode": mode}),
        **({} if owner is None else {"uid": owner}),
        **({} if group is None else {"gid": group}),
    }


def _cgroup_rule(device: Mapping[str, object], permissions: str) -> dict[str, object]:
    access = "" if permissions == NO_PERMISSIONS else permissions or "rwm"
    return {
        "allow": True,
        "type": device["type"],
        "major": device["major"],
        "minor": device["minor"],
        **({"access": access} if access else {}),
    }


def _set_mounts(document: _Document, mounts: Iterable[Mount]) -> None:
    present = document.objects("mounts")
    namespaces = document.find("linux", "namespaces")
    mapped = isinstance(namespaces, list) and any(
        isinstance(namespace, dict) and namespace.get("type") == "user" for namespace in namespaces
    )
    for mount in mounts:
        present[:] = [
            other for other in present if other.get("destination") != mount.container_path
        ]
        present.append(_mount_to_oci(mount, id_mapped=mapped))
    present.sort(key=lambda mount: _depth(str(mount.get("destination", ""))))


def _mount_to_oci(mount: Mount, *, id_mapped: bool) -> dict[str, object]:
    options = list(mount.options)
    if id_mapped and not {"idmap", "ridmap"}.intersection(options):
        # The last bind option decides; a mount of type bind needs none.
        binds = [option for option in options if option in _ID_MAPPED]
        if binds or mount.type == "bind":
            options.append(_ID_MAPPED[binds[-1] if binds else "bind"])
    return {
        "destination": mount.container_path,
        **({"type": mount.type} if mount.type else {}),
        "source": mount.host_path,
        **({"options": options} if options else {}),
    }


def _depth(path: str) -> int:
    """Count the slashes of a cleaned path, as runtimes do; ``/`` and ``/a`` both have one."""
    return posixpath.normpath(path).replace("//", "/", 1).count("/")


def _append_hooks(document: _Document, hooks: Iterable[Hook]) -> None:
    by_name: dict[str, list[dict[str, object]]] = {}
    for hook in hooks:
        by_name.setdefault(hook.hook_name, []).append(_hook_to_oci(hook))
    for name, added in by_name.items():
        _move_to_end(document.objects("hooks", name), added)


def _hook_to_oci(hook: Hook) -> dict[str, object]:
    return {
        "path": hook.path,
        **({"args": list(hook.args)} if hook.args else {}),
        **({"env": list(hook.env)} if hook.env else {}),
        **({} if hook.timeout is None else {"timeout": hook.timeout}),
    }


def _move_to_end(present: list[dict[str, object]], added: list[dict[str, object]]) -> None:
    present[:] = [entry for entry in present if entry not in added]
    present.extend(added)


def _add_groups(document: _Document, groups: Iterable[int]) -> None:
    wanted = [group for group in groups if group != 0]
    if not wanted:
        return
    present = document.array("process", "user", "additionalGids")
    for group in wanted:
        if group not in present:
            present.append(group)
