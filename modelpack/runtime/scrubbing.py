"""Reading a model's snapshots again, and holding every byte against what was verified once.

Owns finding damage, and taking a damaged model out of use. Leaves out repairing it, which the next
import of the model does (``damage.py``, ``building.py``).

The manifest's digest covers the metadata layer, and the chunk index in it covers every file. What is
compared is each layer's own directory: chunks, lengths, modes, and that there is nothing else.
"""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from blake3 import blake3

from modelpack.chunkindex import ChunkIndex, IndexedFile, decode_index
from modelpack.content import PIECE_BYTES
from modelpack.errors import IntegrityError, ModelpackError
from modelpack.events import ignore
from modelpack.metadata import CHUNKS, MAX_METADATA_BYTES, build_metadata_layer
from modelpack.paths import METADATA_DIR
from modelpack.ratelimit import RateLimiter
from modelpack.runtime.client import Containerd
from modelpack.runtime.damage import mark_damaged, set_aside
from modelpack.runtime.grpcapi import HeldError
from modelpack.runtime.holding import HOLD_LABEL, hold
from modelpack.runtime.inventory import Inventory, NodeModel
from modelpack.runtime.layers import read_metadata_files
from modelpack.runtime.mounts import Host
from modelpack.runtime.removal import remove_names
from modelpack.runtime.workplace import Workplace
from modelpack.stores.files import Tree, files_below

# How long a view is held at most: a day, and what reading at 1 MB/s takes.
_LEASE_TIME = timedelta(days=1)
_SLOWEST_RATE = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Defect:
    """A file that is not what the index says, by its path in the model."""

    path: str
    reason: str


def scrub_model(
    client: Containerd,
    host: Host,
    model: NodeModel,
    *,
    limiter: RateLimiter,
    stop: Callable[[], bool],
) -> list[Defect]:
    """Read a model at a limited rate; return what is damaged, so far if ``stop`` says so.

    Nothing is returned of a model that is removed meanwhile.
    """
    size = sum(layer.size for layer in model.manifest.layers)
    with hold(client, _LEASE_TIME + timedelta(seconds=size // _SLOWEST_RATE)) as holder:
        key = f"{holder.lease}-view"
        mounts = holder.view(key, model.chain[-1], {HOLD_LABEL: "1"})
        try:
            roots = host.layer_directories(mounts, len(model.chain))
            found = _read_layers(model, roots, limiter, stop)
            return found if holder.snapshot(key) is not None else []
        finally:
            holder.remove_snapshot(key)


def quarantine_model(
    client: Containerd,
    host: Host,
    inventory: Inventory,
    model: NodeModel,
    paths: Iterable[str],
) -> None:
    """Take a model, in which these paths are damaged, and all that share them out of use.

    No image name leads to the damaged snapshots any more, and they are removed, but for their
    files, which wait for the repair. What something mounts cannot be removed: it keeps its mark,
    and the import that repairs it says that it waits.
    """
    try:
        index = _index_of(client, host, model)
    except ModelpackError:
        index = None
    first = min(_layers_of(paths, index, len(model.chain) - 1))
    mark_damaged(client, model.chain[first])
    picture = inventory.read(client)
    size = sum(layer.size for layer in model.manifest.layers)
    with Workplace(client, host, model.manifest.digest, size, ignore) as place:
        place.client.hold_snapshot(model.chain[-1])
        if first:  # these are kept when the others go
            place.client.hold_snapshot(model.chain[first - 1])
        for other in picture.damaged:
            if model.chain[first] in other.chain:
                remove_names(client, inventory, other)
        try:
            set_aside(place, model.chain[first:], first, index)
        except HeldError:
            return
        place.leave = True


def _index_of(client: Containerd, host: Host, model: NodeModel) -> ChunkIndex:
    with hold(client) as holder:
        key = f"{holder.lease}-view"
        mounts = holder.view(key, model.chain[-1], {HOLD_LABEL: "1"})
        try:
            return _read_index(model, host.layer_directories(mounts, len(model.chain))[-1])
        finally:
            holder.remove_snapshot(key)


def _read_index(model: NodeModel, root: Path) -> ChunkIndex:
    """Return a model's index from its metadata layer's directory, proved by the layer's digest."""
    files = read_metadata_files(root, MAX_METADATA_BYTES)
    layer = model.manifest.layers[-1].digest
    layer.check(build_metadata_layer(files), f"{METADATA_DIR} in {root}")
    index = decode_index(files[CHUNKS])
    if [layer.digest for layer in index.layers] != [
        layer.digest for layer in model.manifest.layers[:-1]
    ]:
        raise IntegrityError(f"{METADATA_DIR} in {root} is about other layers")
    return index


def _layers_of(paths: Iterable[str], index: ChunkIndex | None, last: int) -> set[int]:
    """Return the layers where paths lie; of one that no layer should have, all may have it."""
    layers = {file.path: file.layer for file in index.files} if index is not None else {}
    found = set()
    for path in paths:
        inside = path == METADATA_DIR or path.startswith(f"{METADATA_DIR}/")
        found.add(last if inside else layers.get(path, 0))
    return found or {0}


def _read_layers(
    model: NodeModel, roots: Sequence[Path], limiter: RateLimiter, stop: Callable[[], bool]
) -> list[Defect]:
    # 1. The index is what everything else is held against.
    try:
        index = _read_index(model, roots[-1])
    except (IntegrityError, FileNotFoundError, KeyError) as error:
        return [Defect(path=METADATA_DIR, reason=f"not what the manifest says ({error})")]
    defects = []
    buffer = memoryview(bytearray(PIECE_BYTES))
    for number in range(len(index.layers)):
        files = index.files_of_layer(number)
        shared = len(set(roots)) == 1
        # 2. Nothing is there that the layer does not have; one directory for all has all.
        expected = {file.path for file in (index.files if shared else files)}
        defects += _strangers(roots[number], expected, metadata=shared)
        # 3. Every file has its chunks.
        tree = Tree(roots[number])
        try:
            for file in files:
                if stop():
                    return defects
                reason = _defect_of(tree, index, file, buffer, limiter, stop)
                if reason is not None:
                    defects.append(Defect(path=file.path, reason=reason))
        finally:
            tree.close()
    return defects


def _strangers(root: Path, expected: set[str], *, metadata: bool) -> list[Defect]:
    found = [path for path in files_below(root) if path not in expected]
    if not metadata and os.path.lexists(root / METADATA_DIR):
        found.append(METADATA_DIR)
    return [Defect(path=path, reason="a file that the model does not have") for path in found]


def _defect_of(
    tree: Tree,
    index: ChunkIndex,
    file: IndexedFile,
    buffer: memoryview,
    limiter: RateLimiter,
    stop: Callable[[], bool],
) -> str | None:
    try:
        fd = tree.open(file.path)
    except FileNotFoundError:
        return "it is missing"
    except IntegrityError as error:
        return str(error)
    try:
        status = os.fstat(fd)
        if status.st_size != file.size:
            return f"it has {status.st_size} bytes instead of {file.size}"
        if stat.S_IMODE(status.st_mode) != file.mode:
            return f"its mode is {stat.S_IMODE(status.st_mode):04o} instead of {file.mode:04o}"
        for chunk in file.chunks:
            if not _is_whole(fd, index, chunk, buffer, limiter, stop):
                return f"chunk {chunk - file.first_chunk} has other bytes"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    finally:
        os.close(fd)
    return None


def _is_whole(
    fd: int,
    index: ChunkIndex,
    chunk: int,
    buffer: memoryview,
    limiter: RateLimiter,
    stop: Callable[[], bool],
) -> bool:
    """Tell whether a chunk has its hash; it is not known to be damaged if ``stop`` says so."""
    hasher = blake3()
    offset, left = index.offsets[chunk], index.lengths[chunk]
    while left:
        if stop():
            return True
        piece = buffer[: min(left, limiter.piece(len(buffer)))]
        limiter.take(len(piece))
        count = os.preadv(fd, [piece], offset)
        if not count:
            return False
        hasher.update(piece[:count])
        offset += count
        left -= count
    return hasher.digest() == index.hash_of(chunk)
