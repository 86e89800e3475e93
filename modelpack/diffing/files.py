"""Which files differ between two indexes, and what a pull would do about it; pure.

Owns matching files by path and by content, and the estimate, which is the pull's own plan with the
first side as what is on this machine. Leaves out tensors (``tensors.py``).
"""

from collections import defaultdict

from modelpack import plan
from modelpack.chunkindex import IndexedFile
from modelpack.diffing.report import (
    ADDED,
    CHANGED,
    REMOVED,
    RENAMED,
    FileChange,
    PullEstimate,
    Version,
)
from modelpack.digest import ChunkHash
from modelpack.plan import ChunkMap, ChunkState


def compare_files(a: Version, b: Version) -> tuple[list[FileChange], int]:
    """Return the changes from ``a`` to ``b`` by path, and the number of unchanged files.

    A file that is gone and one that is new with the same bytes are one renamed file; empty files,
    which all have the same bytes, are not matched.
    """
    before = {file.path: file for file in a.files}
    after = {file.path: file for file in b.files}
    changes = []
    for path in before.keys() & after.keys():
        old, new = before[path], after[path]
        if (old.blake3, old.size, old.mode) != (new.blake3, new.size, new.mode):
            changes.append(FileChange(kind=CHANGED, before=old, after=new))
    unchanged = len(before.keys() & after.keys()) - len(changes)
    gone = [file for path, file in before.items() if path not in after]
    come = [file for path, file in after.items() if path not in before]
    renames = _renames(gone, come)
    old_names = {file.path for file in renames.values()}
    for file in come:
        origin = renames.get(file.path)
        kind = RENAMED if origin else ADDED
        changes.append(FileChange(kind=kind, before=origin, after=file))
    changes += [
        FileChange(kind=REMOVED, before=file, after=None)
        for file in gone
        if file.path not in old_names
    ]
    changes.sort(key=lambda change: change.path.encode())
    return changes, unchanged


def estimate_pull(
    a: Version, b: Version, *, connections: int
) -> tuple[PullEstimate, dict[str, int]]:
    """Return what a pull of ``b`` moves into a directory that holds ``a``, in all and by path.

    It is the decision of a pull with so many connections to start with: files in place stay, and
    chunks of ``a`` are copied wherever ``b`` has them. The mapping holds the bytes to fetch of
    every file of which there are any.
    """
    index = b.index
    in_place = {file.path: file for file in a.files}
    kept = [number for number in b.numbers if _same(index.files[number], in_place)]
    missing = sorted(set(b.numbers).difference(kept))
    local: set[ChunkHash] = {
        a.index.hash_of(chunk) for file in a.files for chunk in file.chunks
    } | {index.hash_of(chunk) for number in kept for chunk in index.files[number].chunks}
    work = plan.plan_chunks(index, files=missing, have=(), local=local)
    chunk_map = ChunkMap.of(index)
    ranges = plan.plan_ranges(
        chunk_map, work.states, plan.range_size(work.fetch_bytes, connections)
    )
    moved = sum(chunk_map.end(each.last - 1) - chunk_map.start(each.first) for each in ranges)
    fetched: defaultdict[str, int] = defaultdict(int)
    for chunk in work.chunks(ChunkState.FETCH):
        fetched[index.files[chunk_map.file_of[chunk]].path] += index.lengths[chunk]
    estimate = PullEstimate(
        bytes=b.bytes,
        reused_bytes=b.bytes - work.fetch_bytes,
        chunk_bytes=work.fetch_bytes,
        index_bytes=b.index_bytes,
        bridged_bytes=moved - work.fetch_bytes,
        requests=len(ranges),
    )
    return estimate, dict(fetched)


def _same(file: IndexedFile, in_place: dict[str, IndexedFile]) -> bool:
    old = in_place.get(file.path)
    return old is not None and (old.blake3, old.size) == (file.blake3, file.size)


def _renames(gone: list[IndexedFile], come: list[IndexedFile]) -> dict[str, IndexedFile]:
    """Pair new paths with the files that had their bytes, the same last name first."""
    origins: defaultdict[tuple[bytes, int], list[IndexedFile]] = defaultdict(list)
    for file in sorted(gone, key=lambda file: file.path.encode()):
        if file.size:
            origins[file.blake3, file.size].append(file)
    pairs: dict[str, IndexedFile] = {}
    for by_name in (True, False):
        for file in sorted(come, key=lambda file: file.path.encode()):
            candidates = origins.get((file.blake3, file.size), [])
            fitting = [each for each in candidates if not by_name or _name(each) == _name(file)]
            if fitting and file.path not in pairs:
                pairs[file.path] = fitting[0]
                candidates.remove(fitting[0])
    return pairs


def _name(file: IndexedFile) -> str:
    return file.path.rpartition("/")[2]
