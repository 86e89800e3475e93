"""Record a machine: copy what discovery looks at, so that the copy is discovered as the machine is.

Owns the choice of what is copied (the names, links, attributes and device nodes that the vendor
modules ask for, and no more) and the removal of what identifies a machine. Leaves out the contents
of libraries and programs, which become empty files, and the linker's cache, which lists everything
that is installed.

>>> scrub = Scrubber()
>>> scrub(b"GPU UUID: GPU-6d1c2f30-8a4e-9d6b-1c57-2f0e9a7b3c41")
b'GPU UUID: GPU-00000000-0000-0000-0000-000000000001'
"""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from cdi.discovery.tree import NODES_FILE, Tree, format_node_line
from cdi.errors import CdiUsageError

# Attributes and lists; a longer file is no fact about hardware.
_MAX_COPY_BYTES = 1 << 20
_NEVER_COPIED = frozenset({"/etc/ld.so.cache"})


class Scrubber:
    """Replace what identifies a machine by numbers, the same one each time it is met."""

    _UUID = re.compile(rb"(GPU-|MIG-)([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
    _NUMBER = re.compile(rb"(unique_id )([1-9][0-9]*)")

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}

    def __call__(self, data: bytes) -> bytes:
        """Return the data with each UUID and unique id replaced."""
        return self._NUMBER.sub(self._number, self._UUID.sub(self._uuid, data))

    def _place(self, name: bytes) -> int:
        return self._known.setdefault(name, len(self._known) + 1)

    def _uuid(self, match: re.Match[bytes]) -> bytes:
        return match[1] + f"00000000-0000-0000-0000-{self._place(match[2]):012x}".encode()

    def _number(self, match: re.Match[bytes]) -> bytes:
        return match[1] + str(self._place(match[2])).encode()


class RecordingTree(Tree):
    """A tree that remembers what was looked at; it answers as the tree itself does."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._seen: dict[str, None] = {}
        self._read: dict[str, bytes] = {}

    def resolve(self, path: str) -> str | None:
        """Resolve a path, and remember what it leads to."""
        found = super().resolve(path)
        if found is not None:
            self._seen[found] = None
        return found

    def _readlink(self, path: str) -> str | None:
        target = super()._readlink(path)
        if target is not None:
            self._seen[path] = None
        return target

    def names(self, directory: str, pattern: str = ".*") -> tuple[str, ...]:
        """List names, and remember each."""
        found = super().names(directory, pattern)
        place = self.resolve(directory) or directory
        self._seen.update(dict.fromkeys(f"{place.rstrip('/')}/{name}" for name in found))
        return found

    def read_bytes(self, path: str, limit: int = _MAX_COPY_BYTES) -> bytes | None:
        """Read a file, and remember what it held."""
        data = super().read_bytes(path, limit)
        found = self.resolve(path)
        if data is not None and found is not None:
            self._read[found] = data
        return data

    def save(self, target: Path, scrub: Callable[[bytes], bytes]) -> None:
        """Write what was looked at as a tree of its own."""
        lines = []
        for path in sorted(self._seen):
            if path == "/" or path in _NEVER_COPIED:
                continue
            node = self.node(path)
            place = target / path.lstrip("/")
            if self._readlink(path) is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(self._readlink(path) or "")
            elif node is not None:
                lines.append(format_node_line(node))
            else:
                self._save_file(path, place, scrub)
        (target / NODES_FILE).write_text("".join(f"{line}\n" for line in lines))

    def _save_file(self, path: str, place: Path, scrub: Callable[[bytes], bytes]) -> None:
        try:
            mode = os.stat(self._host(path), follow_symlinks=False).st_mode
        except OSError:
            return  # it went away, or only the list of nodes had it
        if stat.S_ISDIR(mode):
            place.mkdir(parents=True, exist_ok=True)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(scrub(self._read.get(path, b"")))
        if mode & 0o111:
            place.chmod(0o755)


def record(
    source: Path,
    target: Path,
    look: Callable[[Tree], object],
    *,
    scrub: Callable[[bytes], bytes] | None = None,
) -> None:
    """Write a recorded tree of ``source`` to ``target``, a directory that is new or empty.

    ``look`` is what looks at the machine, such as every vendor's ``discover``. ``scrub`` cleans the
    contents of files; by default UUIDs and unique ids become numbers.

    Raises:
        CdiUsageError: the target holds something already.
        OSError: the target cannot be written.
    """
    if target.exists() and any(target.iterdir()):
        raise CdiUsageError(f"{target} is not empty; a recorded tree needs a directory of its own")
    tree = RecordingTree(source)
    look(tree)
    target.mkdir(parents=True, exist_ok=True)
    tree.save(target, scrub or Scrubber())
