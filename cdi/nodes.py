"""What a device node on a host is: its type, numbers and mode, behind a small protocol.

Owns the protocol and its two implementations, the host's own file system (under any root) and a
table. Leaves out who asks: injection (:mod:`cdi.edits`) and lint (:mod:`cdi.lint`).

>>> nodes = RecordedNodes({"/dev/null": NodeFacts(type="c", major=1, minor=3, file_mode=0o666)})
>>> nodes.lookup("/dev/null").major, nodes.lookup("/dev/nvidia0")
(1, None)
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

# Linux gives up after as many links, too.
_MAX_LINKS = 40
_TYPES = {stat.S_IFBLK: "b", stat.S_IFCHR: "c", stat.S_IFIFO: "p"}


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeFacts:
    """A device node as lstat(2) sees it; ``type`` is b, c or p, ``file_mode`` its mode bits."""

    type: str
    major: int
    minor: int
    file_mode: int
    uid: int = 0
    gid: int = 0


class NodeLookup(Protocol):
    """Answers what device node lies at a path of the host."""

    def lookup(self, path: str) -> NodeFacts | None:
        """Return the facts, or None when there is nothing or no device node at ``path``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class HostNodes:
    """Looks device nodes up in the file system, below ``root``; a link is not followed."""

    root: Path = field(default=Path("/"))

    def lookup(self, path: str) -> NodeFacts | None:
        """Return the facts, or None when there is nothing or no device node at ``path``."""
        try:
            found = os.lstat(under(self.root, path))
        except (OSError, ValueError):  # ValueError: the path holds a NUL
            return None
        kind = _TYPES.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return None
        return NodeFacts(
            type=kind,
            major=os.major(found.st_rdev),
            minor=os.minor(found.st_rdev),
            file_mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
        )


@dataclass(frozen=True, slots=True)
class RecordedNodes:
    """Looks device nodes up in a table from path to facts, as recorded on some machine."""

    table: Mapping[str, NodeFacts]

    def lookup(self, path: str) -> NodeFacts | None:
        """Return the facts, or None when the table has no such path."""
        return self.table.get(path)


def under(root: Path, path: str) -> Path:
    """Return where a host's absolute path lies when the host's tree is at ``root``.

    Links on the way are followed as the host itself would, so that an absolute one, or ``..``, does
    not lead out of ``root``; a link at the end is not followed. The path need not exist.
    """
    if root == Path("/"):
        return root / path.lstrip("/")
    todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        here = root.joinpath(*done, part)
        if not todo or not os.path.islink(here):
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            return here
        target = os.readlink(here)
        if target.startswith("/"):
            done.clear()
        todo += [step for step in target.split("/") if step not in ("", ".")][::-1]
    return root.joinpath(*done)
