"""Bringing staged files to completion, and holding finished ones against their layers.

Owns the heart of every pull, whatever it pulls into: plan, copy what is on this machine, fetch the
rest, make it durable; and rebuilding a layer's tar from its files. Leaves out where finished files
go (``pulling.py``, ``runtime/``).
"""

import os
import threading
from collections.abc import Callable, Sequence

from modelpack import layering, plan
from modelpack.artifact import Artifact
from modelpack.chunkindex import ChunkIndex, IndexedFile, source_file
from modelpack.content import PIECE_BYTES
from modelpack.digest import Digest
from modelpack.download import Downloader
from modelpack.errors import IntegrityError
from modelpack.events import Observer
from modelpack.parallel import for_each
from modelpack.plan import ChunkMap, ChunkState
from modelpack.ratelimit import RateLimiter
from modelpack.reuse import LocalChunks
from modelpack.storage import Repository
from modelpack.stores.pagecache import aligned_buffer, free_memory, is_better_passed
from modelpack.stores.staging import Staging

_COPY_THREADS = 2


def fill_staging(
    repository: Repository,
    artifact: Artifact,
    *,
    chunk_map: ChunkMap,
    staging: Staging,
    local: LocalChunks,
    announce: Callable[[plan.PullPlan], None],
    observer: Observer,
    connections: int,
    max_connections: int | None = None,
    limit_rate: int | None = None,
    limiter: RateLimiter | None = None,
    page_cache: bool | None = True,
) -> int:
    """Bring the staged files to completion: what is missing is copied locally or fetched.

    A normal return proves that every chunk of them is verified and durable. ``announce`` is told
    the plan before anything moves. ``page_cache`` is whether files go through it, None as long as
    there is free memory for them. ``connections`` is how many to start with, ``limit_rate`` in
    bytes per second; a ``limiter``, which other transfers may share, takes its place. Returns how
    many bytes were received.

    Raises:
        IntegrityError, NetworkError, SpaceError: as the download and the disk say; what is
            verified is kept.
    """
    index = artifact.index
    work = plan.plan_chunks(index, files=staging.files, have=staging.verified_chunks, local=local)
    announce(work)
    if page_cache is None:
        written = work.fetch_bytes + sum(index.lengths[n] for n in work.chunks(ChunkState.COPY))
        page_cache = not is_better_passed(written, free_memory())
    if not page_cache:
        staging.pass_page_cache()
    _copy(work, staging, local, index)
    size = plan.range_size(work.fetch_bytes, connections)
    ranges = plan.plan_ranges(chunk_map, work.states, size)
    downloader = Downloader(
        chunk_map=chunk_map,
        states=work.states,
        layers=artifact.data_layers,
        connect=repository.range_connection,
        sink=staging,
        observer=observer,
        max_connections=max_connections,
        start_connections=connections,
        limiter=limiter or RateLimiter(limit_rate),
    )
    if ranges:
        downloader.run(ranges)
    _copy_twins(work, staging)
    staging.complete()
    return downloader.received_bytes


def check_layer(
    layer: Digest, files: Sequence[IndexedFile], open_file: Callable[[str], int], where: str
) -> None:
    """Rebuild one layer's tar from its files and compare its digest.

    ``open_file`` returns a descriptor for a path of the index; ``where`` names the place.

    Raises:
        IntegrityError: it differs.
    """
    hasher = layer.hasher()
    buffer = memoryview(bytearray(PIECE_BYTES))
    for frame, source in layering.frames([source_file(file) for file in files]):
        hasher.update(frame)
        if source is None:
            continue
        fd = open_file(source.path)
        try:
            offset = 0
            while count := os.preadv(fd, [buffer], offset):
                hasher.update(buffer[:count])
                offset += count
        finally:
            os.close(fd)
    if hasher.hexdigest() != layer.hex:
        raise IntegrityError(
            f"{where}: the files of layer {layer} do not rebuild it "
            f"({', '.join(file.path for file in files[:3])})"
        )


def _copy(work: plan.PullPlan, staging: Staging, local: LocalChunks, index: ChunkIndex) -> None:
    """Copy what is on this machine; what turns out to be different is fetched after all."""
    buffers = threading.local()

    def copy(chunk: int) -> None:
        if not hasattr(buffers, "chunk"):
            buffers.chunk = aligned_buffer(max(index.lengths))
        taken = staging.take(chunk, local, buffers.chunk)
        work.states[chunk] = ChunkState.HAVE if taken else ChunkState.FETCH

    for_each(copy, work.chunks(ChunkState.COPY), _COPY_THREADS)


def _copy_twins(work: plan.PullPlan, staging: Staging) -> None:
    for chunk, first in work.twins.items():
        staging.write(chunk, 0, memoryview(staging.read(first)))
        staging.copied((chunk,))
