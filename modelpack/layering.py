"""Which files share a layer, and where each file's bytes lie in it.

Owns the plan from a file list to layers; pure. Leaves out reading the files.

The order is: large files by path, each in a layer of its own; then one layer with all small files;
the metadata layer, which is not planned here, follows. Large files come first because a layer's
identity in a snapshotter covers the layers below it: an edited README then leaves every weight
snapshot as it was.

    >>> files = [SourceFile(path="a.txt", size=3, mode=0o644)]
    >>> [layer.size for layer in plan_layers(files)]
    [2048]
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from modelpack import tarformat
from modelpack.paths import check_paths, parent_of

# containerd mounts 300 layers and fails at 520, Docker stops at about 125; one is the metadata
# layer.
MAX_LAYERS = 100
MAX_DATA_LAYERS = MAX_LAYERS - 1
# A file from this size on gets a layer of its own: the size of a chunk, below which a request of
# its own costs more than it saves.
LARGE_FILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file as it will appear in the artifact."""

    path: str
    size: int
    mode: int
    """0o644 or 0o755."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedFile:
    """A file and the offset of its first byte in its layer's tar."""

    file: SourceFile
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedLayer:
    """One tar: its files in order, and its exact size in bytes."""

    files: tuple[PlacedFile, ...]
    size: int


def plan_layers(files: Iterable[SourceFile]) -> tuple[PlannedLayer, ...]:
    """Assign every file to a layer, deterministically.

    Raises:
        FormatError: a path is not allowed or two collide.
    """
    ordered = sorted(files, key=lambda file: file.path.encode())
    check_paths(file.path for file in ordered)
    large = [file for file in ordered if file.size >= LARGE_FILE_BYTES]
    small = [file for file in ordered if file.size < LARGE_FILE_BYTES]
    groups = _share(large, MAX_DATA_LAYERS - bool(small))
    if small:
        groups.append(small)
    return tuple(place(group) for group in groups)


def place(files: Sequence[SourceFile]) -> PlannedLayer:
    """Lay files out in one tar, in the order given, each new parent directory before it."""
    placed = []
    offset = 0
    for frame, file in frames(files):
        offset += len(frame)
        if file is not None:
            placed.append(PlacedFile(file=file, offset=offset))
            offset += file.size
    return PlannedLayer(files=tuple(placed), size=offset)


def frames(files: Sequence[SourceFile]) -> Iterator[tuple[bytes, SourceFile | None]]:
    """Yield the tar as (framing bytes, the file whose content follows them).

    The framing before a file holds the previous file's padding, the entries of directories that
    are new in this layer, and the file's own header. The last pair has no file.
    """
    directories: set[str] = set()
    pad = 0
    for file in files:
        new = []
        directory = parent_of(file.path)
        while directory and directory not in directories:
            directories.add(directory)
            new.append(directory)
            directory = parent_of(directory)
        headers = [tarformat.directory_header(name) for name in reversed(new)]
        headers.append(tarformat.file_header(file.path, size=file.size, mode=file.mode))
        yield bytes(pad) + b"".join(headers), file
        pad = tarformat.padding(file.size)
    yield bytes(pad) + tarformat.END_OF_ARCHIVE, None


def _share(large: list[SourceFile], layers: int) -> list[list[SourceFile]]:
    """Split files into at most ``layers`` runs of neighbours, as even in number as can be."""
    count = min(len(large), layers)
    groups = []
    for number in range(count):
        start = number * len(large) // count
        end = (number + 1) * len(large) // count
        groups.append(large[start:end])
    return groups
