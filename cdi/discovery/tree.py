"""A machine as a tree of files: ``/`` itself, a mounted host, or a recorded tree.

Owns reading under a root without ever leaving it, and the device nodes: in a tree with a file
``dev.nodes`` at its root the nodes are the lines of that file, in any other tree they are what
lstat(2) says. Leaves out what the files mean.

A line of ``dev.nodes`` is ``PATH TYPE MAJOR:MINOR MODE UID:GID``, for example
``/dev/nvidia0 c 195:0 0666 0:0``; empty lines and lines that start with ``#`` are skipped.

Absolute symbolic links are followed within the tree, as chroot(2) would.

>>> Tree(Path("/nowhere")).read("/sys/module/nvidia/version") is None
True
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from cdi.errors import CdiError
from cdi.inventory import Node, NodeType
from cdi.inventory_reader import MAX_MAJOR, MAX_MINOR
from cdi.nodes import NodeFacts

NODES_FILE = "dev.nodes"
# The longest file that discovery reads is the linker's cache, a few hundred KiB on large systems.
MAX_READ_BYTES = 16 << 20
# Linux gives up after 40 links on one path (MAXSYMLINKS).
_MAX_LINKS = 40

_LINE = re.compile(
    r"(?P<path>/\S+)\s+(?P<type>[bc])\s+(?P<major>\d{1,4}):(?P<minor>\d{1,7})\s+"
    r"(?P<mode>[0-7]{3,4})\s+(?P<uid>\d{1,10}):(?P<gid>\d{1,10})",
    re.ASCII,
)
_DIGITS = re.compile(r"(\d+)")


class TreeError(CdiError):
    """A recorded tree is not as this module describes it."""

    exit_code = 5


def natural(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts ``nvidia10`` after ``nvidia9``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in _DIGITS.split(name) if part]


def parse_node_line(line: str) -> tuple[str, Node]:
    """Read one line of ``dev.nodes``; returns the path and the node.

    Raises:
        TreeError: the line is malformed or a number is out of range.
    """
    found = _LINE.fullmatch(line.strip())
    if found is None:
        raise TreeError(f"{line.strip()[:80]!r} is not a line PATH TYPE MAJOR:MINOR MODE UID:GID")
    major, minor = int(found["major"]), int(found["minor"])
    if major > MAX_MAJOR or minor > MAX_MINOR:
        raise TreeError(f"{found['path']} has numbers that no Linux device has")
    node = Node(
        path=found["path"],
        type=NodeType(found["type"]),
        major=major,
        minor=minor,
        mode=int(found["mode"], 8),
        uid=int(found["uid"]),
        gid=int(found["gid"]),
    )
    return node.path, node


def format_node_line(node: Node) -> str:
    """Return a node as a line of ``dev.nodes``, without a line end."""
    return (
        f"{node.path} {node.type.value} {node.major}:{node.minor} "
        f"{node.mode or 0:04o} {node.uid or 0}:{node.gid or 0}"
    )


class Tree:
    """Read a machine's files by their absolute paths, which the root is put in front of.

    What is not there, not readable or not of the right type reads as None or as empty: a machine
    lacks most of the files that discovery asks for.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def is_live(self) -> bool:
        """Tell whether this is the running machine itself."""
        return self.root.resolve() == Path("/")

    @cached_property
    def _listed(self) -> Mapping[str, Node] | None:
        """Return the nodes of ``dev.nodes``, or None in a tree without that file."""
        try:
            text = (self.root / NODES_FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise TreeError(f"{self.root / NODES_FILE}: {error}") from error
        lines = (line for line in text.splitlines() if line.strip() and line.strip()[0] != "#")
        try:
            return dict(parse_node_line(line) for line in lines)
        except TreeError as error:
            raise TreeError(f"{self.root / NODES_FILE}: {error}") from error

    def resolve(self, path: str) -> str | None:
        """Return the canonical path of an existing file, links followed within the tree."""
        if "\0" in path:
            return None
        done = ""
        left = [part for part in path.split("/") if part not in ("", ".")]
        links = 0
        while left:
            part = left.pop(0)
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            step = f"{done}/{part}"
            target = self._readlink(step)
            if target is None:
                done = step
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            left = [name for name in target.split("/") if name not in ("", ".")] + left
            done = "" if target.startswith("/") else done
        return (done or "/") if self._lexists(done) else None

    def _host(self, path: str) -> str:
        return f"{str(self.root).rstrip('/')}{path}"

    def _readlink(self, path: str) -> str | None:
        try:
            return os.readlink(self._host(path))
        except OSError:
            return None

    def _lexists(self, path: str) -> bool:
        return os.path.lexists(self._host(path)) or path in (self._listed or {})

    def read_bytes(self, path: str, limit: int = MAX_READ_BYTES) -> bytes | None:
        """Return at most ``limit`` bytes of a regular file."""
        found = self.resolve(path)
        if found is None:
            return None
        try:
            # Never a FIFO or a device: opening one may block or act on hardware.
            if not stat.S_ISREG(os.stat(self._host(found), follow_symlinks=False).st_mode):
                return None
            with open(self._host(found), "rb") as file:
                return file.read(limit)
        except OSError:
            return None

    def read(self, path: str) -> str | None:
        """Return the text of a file without white space at its ends."""
        data = self.read_bytes(path)
        return None if data is None else data.decode("utf-8", "replace").strip()

    def names(self, directory: str, pattern: str = ".*") -> tuple[str, ...]:
        """Return the names in a directory that a regular expression matches whole, sorted."""
        found = self.resolve(directory)
        names: set[str] = set()
        if found is not None:
            try:
                names.update(os.listdir(self._host(found)))
            except OSError:
                names = set()
        prefix = (found or directory).rstrip("/") + "/"
        for path in self._listed or {}:
            if path.startswith(prefix):
                names.add(path.removeprefix(prefix).partition("/")[0])
        return tuple(sorted((name for name in names if re.fullmatch(pattern, name)), key=natural))

    def link(self, path: str) -> str | None:
        """Return the text of a symbolic link whose own directory is resolved first."""
        parent, _, name = path.rpartition("/")
        found = self.resolve(parent or "/")
        return None if found is None else self._readlink(f"{found.rstrip('/')}/{name}")

    def _mode(self, path: str) -> int:
        found = self.resolve(path)
        if found is None:
            return 0
        try:
            return os.stat(self._host(found), follow_symlinks=False).st_mode
        except OSError:
            return 0

    def exists(self, path: str) -> bool:
        """Tell whether a path leads to anything: a file, a directory, a socket or a node."""
        return self.resolve(path) is not None

    def is_file(self, path: str) -> bool:
        """Tell whether a path leads to a regular file."""
        return stat.S_ISREG(self._mode(path))

    def is_program(self, path: str) -> bool:
        """Tell whether a path leads to a regular file that someone may execute."""
        mode = self._mode(path)
        return stat.S_ISREG(mode) and bool(mode & 0o111)

    def node(self, path: str) -> Node | None:
        """Return the device node at a path, under that path; None where there is none."""
        found = self.resolve(path)
        if found is None:
            return None
        if self._listed is not None:
            listed = self._listed.get(found)
            return None if listed is None else replace(listed, path=path)
        try:
            status = os.stat(self._host(found), follow_symlinks=False)
        except OSError:
            return None
        return _node(path, status)

    def lookup(self, path: str) -> NodeFacts | None:
        """Return a node's facts: a tree answers injection and lint as the machine itself would."""
        node = self.node(path)
        if node is None or node.major is None:
            return None
        return NodeFacts(
            type=node.type.value,
            major=node.major,
            minor=node.minor or 0,
            file_mode=node.mode or 0,
            uid=node.uid or 0,
            gid=node.gid or 0,
        )

    def nodes(self, directory: str, pattern: str) -> Iterator[tuple[re.Match[str], Node]]:
        """Yield the device nodes of a directory whose names match whole, in natural order."""
        for name in self.names(directory, pattern):
            node = self.node(f"{directory.rstrip('/')}/{name}")
            found = re.fullmatch(pattern, name)
            if node is not None and found is not None:
                yield found, node


def _node(path: str, status: os.stat_result) -> Node | None:
    if stat.S_ISCHR(status.st_mode):
        kind = NodeType.CHARACTER
    elif stat.S_ISBLK(status.st_mode):
        kind = NodeType.BLOCK
    else:
        return None
    return Node(
        path=path,
        type=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )
