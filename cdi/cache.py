"""Spec directories: which devices exist, which spec defines each, and what stands in the way.

Owns precedence and conflicts between files. Leaves out single files (:mod:`cdi.files`) and advice
(:mod:`cdi.lint`).

A later directory has the higher priority. Two specs of one priority that define the same device are
in conflict, and that device cannot be resolved at all, even where a directory of higher priority
defines it too: so do the runtimes.

>>> Cache.load(()).names()
()
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdi.edits import apply_edits
from cdi.errors import CdiError, UnresolvableError
from cdi.files import SUFFIXES, read_spec
from cdi.nodes import HostNodes, NodeLookup, under
from cdi.spec import ContainerEdits, Device, Spec

# The specification's static and dynamic directory, lowest priority first.
DEFAULT_DIRECTORIES = ("/etc/cdi", "/var/run/cdi")


def default_directories(root: Path = Path("/")) -> tuple[Path, ...]:
    """Return the default spec directories of a host whose tree is mounted at ``root``."""
    return tuple(under(root, directory) for directory in DEFAULT_DIRECTORIES)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedSpec:
    """A valid spec with its file and priority, the index of its directory."""

    spec: Spec
    path: Path
    priority: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedDevice:
    """A device, its qualified name and the spec that defines it."""

    name: str
    device: Device
    source: LoadedSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """A device that several specs of one priority define, and their files in reading order."""

    name: str
    paths: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """What the spec directories held when they were read; later changes do not show.

    ``definitions`` holds every definition of every device, lowest priority first. ``errors`` says
    for a file or directory why it was not read.
    """

    directories: tuple[Path, ...]
    specs: tuple[LoadedSpec, ...] = ()
    errors: Mapping[Path, CdiError] = field(default_factory=dict)
    definitions: Mapping[str, tuple[LoadedDevice, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, directories: Sequence[Path] | None = None) -> "Cache":
        """Read the spec directories, lowest priority first; the default ones for None.

        Files in subdirectories and files that end in neither ``.json`` nor ``.yaml`` do not count.
        A missing directory is empty. Files that cannot be read or are not valid are in ``errors``
        and the rest is there: this does not raise for what the directories hold.
        """
        where = default_directories() if directories is None else tuple(directories)
        specs: list[LoadedSpec] = []
        errors: dict[Path, CdiError] = {}
        for priority, directory in enumerate(where):
            try:
                paths = spec_paths(directory)
            except OSError as error:
                errors[directory] = CdiError(f"{directory} cannot be read: {error.strerror}")
                continue
            for path in paths:
                try:
                    spec = read_spec(path)
                except CdiError as error:
                    errors[path] = error
                else:
                    specs.append(LoadedSpec(spec=spec, path=path, priority=priority))
        return cls.of(specs, directories=where, errors=errors)

    @classmethod
    def of(
        cls,
        specs: Iterable[LoadedSpec],
        *,
        directories: tuple[Path, ...] = (),
        errors: Mapping[Path, CdiError] | None = None,
    ) -> "Cache":
        """Build a cache from specs that are already loaded, in reading order."""
        specs = tuple(specs)
        definitions: dict[str, tuple[LoadedDevice, ...]] = {}
        for source in specs:
            for device in source.spec.devices:
                name = source.spec.qualified(device.name)
                found = LoadedDevice(name=name, device=device, source=source)
                definitions[name] = (*definitions.get(name, ()), found)
        return cls(
            directories=directories, specs=specs, errors=errors or {}, definitions=definitions
        )

    def conflicts(self) -> tuple[Conflict, ...]:
        """Return the devices that cannot be resolved because specs of one priority clash."""
        found = []
        for name in sorted(self.definitions):
            clashing = _clashing(self.definitions[name])
            if clashing:
                paths = tuple(definition.source.path for definition in clashing)
                found.append(Conflict(name=name, paths=paths))
        return tuple(found)

    def device(self, name: str) -> LoadedDevice | None:
        """Return the device of that qualified name, or None when it cannot be resolved."""
        found = self.definitions.get(name, ())
        if not found or _clashing(found):
            return None
        return max(found, key=lambda definition: definition.source.priority)

    def names(self) -> tuple[str, ...]:
        """Return the qualified names of all devices that can be resolved, sorted."""
        return tuple(name for name in sorted(self.definitions) if self.device(name) is not None)

    def edits(self, names: Iterable[str]) -> ContainerEdits:
        """Return the edits for devices, in order; a spec's own come once, before its first device.

        Raises:
            UnresolvableError: some of the names cannot be resolved; it names them all.
        """
        edits = ContainerEdits()
        missing: list[str] = []
        seen: set[int] = set()
        for name in names:
            found = self.device(name)
            if found is None:
                missing.append(name)
                continue
            if id(found.source) not in seen:
                seen.add(id(found.source))
                edits += found.source.spec.container_edits
            edits += found.device.container_edits
        if missing:
            raise UnresolvableError(missing, [why for name in missing if (why := self._why(name))])
        return edits

    def inject(
        self,
        oci: Mapping[str, object],
        names: Iterable[str],
        *,
        nodes: NodeLookup | None = None,
    ) -> dict[str, object]:
        """Return a copy of an OCI runtime spec with the named devices injected; idempotent.

        ``nodes`` answers for host device nodes that a spec does not fully describe; without it the
        host's own file system does.

        Raises:
            UnresolvableError: some of the names cannot be resolved.
            InjectionError: a device node is missing on the host, or of another type there.
            InvalidOciError: a field of the runtime spec has a wrong type.
        """
        edits = self.edits(names)
        return apply_edits(oci, edits, nodes=HostNodes() if nodes is None else nodes)

    def _why(self, name: str) -> str:
        clashing = _clashing(self.definitions.get(name, ()))
        if not clashing:
            return ""
        paths = " and ".join(str(definition.source.path) for definition in clashing)
        return f"{paths} define {name} with one priority; keep one of them"


def spec_paths(directory: Path) -> tuple[Path, ...]:
    """Return the files of one directory that runtimes read as specs, by name.

    Raises:
        OSError: the directory exists and cannot be read.
    """
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return ()
    return tuple(
        entry
        for entry in entries
        if entry.name.endswith(SUFFIXES) and (entry.is_symlink() or not entry.is_dir())
    )


def _clashing(definitions: Iterable[LoadedDevice]) -> tuple[LoadedDevice, ...]:
    """Return the definitions that share their priority with another one."""
    counts: dict[int, int] = {}
    definitions = tuple(definitions)
    for definition in definitions:
        priority = definition.source.priority
        counts[priority] = counts.get(priority, 0) + 1
    return tuple(definition for definition in definitions if counts[definition.source.priority] > 1)
