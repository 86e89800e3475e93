"""Which directories the processes of a machine use, as far as ``/proc`` tells.

Owns reading mounts, open files and memory maps of other processes. Leaves out what follows.

    seen = used_names(Path("/proc"), Path("/srv/models"), re.compile("sha256-[0-9a-f]{64}"))
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class _Mount:
    """A line of ``mountinfo`` (proc_pid_mountinfo(5)); ``root`` is a path in its file system."""

    device: str
    root: str
    point: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What was found."""

    names: frozenset[str]
    """Those that occur in the path of a mount, an open file or a mapped one."""
    whole: bool
    """Whether another mount namespace has the whole directory, so that any name may be in use."""


def used_names(proc: Path, directory: Path, pattern: re.Pattern[str]) -> Used:
    """Look for names that match a pattern in what other processes use.

    ``proc`` is where procfs is mounted; only the processes of its PID namespace are seen.
    ``directory`` holds the names, directly, as this process sees it.
    """
    mine = _read_link(proc / "self")
    device, inside = _place_of(proc, directory)
    own_namespace = _read_link(proc / mine / "ns/mnt")
    names: set[str] = set()
    whole = False
    seen: set[str] = set()
    for process in _processes(proc):
        if process.name == mine:
            continue
        namespace = _read_link(process / "ns/mnt")
        if namespace not in seen:
            seen.add(namespace)
            for mount in _mounts(process):
                names.update(pattern.findall(mount.root))
                if namespace != own_namespace and mount.device == device:
                    whole = whole or mount.root in {inside, inside.rpartition("/")[0]}
        for text in _open_paths(process):
            names.update(pattern.findall(text))
    return Used(names=frozenset(names), whole=whole)


def _place_of(proc: Path, directory: Path) -> tuple[str, str]:
    """Return the device of a directory and its path in that file system."""
    path = os.path.realpath(directory)
    best = _Mount("", "", "")
    for mount in _mounts(proc / "self"):
        inside = mount.point in {"/", path} or path.startswith(f"{mount.point}/")
        if inside and len(mount.point) >= len(best.point):
            best = mount
    below = path[len(best.point.rstrip("/")) :]
    return best.device, best.root.rstrip("/") + below


def _processes(proc: Path) -> Iterator[Path]:
    with os.scandir(proc) as entries:
        yield from [Path(entry.path) for entry in entries if entry.name.isdigit()]


def _mounts(process: Path) -> list[_Mount]:
    found = []
    with suppress(OSError):  # it has ended
        for line in (process / "mountinfo").read_text(errors="replace").splitlines():
            fields = line.split()
            found.append(_Mount(fields[2], _unescape(fields[3]), _unescape(fields[4])))
    return found


def _open_paths(process: Path) -> Iterator[str]:
    """Yield the paths of open files and the lines of memory maps: a mapped file may be closed."""
    with suppress(OSError):
        for name in os.listdir(process / "fd"):
            yield _read_link(process / "fd" / name)
    for link in ("cwd", "root"):
        yield _read_link(process / link)
    with suppress(OSError):
        yield (process / "maps").read_text(errors="replace")


def _read_link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
