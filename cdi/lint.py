"""What is wrong, or will go wrong, with the spec directories of a node.

Owns the findings that need the directories, the node's files and its device nodes. Leaves out what
a vendor's generator would write today, which is a comparison with its inventory.

Every root is a parameter: a recorded or mounted tree is a node.

>>> lint((Path("/no/such/directory"),))
()
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cdi.cache import Cache, LoadedSpec, default_directories
from cdi.errors import InvalidSpecError
from cdi.files import SUFFIXES
from cdi.nodes import HostNodes, NodeFacts, NodeLookup, under
from cdi.spec import ContainerEdits, DeviceNode, Spec
from cdi.validate import NO_PERMISSIONS
from cdi.version import minimum_version, normalize, older

Level = Literal["error", "warning"]

# The CDI specification, "Kind"; the reference implementation does not enforce them.
MAX_CLASS = 63
MAX_VENDOR = 253
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_READ_BY_ALL = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_WRITE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One finding: an error stops a device or a container, a warning may do so.

    ``rule`` is a stable short name, ``file`` the file or directory, ``path`` the place in the
    document, empty for the whole file.
    """

    level: Level
    rule: str
    file: Path
    path: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.path}" if self.path else str(self.file)
        return f"{place}: {self.reason}"


def lint(
    directories: Sequence[Path] | None = None,
    *,
    root: Path = Path("/"),
    nodes: NodeLookup | None = None,
) -> tuple[Finding, ...]:
    """Look through spec directories and return all findings, by file and place.

    ``directories`` are real paths, lowest priority first; without them the default ones below
    ``root`` are used. Paths that the specs name are looked up below ``root``, device nodes through
    ``nodes``, which by default reads the same tree.
    """
    where = default_directories(root) if directories is None else tuple(directories)
    lookup = HostNodes(root=root) if nodes is None else nodes
    cache = Cache.load(where)
    findings: list[Finding] = []
    for directory in where:
        findings += _lint_directory(directory)
    for path, error in cache.errors.items():
        if isinstance(error, InvalidSpecError):
            for fault in error.faults:
                findings.append(_error("invalid", path, fault.reason, fault.path))
        else:
            findings.append(_error("unreadable", path, str(error).removeprefix(f"{path} ")))
    findings += _lint_definitions(cache)
    for source in cache.specs:
        findings += _lint_file_name(source)
        for level, rule, place, reason in (
            *_lint_spec(source.spec),
            *_lint_host(source.spec, root, lookup),
        ):
            findings.append(
                Finding(level=level, rule=rule, file=source.path, path=place, reason=reason)
            )
    return tuple(sorted(set(findings), key=_order))


def _order(finding: Finding) -> tuple[str, str, str, str]:
    return str(finding.file), finding.path, finding.rule, finding.reason


_Advice = tuple[Level, str, str, str]


def _error(rule: str, file: Path, reason: str, path: str = "") -> Finding:
    return Finding(level="error", rule=rule, file=file, path=path, reason=reason)


def _warning(rule: str, file: Path, reason: str, path: str = "") -> Finding:
    return Finding(level="warning", rule=rule, file=file, path=path, reason=reason)


def _lint_directory(directory: Path) -> Iterator[Finding]:
    if directory.is_symlink():
        reason = "is a symbolic link; runtimes with a CDI library before 1.1.1 do not look into it"
        yield _warning("link", directory, reason)
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return  # absent, or already reported as unreadable
    for entry in entries:
        if entry.suffix in (".yml", ".YML", ".YAML", ".JSON"):
            reason = f"is ignored by runtimes; rename it to {entry.stem}{_suffix_like(entry)}"
            yield _error("suffix", entry, reason)
        elif entry.is_dir() and not entry.is_symlink():
            if any(below.name.endswith(SUFFIXES) for below in _below(entry)):
                yield _warning(
                    "nested", entry, "holds spec files, but runtimes do not look into it"
                )
        elif entry.name.endswith(SUFFIXES):
            yield from _lint_mode(entry)


def _suffix_like(entry: Path) -> str:
    return ".json" if entry.suffix.lower() == ".json" else ".yaml"


def _below(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _lint_mode(path: Path) -> Iterator[Finding]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # reported as unreadable
    if mode & _READ_BY_ALL != _READ_BY_ALL:
        reason = f"has mode {mode:04o}; others than its owner cannot read it, make it 0644"
        yield _warning("mode", path, reason)
    if mode & _WRITE_BY_OTHERS:
        reason = f"has mode {mode:04o}; who can write it can mount any host path, make it 0644"
        yield _warning("mode", path, reason)


def _lint_definitions(cache: Cache) -> Iterator[Finding]:
    for conflict in cache.conflicts():
        for path in conflict.paths:
            others = ", ".join(str(other) for other in conflict.paths if other != path)
            reason = f"device {conflict.name} is in conflict with {others}; it is unresolvable"
            yield _error("conflict", path, reason)
    for name in cache.names():
        winner = cache.device(name)
        for hidden in cache.definitions[name]:
            if winner is not None and hidden != winner:
                reason = f"device {name} is hidden by {winner.source.path}"
                yield _warning("hidden", hidden.source.path, reason)


def _lint_file_name(source: LoadedSpec) -> Iterator[Finding]:
    base = f"{source.spec.vendor}-{source.spec.class_}"
    if source.path.stem != base and not source.path.stem.startswith(base + "_"):
        reason = (
            f"by convention is named {base}{source.path.suffix}, or {base}_ID for a transient spec"
        )
        yield _warning("name", source.path, reason)


def _lint_spec(spec: Spec) -> Iterator[_Advice]:
    """Look at the spec alone: valid, yet not for every runtime or not as the text demands."""
    needed = minimum_version(spec).version
    if older(needed, spec.cdi_version):
        reason = (
            f"is {normalize(spec.cdi_version)}, but {needed} is enough; older runtimes refuse it"
        )
        yield "warning", "version", "cdiVersion", reason
    if len(spec.vendor) == 1 or len(spec.class_) == 1:
        reason = "has a part of one letter, on which runtimes with a CDI library before 1.1.1 crash"
        yield "error", "crash", "kind", reason
    if not _SUBDOMAIN.fullmatch(spec.vendor) or len(spec.vendor) > MAX_VENDOR:
        yield "warning", "kind", "kind", f"vendor {spec.vendor!r} is not a lower-case DNS subdomain"
    if len(spec.class_) > MAX_CLASS:
        yield "warning", "kind", "kind", f"class is longer than {MAX_CLASS} characters"
    for path, edits in spec.all_edits():
        yield from _lint_edits(path, edits)


def _lint_edits(path: str, edits: ContainerEdits) -> Iterator[_Advice]:
    for i, node in enumerate(edits.device_nodes):
        place = f"{path}.deviceNodes[{i}]"
        if node.permissions == NO_PERMISSIONS:
            reason = "is none, which runtimes with a CDI library before 1.1.1 refuse"
            yield "warning", "permissions", f"{place}.permissions", reason
        yield from _absolute(f"{place}.path", node.path)
    for i, hook in enumerate(edits.hooks):
        place = f"{path}.hooks[{i}]"
        yield from _absolute(f"{place}.path", hook.path)
        if hook.timeout is not None and hook.timeout <= 0:
            yield "error", "timeout", f"{place}.timeout", "must be greater than zero"
    for i, mount in enumerate(edits.mounts):
        yield from _absolute(f"{path}.mounts[{i}].containerPath", mount.container_path)


def _absolute(place: str, path: str) -> Iterator[_Advice]:
    if not path.startswith("/"):
        yield "error", "relative", place, f"is {path!a}, which is not an absolute path"


def _lint_host(spec: Spec, root: Path, nodes: NodeLookup) -> Iterator[_Advice]:
    """Compare the spec with the node: files that are gone, devices that changed."""
    for path, edits in spec.all_edits():
        for i, node in enumerate(edits.device_nodes):
            yield from _lint_node(f"{path}.deviceNodes[{i}]", node, nodes)
        for i, mount in enumerate(edits.mounts):
            # A mount of a kernel file system has a source that is no path.
            if mount.host_path.startswith("/") and not _exists(root, mount.host_path):
                reason = f"is {mount.host_path}, which is not on this node"
                yield "error", "missing", f"{path}.mounts[{i}].hostPath", reason
        for i, hook in enumerate(edits.hooks):
            if not _exists(root, hook.path):
                reason = f"is {hook.path}, which is not on this node; the container will not start"
                yield "error", "missing", f"{path}.hooks[{i}].path", reason


def _lint_node(place: str, node: DeviceNode, nodes: NodeLookup) -> Iterator[_Advice]:
    host_path = node.host_path or node.path
    facts = nodes.lookup(host_path)
    if facts is None:
        field = "hostPath" if node.host_path else "path"
        reason = f"{host_path} is no device node on this node"
        yield "error", "missing", f"{place}.{field}", reason
        return
    yield from _lint_numbers(place, node, facts)


def _lint_numbers(place: str, node: DeviceNode, facts: NodeFacts) -> Iterator[_Advice]:
    host_path = node.host_path or node.path
    kind = "c" if node.type == "u" else node.type
    if kind and kind != facts.type:
        reason = f"is {node.type}, but {host_path} is {facts.type}; generate the spec again"
        yield "error", "stale", f"{place}.type", reason
    elif facts.type != "p" and node.major:
        for name, given, real in (
            ("major", node.major, facts.major),
            ("minor", node.minor or 0, facts.minor),
        ):
            if given != real:
                reason = f"is {given}, but {host_path} has {real}; generate the spec again"
                yield "error", "stale", f"{place}.{name}", reason


def _exists(root: Path, path: str) -> bool:
    """Tell whether the host has this path; a link counts by itself, for its target may be below."""
    return os.path.lexists(under(root, path))
