"""Build a machine's tree under a directory from a compact description."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cdi.discovery.tree import NODES_FILE


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Files by path with their text, empty files and programs, links, and lines of dev.nodes."""

    files: Mapping[str, str] = field(default_factory=dict)
    empty: Iterable[str] = ()
    programs: Iterable[str] = ()
    directories: Iterable[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    nodes: Iterable[str] = ()

    def __or__(self, other):
        """Return both machines in one."""
        return Machine(
            files={**self.files, **other.files},
            empty=(*self.empty, *other.empty),
            programs=(*self.programs, *other.programs),
            directories=(*self.directories, *other.directories),
            links={**self.links, **other.links},
            nodes=(*self.nodes, *other.nodes),
        )


def build(root: Path, machine: Machine) -> Path:
    """Write the tree and return its root."""
    root.mkdir(parents=True, exist_ok=True)

    def place(path):
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    for path, text in machine.files.items():
        place(path).write_text(text)
    for path in machine.empty:
        place(path).write_bytes(b"")
    for path in machine.programs:
        place(path).write_bytes(b"")
        place(path).chmod(0o755)
    for path in machine.directories:
        place(path).mkdir(parents=True, exist_ok=True)
    for path, target in machine.links.items():
        place(path).symlink_to(target)
    (root / NODES_FILE).write_text(
        "# a recorded machine\n" + "".join(f"{n}\n" for n in machine.nodes)
    )
    return root


def pci(address, vendor, device, class_, *, driver="", numa=0, drm=(), extra=None):
    """Describe one PCI function with its DRM children."""
    path = f"/sys/bus/pci/devices/{address}"
    files = {
        f"{path}/vendor": f"{vendor}\n",
        f"{path}/device": f"{device}\n",
        f"{path}/class": f"{class_}\n",
        f"{path}/numa_node": f"{numa}\n",
        **{f"{path}/{name}": f"{text}\n" for name, text in (extra or {}).items()},
    }
    links = {f"{path}/driver": f"../../../bus/pci/drivers/{driver}"} if driver else {}
    return Machine(files=files, links=links, directories=[f"{path}/drm/{name}" for name in drm])


def together(*machines):
    """Return several machines in one."""
    total = Machine()
    for machine in machines:
        total |= machine
    return total
