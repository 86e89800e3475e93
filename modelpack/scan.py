"""What is in a model directory, and which of it may be packed.

Owns walking, symlinks and file types. Leaves out reading contents.

A symlink stands for the file it points at when that lies inside the directory or, in a Hugging
Face cache (``models--ORG--NAME/snapshots/REV/``), inside that model's own ``blobs/``. Any other
link, a link to a directory, and anything that is neither file nor directory is refused: a packed
file must not be able to come from elsewhere.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelpack.errors import FormatError, NotFoundError, UsageError
from modelpack.paths import (
    LOST_AND_FOUND,
    MAX_PATH_PARTS,
    METADATA_DIR,
    SIGNATURE_NAME,
    check_path,
    check_paths,
)
from modelpack.selection import Selection
from modelpack.stores.files import mapped_errors

# Version control and download bookkeeping, which belong to the working copy and not the model; a
# signature, which is over other files than these as soon as one of them changes; and what a file
# system keeps for itself at its root, readable by root alone.
SKIPPED_TOP_LEVEL = frozenset({METADATA_DIR, ".git", SIGNATURE_NAME, LOST_AND_FOUND})
SKIPPED_PATHS = frozenset({".cache/huggingface"})
_EXECUTABLE = 0o755
_PLAIN = 0o644


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedFile:
    """A file to pack."""

    path: str
    """In the artifact."""
    source: Path
    """On disk, with links resolved."""
    size: int
    mode: int
    """0o755 when its owner may execute it, else 0o644."""
    identity: tuple[int, int, int, int, int]
    """(device, inode, size, mtime_ns, ctime_ns): changes whenever the bytes may have changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """A directory's files by path, and the directories that were passed over."""

    files: tuple[ScannedFile, ...]
    skipped: tuple[str, ...]


def scan_directory(
    directory: Path, *, selection: Selection | None = None, prefix: str = ""
) -> Scan:
    """List the files to pack, sorted by path, each path under ``prefix``.

    Raises:
        NotFoundError: there is no such directory, or nothing in it to pack.
        UsageError: it is not a directory.
        FormatError: something in it cannot be packed; the message holds its path.
        ModelpackError: something in it may not be read.
    """
    with mapped_errors(f"cannot read {directory}"):
        if not directory.exists():
            raise NotFoundError(f"{directory} does not exist")
        if not directory.is_dir():
            raise UsageError(f"{directory} is not a directory; push takes a model directory")
    root = Path(os.path.realpath(directory))
    allowed = _allowed_targets(root)
    selected = selection or Selection()
    lead = _lead(prefix)
    files = []
    skipped: list[str] = []
    for path, entry in _walk(root, "", skipped):
        if not selected.takes(path):
            continue
        try:
            check_path(lead + path)
        except FormatError as error:
            raise FormatError(f"{error}; rename it, or leave it out with --exclude") from error
        with mapped_errors(f"{entry.path} cannot be read"):
            source = Path(_link_target(entry, allowed) if entry.is_symlink() else entry.path)
            status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{entry.path} is {_kind(status.st_mode)}; only files can be packed")
        files.append(
            ScannedFile(
                path=lead + path,
                source=source,
                size=status.st_size,
                mode=_EXECUTABLE if status.st_mode & stat.S_IXUSR else _PLAIN,
                identity=identity_of(status),
            )
        )
    if not files:
        chosen = "" if selected.is_everything else " that matches --include and --exclude"
        raise NotFoundError(f"{directory} holds no file to pack{chosen}")
    files.sort(key=lambda file: file.path.encode())
    return Scan(files=tuple(files), skipped=tuple(skipped))


def _lead(prefix: str) -> str:
    directory = prefix.removesuffix("/")
    if not directory:
        return ""
    try:
        check_paths([f"{directory}/x"])
    except FormatError as error:
        raise UsageError(f"--prefix {prefix!r:.100}: {error}") from error
    return f"{directory}/"


def identity_of(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """Return what changes whenever a file's bytes may have changed."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _walk(
    directory: Path, relative: str, skipped: list[str]
) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    with mapped_errors(f"{directory} cannot be read"), os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = f"{relative}/{entry.name}" if relative else entry.name
        if path in SKIPPED_PATHS or (not relative and entry.name in SKIPPED_TOP_LEVEL):
            skipped.append(path)
        elif entry.is_dir(follow_symlinks=False):
            if path.count("/") + 1 >= MAX_PATH_PARTS:
                raise FormatError(f"{entry.path[:200]!r}... is nested too deep to be packed")
            yield from _walk(Path(entry.path), path, skipped)
        else:
            yield path, entry


def _allowed_targets(root: Path) -> tuple[Path, ...]:
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        return root, root.parent.parent / "blobs"
    return (root,)


def _link_target(entry: "os.DirEntry[str]", allowed: tuple[Path, ...]) -> Path:
    target = Path(os.path.realpath(entry.path))
    if not any(target.is_relative_to(place) for place in allowed):
        raise FormatError(
            f"{entry.path} is a symlink to {os.readlink(entry.path)!r}, outside the directory; "
            "copy the file in its place"
        )
    if not target.exists():
        raise FormatError(f"{entry.path} is a symlink to nothing ({os.readlink(entry.path)!r})")
    if target.is_dir():
        raise FormatError(f"{entry.path} is a symlink to a directory; copy it in its place")
    return target


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFSOCK: "a socket",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")
