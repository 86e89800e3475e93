"""Snapshots whose files are no longer what they were: marked, never used again, and replaced.

Owns the mark and making way for new snapshots of the same names. Leaves out finding damage
(``scrubbing.py``).

containerd takes any snapshot of a layer's chain ID for the layer, so a damaged one has to go before
a sound one can be made. It cannot while something lies on it, as a mount does.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from modelpack.chunkindex import ChunkIndex
from modelpack.descriptor import OUR_PREFIX
from modelpack.errors import IntegrityError
from modelpack.runtime.client import Containerd, Snapshot, SnapshotKind
from modelpack.runtime.grpcapi import HeldError, MissingError
from modelpack.runtime.workplace import IMPORT_LABEL, Workplace
from modelpack.stores.files import Tree, mapped_errors

DAMAGED_LABEL = OUR_PREFIX + "damaged"
"""On committed snapshots that must be replaced: the damaged one, and all that lie on it."""


def is_sound(snapshot: Snapshot | None) -> bool:
    """Tell whether there is a snapshot, and nobody has found it damaged."""
    return snapshot is not None and DAMAGED_LABEL not in snapshot.labels


def mark_damaged(client: Containerd, name: str) -> None:
    """Mark a snapshot and all that lie on it, of whatever model."""
    everything = client.all_snapshots()
    for item in everything.values():
        if item.kind is SnapshotKind.COMMITTED and name in ancestry(everything, item.name):
            client.label_snapshot(item.name, {DAMAGED_LABEL: "true"})


def ancestry(everything: dict[str, Snapshot], name: str) -> list[str]:
    """Return a snapshot's name and the names of all it lies on."""
    found: list[str] = []
    while name in everything:
        found.append(name)
        name = everything[name].parent
    return found


def set_aside(
    place: Workplace, doomed: Sequence[str], first: int, index: ChunkIndex | None
) -> None:
    """Remove those of the snapshots ``doomed`` that are there, and keep their files in staging.

    They are the upper ones of a model's chain, from layer ``first`` on. The files are hard links
    until the snapshots are gone; which of their chunks are sound, the staging area finds out.
    Without an ``index`` no files are kept. After a crash at any point the call can be made again.

    Raises:
        HeldError: something mounts them; nothing was changed.
    """
    client = place.client
    everything = client.all_snapshots()
    there = [name for name in doomed if name in everything]
    if not there:
        return
    for item in everything.values():
        if item.parent in there and item.name not in there and IMPORT_LABEL not in item.labels:
            raise _in_use(there[0])
    if index is not None:
        _keep_files(place, there, first, index)
    for name in reversed(there):
        try:
            client.remove_snapshot(name)
        except HeldError as error:
            raise _in_use(name) from error


def _keep_files(place: Workplace, there: Sequence[str], first: int, index: ChunkIndex) -> None:
    client, key = place.client, place.key("damaged")
    client.remove_snapshot(key)
    try:
        mounts = client.view(key, there[-1], place.labels)
    except MissingError:  # containerd has collected it meanwhile, with the last that used it
        return
    roots = place.host.layer_directories(mounts, first + len(there))
    with mapped_errors(f"cannot use {place.staging}"):
        place.staging.mkdir(mode=0o700, exist_ok=True)
    for number, file in enumerate(index.files):
        if first <= file.layer < len(roots):
            _link(roots[file.layer], file.path, file.size, place.staging / str(number))
    client.remove_snapshot(key)


def _link(root: Path, path: str, size: int, target: Path) -> None:
    """Give a file a second name; one that is not what it should be at all is left."""
    if os.path.lexists(target):
        return
    with mapped_errors(f"cannot use {root}"):
        tree = Tree(root)
        try:
            with suppress(IntegrityError, FileNotFoundError), tree.parent(path) as (fd, name):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_size == size:
                    os.link(name, target, src_dir_fd=fd, follow_symlinks=False)
        finally:
            tree.close()


def _in_use(name: str) -> HeldError:
    return HeldError(
        f"snapshot {name} is damaged and a container mounts it; it is replaced when nothing does: "
        "delete the pods that mount the model"
    )
