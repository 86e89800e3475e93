"""Comparing two sides: the pure comparisons, fed with headers and, within bounds, with bytes.

Owns which headers and chunks are read and how many. Leaves out the rules (``files.py``,
``tensors.py``).
"""

import threading
from collections.abc import Iterable
from dataclasses import replace

from modelpack.chunkindex import IndexedFile
from modelpack.diffing.files import compare_files, estimate_pull
from modelpack.diffing.report import Difference, FileChange, TensorChanges
from modelpack.diffing.sides import Side
from modelpack.diffing.tensors import TensorSide, compare_tensors
from modelpack.errors import FormatError
from modelpack.inspecting.headers import may_hold_tensors, read_header
from modelpack.inspecting.indexedfile import IndexedFileReader
from modelpack.parallel import for_each
from modelpack.pulling import plan_connections

# Chunks read to find out which of several small tensors changed, in all files together: the norms
# and biases of a dense model take a few MiB; beyond this the rest is reported as undecided.
MAX_SETTLING_BYTES = 64 * 1024 * 1024
_THREADS = 4


def diff(a: Side, b: Side) -> Difference:
    """Compare two versions: files, tensors, and what a pull of ``b`` moves where ``a`` is.

    Of changed tensor files, the headers are read on both sides, and of chunks in which several
    small tensors share a change at most ``MAX_SETTLING_BYTES``; everything is verified.

    Raises:
        IntegrityError: a header has other bytes than its index says.
    """
    changes, unchanged = compare_files(a.version, b.version)
    estimate, fetched = estimate_pull(a.version, b.version, connections=plan_connections())
    warnings = [*a.warnings, *b.warnings]
    tensors = _compare_tensor_files(a, b, changes, warnings)
    return Difference(
        a=a.version,
        b=b.version,
        files=tuple(
            replace(
                change,
                fetched_bytes=fetched.get(change.path, 0),
                reused_bytes=change.after.size - fetched.get(change.path, 0),
                tensors=tensors.get(change.path),
            )
            if change.after
            else change
            for change in changes
        ),
        unchanged=unchanged,
        pull=estimate,
        warnings=tuple(warnings),
    )


def _compare_tensor_files(
    a: Side, b: Side, changes: Iterable[FileChange], warnings: list[str]
) -> dict[str, TensorChanges]:
    allowance = _Allowance(MAX_SETTLING_BYTES)
    found: dict[str, TensorChanges] = {}
    faults: dict[str, str] = {}

    def compare(pair: tuple[IndexedFile, IndexedFile]) -> None:
        old, new = pair
        try:
            compared = _compare_file(a, old, b, new, allowance)
        except FormatError as error:
            faults[new.path] = f"{new.path!a} {error}; its tensors are not compared"
            return
        if compared is not None:
            found[new.path] = compared

    pairs = [
        (change.before, change.after)
        for change in changes
        if change.before and change.after and change.content_changed
    ]
    for_each(compare, pairs, _THREADS)
    warnings.extend(faults[path] for path in sorted(faults))
    return found


def _compare_file(
    a: Side, old: IndexedFile, b: Side, new: IndexedFile, allowance: "_Allowance"
) -> TensorChanges | None:
    """Compare two versions of one file, None unless both hold tensors."""
    if not (may_hold_tensors(a.version.index, old) and may_hold_tensors(b.version.index, new)):
        return None
    before, old_reader = _open(a, old)
    after, new_reader = _open(b, new)
    if before is None or after is None:
        return None

    def settle(old_offset: int, new_offset: int, length: int) -> bool | None:
        if allowance.is_spent:
            return None
        start = old_reader.fetched_bytes + new_reader.fetched_bytes
        same = old_reader.read(old_offset, length) == new_reader.read(new_offset, length)
        allowance.spend(old_reader.fetched_bytes + new_reader.fetched_bytes - start)
        return same

    return compare_tensors(before, after, settle)


def _open(side: Side, file: IndexedFile) -> tuple[TensorSide | None, IndexedFileReader]:
    index = side.version.index
    reader = IndexedFileReader(index, file, side.read_chunk, where=side.version.name)
    header = read_header(index, file, reader)
    opened = TensorSide(header=header, index=index, file=file) if header else None
    return opened, reader


class _Allowance:
    """Bytes that may still be read, shared by threads; the last read may go a little over."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    @property
    def is_spent(self) -> bool:
        return self._left <= 0

    def spend(self, size: int) -> None:
        with self._lock:
            self._left -= size
