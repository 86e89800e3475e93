"""From files to layers: one pass over the bytes gives every hash an artifact needs.

Owns reading and hashing, and the cache that lets an unchanged file go unread. Leaves out which
files share a layer (``layering.py``) and where chunks end (``chunking.py``).
"""

import hashlib
import os
import struct
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from blake3 import blake3

from modelpack import layering
from modelpack.cache import Cache
from modelpack.chunkindex import FileChunks
from modelpack.chunking import chunk_lengths
from modelpack.content import BlobContent, FileRegion
from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.digest import CHUNK_HASH_BYTES, ChunkHash, Digest, Hasher
from modelpack.errors import FormatError, IntegrityError
from modelpack.events import Hashed, Observer
from modelpack.layering import PlannedLayer
from modelpack.scan import ScannedFile, identity_of
from modelpack.stores.files import mapped_errors
from modelpack.tensors import probe

# A block is hashed three times, so it should fit a core's cache. One may be handed to another core,
# which is not worth it for a smaller one.
_BLOCK_BYTES = 1024 * 1024
_HAND_OVER_BYTES = 256 * 1024
# Between two reports of what was hashed; a fraction of a second on any disk.
_TELL_BYTES = 64 * 1024 * 1024
# Changes whenever the same bytes would get other chunks or another layer.
_CACHE_VERSION = b"layer-1"
# File systems stamp times from a clock that ticks every few milliseconds.
_TIMESTAMP_GRAIN_NS = 50_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedLayer:
    """A layer ready to push, with the chunks of its files in order."""

    descriptor: Descriptor
    content: BlobContent
    chunks: tuple[FileChunks, ...]
    title: str
    """For people: the file's path, or how many files."""


class Cores:
    """The cores that hash, shared by all layers that are hashed at once; a context manager.

    A layer has one, and another as long as no layer needs that. More threads than cores would only
    push each other's blocks out of the caches.
    """

    def __init__(self, count: int | None = None) -> None:
        """Use ``count`` cores, or all that this process may use."""
        number = count or len(os.sched_getaffinity(0))
        self._free = threading.Semaphore(number)
        self._lock = threading.Lock()
        self._waiting = 0
        self._helpers = ThreadPoolExecutor(max_workers=number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._helpers.shutdown()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for a core, and have it."""
        with self._lock:
            self._waiting += 1
        self._free.acquire()
        try:
            with self._lock:
                self._waiting -= 1
            yield
        finally:
            self._free.release()

    def lend(self, work: Callable[[memoryview], object], data: memoryview) -> Future[object] | None:
        """Do something on another core; None if there is none to spare."""
        if self._waiting or not self._free.acquire(blocking=False):
            return None
        future = self._helpers.submit(work, data)
        future.add_done_callback(lambda _: self._free.release())
        return future


def pack_layer(
    layer: PlannedLayer,
    sources: Mapping[str, ScannedFile],
    *,
    cache: Cache | None,
    observer: Observer,
    cores: Cores,
) -> PackedLayer:
    """Hash a layer, reading its files once, or not at all if the cache knows them.

    ``sources`` holds a scanned file for every path of the layer. Where a core is to spare, SHA-256
    runs there while this thread computes BLAKE3. An observer that raises stops it.

    Raises:
        IntegrityError: a file changed between the scan and now.
    """
    frames = [frame for frame, _ in layering.frames([placed.file for placed in layer.files])]
    files = [sources[placed.file.path] for placed in layer.files]
    title = layer.files[0].file.path if len(files) == 1 else f"{len(files)} files"
    segments: list[bytes | FileRegion] = []
    for frame, file in zip(frames, files, strict=False):
        segments += [frame, FileRegion(file.source, file.size)]
    content = BlobContent((*segments, frames[-1]))
    key = _cache_key(frames, files)
    known = cache.get(key) if cache else None
    if known is not None:
        digest, chunks = _decode(known, len(files))
        observer(Hashed(item=title, size=layer.size))
    else:
        with cores.one():
            digest, chunks = _hash_layer(frames, files, title, observer, cores)
        if cache and _is_settled(files):
            cache.put(key, _encode(digest, chunks))
    return PackedLayer(
        descriptor=Descriptor(media_type=OCI_LAYER_TAR, digest=digest, size=layer.size),
        content=content,
        chunks=chunks,
        title=title,
    )


def _hash_layer(
    frames: list[bytes],
    files: list[ScannedFile],
    title: str,
    observer: Observer,
    cores: Cores,
) -> tuple[Digest, tuple[FileChunks, ...]]:
    tar = hashlib.sha256()
    buffers = (memoryview(bytearray(_BLOCK_BYTES)), memoryview(bytearray(_BLOCK_BYTES)))
    chunks = []
    for frame, file in zip(frames, files, strict=False):
        tar.update(frame)

        def hashed(size: int) -> None:
            observer(Hashed(item=title, size=size))

        hashed(len(frame))
        chunks.append(_hash_file(file, tar, buffers, cores, hashed))
    tar.update(frames[-1])
    observer(Hashed(item=title, size=len(frames[-1])))
    return Digest("sha256", tar.hexdigest()), tuple(chunks)


def _hash_file(
    file: ScannedFile,
    tar: Hasher,
    buffers: tuple[memoryview, memoryview],
    cores: Cores,
    hashed: Callable[[int], None],
) -> FileChunks:
    region = FileRegion(file.source, file.size)
    fd = region.open()
    try:
        lengths = chunk_lengths_of(fd, file.path, file.size)
        marker = _ChunkMarker(lengths)
        whole = blake3()
        pending: Future[object] | None = None
        offset = told = 0
        turn = 0
        while offset < file.size:
            buffer = buffers[turn][: min(_BLOCK_BYTES, file.size - offset)]
            count = region.read_into(fd, buffer, offset)
            block = buffer[:count]
            if pending is not None:
                pending.result()
                pending = None
            if count >= _HAND_OVER_BYTES:
                pending = cores.lend(tar.update, block)
            if pending is None:
                tar.update(block)
            whole.update(block)
            marker.update(block)
            offset += count
            turn ^= 1
            if offset - told >= _TELL_BYTES or offset == file.size:
                hashed(offset - told)
                told = offset
        if pending is not None:
            pending.result()
        if identity_of(os.fstat(fd)) != file.identity:
            raise IntegrityError(f"{file.source} changed while it was being read; try again")
    finally:
        os.close(fd)
    return FileChunks(
        blake3=ChunkHash(whole.digest()), lengths=lengths, hashes=bytes(marker.hashes)
    )


class _ChunkMarker:
    """Cuts a stream of blocks into chunks of given lengths and hashes each."""

    def __init__(self, lengths: "array[int]") -> None:
        self.hashes = bytearray()
        self._lengths = iter(lengths)
        self._hasher = blake3()
        self._left = next(self._lengths, 0)

    def update(self, block: memoryview) -> None:
        position = 0
        while position < len(block):
            take = min(self._left, len(block) - position)
            self._hasher.update(block[position : position + take])
            position += take
            self._left -= take
            if self._left == 0:
                self.hashes += self._hasher.digest()
                self._hasher = blake3()
                self._left = next(self._lengths, 0)


def chunk_lengths_of(fd: int, path: str, size: int) -> "array[int]":
    """Return where the chunks of an open file end, by its tensors if it has any.

    Raises:
        FormatError: the file claims to be a tensor file and is none.
    """

    def read(offset: int, length: int) -> bytes:
        with mapped_errors(f"{path} cannot be read"):
            return os.pread(fd, length, offset)

    try:
        return array("I", chunk_lengths(size, probe(path, read, size)))
    except FormatError as error:
        raise FormatError(
            f"{path}: {error}; get the file again, or leave it out with --exclude"
        ) from error


def _cache_key(frames: list[bytes], files: list[ScannedFile]) -> bytes:
    hasher = blake3(_CACHE_VERSION)
    for frame in frames:
        hasher.update(struct.pack("<I", len(frame)) + frame)
    for file in files:
        hasher.update(repr((str(file.source), file.identity)).encode())
    return hasher.digest()


def _is_settled(files: list[ScannedFile]) -> bool:
    """Tell whether no file is so fresh that a later write could keep its timestamps."""
    newest = max(max(file.identity[3], file.identity[4]) for file in files)
    return newest + _TIMESTAMP_GRAIN_NS < time.time_ns()


def _encode(digest: Digest, chunks: tuple[FileChunks, ...]) -> bytes:
    out = bytearray(bytes.fromhex(digest.hex))
    for file in chunks:
        out += struct.pack("<I", len(file.lengths)) + file.blake3
        out += array("I", file.lengths).tobytes() + file.hashes
    return bytes(out)


def _decode(data: bytes, count: int) -> tuple[Digest, tuple[FileChunks, ...]]:
    digest = Digest("sha256", data[:CHUNK_HASH_BYTES].hex())
    position = CHUNK_HASH_BYTES
    chunks = []
    for _ in range(count):
        (number,) = struct.unpack_from("<I", data, position)
        position += 4
        whole = ChunkHash(data[position : position + CHUNK_HASH_BYTES])
        position += CHUNK_HASH_BYTES
        lengths = array("I", data[position : position + 4 * number])
        position += 4 * number
        hashes = data[position : position + CHUNK_HASH_BYTES * number]
        position += CHUNK_HASH_BYTES * number
        chunks.append(FileChunks(blake3=whole, lengths=lengths, hashes=hashes))
    return digest, tuple(chunks)
