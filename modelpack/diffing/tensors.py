"""Which tensors differ between two versions of a file, by chunk hashes; pure.

Owns the rule: a tensor's bytes are the same where both files have the same chunk at the same place
relative to the tensor. Chunks are anchored at tensors (``chunking.py``), so a tensor that moved, or
whose header grew, still matches. Small tensors share chunks with their neighbours; when such a
chunk differs, the hash cannot say which of them changed, and a callable that can is asked.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from modelpack.chunkindex import ChunkIndex, IndexedFile
from modelpack.diffing.report import TensorChange, TensorChanges
from modelpack.tensors import Tensor, TensorFile

Settle = Callable[[int, int, int], bool | None]
"""``settle(before_offset, after_offset, length)``: whether these bytes of the two files are equal,
None if that is too expensive to find out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSide:
    """One version of a tensor file: its header and its chunks."""

    header: TensorFile
    index: ChunkIndex
    file: IndexedFile

    def chunk_from(self, offset: int) -> int | None:
        """Return the number of the chunk that starts at ``offset``, None if none does."""
        chunks = self.file.chunks
        found = bisect_left(self.index.offsets, offset, chunks.start, chunks.stop)
        return found if found < chunks.stop and self.index.offsets[found] == offset else None

    def chunks_of(self, tensor: Tensor) -> range:
        """Return the numbers of the chunks that hold any of a tensor's bytes."""
        chunks, offsets = self.file.chunks, self.index.offsets
        first = bisect_right(offsets, tensor.offset, chunks.start, chunks.stop) - 1
        end = bisect_left(offsets, tensor.offset + tensor.length, chunks.start, chunks.stop)
        return range(first, end)


def compare_tensors(before: TensorSide, after: TensorSide, settle: Settle) -> TensorChanges:
    """Return how the tensors differ; names are what tensors are matched by.

    A tensor is unchanged only if its dtype, shape and every byte are the same.
    """
    old = {tensor.name: tensor for tensor in before.header.tensors}
    names = {tensor.name for tensor in after.header.tensors}
    changed: list[TensorChange] = []
    undecided: list[Tensor] = []
    unchanged = 0
    comparison = _Comparison(before, after, settle)
    for tensor in after.header.tensors:
        previous = old.get(tensor.name)
        if previous is None:
            continue
        different, unknown = comparison.changed_bytes(previous, tensor)
        same_kind = (tensor.dtype, tensor.shape) == (previous.dtype, previous.shape)
        if different or not same_kind:
            changed.append(
                TensorChange(before=previous, after=tensor, changed_bytes=different + unknown)
            )
        elif unknown:
            undecided.append(tensor)
        else:
            unchanged += 1
    return TensorChanges(
        added=tuple(tensor for tensor in after.header.tensors if tensor.name not in old),
        removed=tuple(tensor for tensor in before.header.tensors if tensor.name not in names),
        changed=tuple(changed),
        undecided=tuple(undecided),
        unchanged=unchanged,
    )


class _Comparison:
    """Two versions of a file, and whom to ask where hashes do not decide."""

    def __init__(self, before: TensorSide, after: TensorSide, settle: Settle) -> None:
        self._before = before
        self._after = after
        self._settle = settle

    def changed_bytes(self, old: Tensor, new: Tensor) -> tuple[int, int]:
        """Return how many of ``new``'s bytes are different, and how many may be."""
        if not new.length:
            return 0, 0
        different = unknown = 0
        end = new.offset + new.length
        shift = old.offset - new.offset
        after = self._after.index
        for chunk in self._after.chunks_of(new):
            start = after.offsets[chunk]
            stop = start + after.lengths[chunk]
            verdict = self._verdict(chunk, start + shift, old, new)
            first, last = max(start, new.offset), min(stop, end)
            if verdict is None and last + shift <= old.offset + old.length:
                verdict = self._settle(first + shift, first, last - first)
            elif verdict is None:
                verdict = False  # beyond the old tensor's end
            if verdict is None:
                unknown += last - first
            elif not verdict:
                different += last - first
        return different, unknown

    def _verdict(self, chunk: int, old_start: int, old: Tensor, new: Tensor) -> bool | None:
        """Compare a chunk with the other side's at ``old_start``; None if hashes do not decide."""
        after, before = self._after.index, self._before.index
        other = self._before.chunk_from(old_start)
        if other is None or after.lengths[chunk] != before.lengths[other]:
            return None
        if after.hash_of(chunk) == before.hash_of(other):
            return True
        inside = _is_inside(after.offsets[chunk], after.lengths[chunk], new)
        return False if inside and _is_inside(old_start, before.lengths[other], old) else None


def _is_inside(start: int, length: int, tensor: Tensor) -> bool:
    """Tell whether a chunk holds no bytes but the tensor's: no neighbour, no padding."""
    return tensor.offset <= start and start + length <= tensor.offset + tensor.length
