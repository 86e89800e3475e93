"""What a comparison found, and its JSON.

Owns the values. Leaves out finding them and drawing them.
"""

from dataclasses import dataclass
from typing import Any

from modelpack.chunkindex import ChunkIndex, IndexedFile
from modelpack.tensors import Tensor

ADDED = "added"
REMOVED = "removed"
CHANGED = "changed"
RENAMED = "renamed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One side of a comparison: an index, and which of its files count."""

    name: str
    """The reference or directory, as the user wrote it."""
    kind: str
    """``artifact``, ``pulled`` or ``plain`` (a directory that is hashed for the comparison)."""
    digest: str | None
    """The manifest's."""
    index: ChunkIndex
    numbers: tuple[int, ...]
    """Of the files that count: all of an artifact's, those in place in a directory."""
    index_bytes: int
    """What a pull fetches before any chunk: the manifest and the metadata layer."""

    @property
    def files(self) -> tuple[IndexedFile, ...]:
        """The files that count."""
        return tuple(self.index.files[number] for number in self.numbers)

    @property
    def bytes(self) -> int:
        """The sum of their sizes."""
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return the side as a JSON object."""
        return {
            "name": self.name,
            "kind": self.kind,
            "digest": self.digest,
            "files": len(self.numbers),
            "bytes": self.bytes,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorChange:
    """A tensor that both files have and that is not the same in both."""

    before: Tensor
    after: Tensor
    changed_bytes: int
    """Of ``after``: the bytes in chunks that the other side lacks at this place, an upper bound."""

    def to_json(self) -> dict[str, Any]:
        """Return the change as a JSON object."""
        return {
            "name": self.after.name,
            "dtype": self.after.dtype,
            "previous_dtype": self.before.dtype,
            "shape": list(self.after.shape),
            "previous_shape": list(self.before.shape),
            "bytes": self.after.length,
            "previous_bytes": self.before.length,
            "changed_bytes": self.changed_bytes,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorChanges:
    """How the tensors of two versions of one file differ."""

    added: tuple[Tensor, ...]
    removed: tuple[Tensor, ...]
    changed: tuple[TensorChange, ...]
    undecided: tuple[Tensor, ...]
    """Small tensors that share a chunk with a change; they may have changed or not."""
    unchanged: int

    def to_json(self) -> dict[str, Any]:
        """Return the changes as a JSON object."""
        return {
            "added": [_tensor_to_json(tensor) for tensor in self.added],
            "removed": [_tensor_to_json(tensor) for tensor in self.removed],
            "changed": [change.to_json() for change in self.changed],
            "undecided": [_tensor_to_json(tensor) for tensor in self.undecided],
            "unchanged": self.unchanged,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class FileChange:
    """A file that is not the same on both sides."""

    kind: str
    """``added``, ``removed``, ``changed`` or ``renamed``."""
    before: IndexedFile | None
    after: IndexedFile | None
    fetched_bytes: int = 0
    """What a pull would fetch of it."""
    reused_bytes: int = 0
    """What a pull would take from the first side."""
    tensors: TensorChanges | None = None
    """Of a changed file, if both versions hold tensors."""

    @property
    def path(self) -> str:
        """The file's path, the new one if it was renamed."""
        return self.file.path

    @property
    def file(self) -> IndexedFile:
        """The file on the second side, or on the first if it was removed."""
        file = self.after or self.before
        assert file is not None
        return file

    @property
    def content_changed(self) -> bool:
        """Whether both sides have the file with other bytes, not only another name or mode."""
        return bool(self.before and self.after and self.before.blake3 != self.after.blake3)

    def to_json(self) -> dict[str, Any]:
        """Return the change as a JSON object; what does not apply is null."""
        before, after = self.before, self.after
        return {
            "path": self.path,
            "previous_path": before.path if before else None,
            "size": after.size if after else None,
            "previous_size": before.size if before else None,
            "mode": f"{after.mode:04o}" if after else None,
            "previous_mode": f"{before.mode:04o}" if before else None,
            "blake3": after.blake3.hex() if after else None,
            "previous_blake3": before.blake3.hex() if before else None,
            "fetched_bytes": self.fetched_bytes,
            "reused_bytes": self.reused_bytes,
            "tensors": self.tensors.to_json() if self.tensors else None,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class PullEstimate:
    """What a pull of the second side moves where the first is."""

    bytes: int
    """Of the second side's files."""
    reused_bytes: int
    """Of them, what does not have to be fetched."""
    chunk_bytes: int
    """Of them, what has to be."""
    index_bytes: int
    """Manifest and metadata layer."""
    bridged_bytes: int
    """Read between the chunks and thrown away, which is cheaper than another request."""
    requests: int
    """Ranges to ask for."""

    @property
    def fetched_bytes(self) -> int:
        """Everything off the wire, as ``pull`` counts it."""
        return self.chunk_bytes + self.index_bytes + self.bridged_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as a JSON object."""
        return {
            "bytes": self.bytes,
            "fetched_bytes": self.fetched_bytes,
            "reused_bytes": self.reused_bytes,
            "chunk_bytes": self.chunk_bytes,
            "index_bytes": self.index_bytes,
            "bridged_bytes": self.bridged_bytes,
            "requests": self.requests,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How version ``b`` differs from version ``a``."""

    a: Version
    b: Version
    files: tuple[FileChange, ...]
    """By path; unchanged files are only counted."""
    unchanged: int
    pull: PullEstimate
    warnings: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether the files are the same, byte for byte, under the same names and modes."""
        return not self.files

    def of_kind(self, kind: str) -> tuple[FileChange, ...]:
        """Return the changes of one kind."""
        return tuple(change for change in self.files if change.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Return the difference as a JSON object."""
        return {
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "identical": self.identical,
            "files": {
                **{
                    kind: [change.to_json() for change in self.of_kind(kind)]
                    for kind in (ADDED, REMOVED, CHANGED, RENAMED)
                },
                "unchanged": self.unchanged,
            },
            "pull": self.pull.to_json(),
            "warnings": list(self.warnings),
        }


def _tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "bytes": tensor.length,
    }
