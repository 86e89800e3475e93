"""The chunk index: every file of an artifact, where its bytes lie, and its chunks' hashes.

Owns building, encoding, decoding and validating; pure. ``docs/format.md`` is its specification and
``schemas/chunk-index.schema.json`` describes its head. Leaves out where chunks end
(``chunking.py``) and what to do with them (``plan.py``).

Layout of the encoded index, all integers little-endian:

```text
 8  magic  "MPKCHNK" and the version byte 1
 4  H      length of the head in bytes
 4  N      number of chunks
 H  head   JSON: layers, and files in the order of their bytes in the layers
 36 N      chunks in the order of the files: u32 length, 32 bytes BLAKE3
```
"""

import re
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modelpack import layering
from modelpack.digest import CHUNK_HASH_BYTES, ChunkHash, Digest
from modelpack.errors import FormatError
from modelpack.layering import PlannedLayer, SourceFile
from modelpack.manifest import canonical_json, load_json
from modelpack.paths import check_paths

MAGIC = b"MPKCHNK\x01"
VERSION = 1
_PREFIX = struct.Struct("<8sII")
_CHUNK = struct.Struct("<I32s")
# The longest chunk a reader must hold in memory at once.
MAX_CHUNK_BYTES = 4 * 1024 * 1024
# 4 Mi chunks are 16 TiB of weights; their table is 144 MiB.
MAX_CHUNKS = 4 * 1024 * 1024
# Some 130,000 files of usual names. Hostile JSON takes about 30 times its size once it is loaded,
# so this is also what keeps a bad index under a gigabyte.
MAX_HEAD_BYTES = 32 * 1024 * 1024
MAX_INDEX_BYTES = _PREFIX.size + MAX_HEAD_BYTES + MAX_CHUNKS * _CHUNK.size
_BLAKE3 = re.compile(r"[0-9a-f]{64}\Z")
_MODES = {"0644": 0o644, "0755": 0o755}
_MODE_NAMES = {mode: name for name, mode in _MODES.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedLayer:
    """A data layer as the manifest lists it."""

    digest: Digest
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedFile:
    """A file, its place, and its run of chunks."""

    path: str
    size: int
    mode: int
    blake3: ChunkHash
    layer: int
    """Which data layer, from 0."""
    offset: int
    """Of the file's first byte in the layer's tar."""
    first_chunk: int
    chunk_count: int

    @property
    def chunks(self) -> range:
        """The numbers of this file's chunks."""
        return range(self.first_chunk, self.first_chunk + self.chunk_count)


@dataclass(frozen=True, kw_only=True)
class ChunkIndex:
    """A validated index; chunk numbers run through all files in order.

    ``lengths[n]`` is the byte length of chunk ``n`` and ``hash_of(n)`` its BLAKE3.
    """

    layers: tuple[IndexedLayer, ...]
    files: tuple[IndexedFile, ...]
    lengths: "array[int]"
    hashes: bytes
    """All hashes, concatenated."""

    @property
    def chunk_count(self) -> int:
        """How many chunks all files have together."""
        return len(self.lengths)

    @property
    def total_bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum(file.size for file in self.files)

    def hash_of(self, chunk: int) -> ChunkHash:
        """Return a chunk's BLAKE3."""
        start = chunk * CHUNK_HASH_BYTES
        return ChunkHash(self.hashes[start : start + CHUNK_HASH_BYTES])

    @cached_property
    def offsets(self) -> "array[int]":
        """The offset of every chunk in its own file."""
        offsets = array("Q", bytes(8 * self.chunk_count))
        for file in self.files:
            position = 0
            for chunk in file.chunks:
                offsets[chunk] = position
                position += self.lengths[chunk]
        return offsets

    def run_of(self, file: IndexedFile) -> tuple["array[int]", bytes]:
        """Return the lengths and the hashes of a file's chunks: equal only for equal bytes."""
        first, last = file.chunks.start, file.chunks.stop
        return (
            self.lengths[first:last],
            self.hashes[first * CHUNK_HASH_BYTES : last * CHUNK_HASH_BYTES],
        )

    def by_path(self) -> dict[str, IndexedFile]:
        """Return the files by their paths."""
        return {file.path: file for file in self.files}

    def files_of_layer(self, layer: int) -> tuple[IndexedFile, ...]:
        """Return one layer's files in the order of their bytes."""
        return tuple(file for file in self.files if file.layer == layer)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileChunks:
    """What one pass over a file's bytes found."""

    blake3: ChunkHash
    lengths: Sequence[int]
    hashes: bytes


def build_index(
    plan: Sequence[PlannedLayer], digests: Sequence[Digest], chunks: Iterable[FileChunks]
) -> ChunkIndex:
    """Join a layer plan, the layers' digests and the files' chunks, in plan order."""
    lengths = array("I")
    hashes = bytearray()
    files = []
    found = iter(chunks)
    for number, layer in enumerate(plan):
        for placed in layer.files:
            file = next(found)
            files.append(
                IndexedFile(
                    path=placed.file.path,
                    size=placed.file.size,
                    mode=placed.file.mode,
                    blake3=file.blake3,
                    layer=number,
                    offset=placed.offset,
                    first_chunk=len(lengths),
                    chunk_count=len(file.lengths),
                )
            )
            lengths.extend(file.lengths)
            hashes += file.hashes
    return ChunkIndex(
        layers=tuple(
            IndexedLayer(digest=digest, size=layer.size)
            for digest, layer in zip(digests, plan, strict=True)
        ),
        files=tuple(files),
        lengths=lengths,
        hashes=bytes(hashes),
    )


def encode_index(index: ChunkIndex) -> bytes:
    """Return the index as bytes; equal indexes give equal bytes."""
    head = canonical_json(
        {
            "layers": [{"digest": str(layer.digest), "size": layer.size} for layer in index.layers],
            "files": [
                {
                    "path": file.path,
                    "size": file.size,
                    "mode": _MODE_NAMES[file.mode],
                    "blake3": file.blake3.hex(),
                    "layer": file.layer,
                    "offset": file.offset,
                    "chunks": file.chunk_count,
                }
                for file in index.files
            ],
        }
    )
    table = bytearray(_CHUNK.size * index.chunk_count)
    for chunk, length in enumerate(index.lengths):
        _CHUNK.pack_into(table, chunk * _CHUNK.size, length, index.hash_of(chunk))
    return _PREFIX.pack(MAGIC, len(head), index.chunk_count) + head + table


def decode_index(data: bytes) -> ChunkIndex:
    """Decode and validate an index.

    A normal return proves that paths are allowed and distinct, that the files lie in their layers
    exactly where the canonical tar of these files puts them, and that chunk lengths add up.

    Raises:
        FormatError: anything else; nothing has been written by then.
    """
    try:
        magic, head_bytes, chunk_count = _PREFIX.unpack_from(data)
    except struct.error as error:
        raise FormatError("chunk index is shorter than its fixed part") from error
    if magic[:7] != MAGIC[:7]:
        raise FormatError("chunk index does not start with its magic number")
    if magic != MAGIC:
        raise FormatError(
            f"chunk index has version {magic[7]}, this modelpack reads {VERSION}: update it"
        )
    if head_bytes > MAX_HEAD_BYTES or chunk_count > MAX_CHUNKS:
        raise FormatError("chunk index is larger than any real one")
    if len(data) != _PREFIX.size + head_bytes + chunk_count * _CHUNK.size:
        raise FormatError("chunk index has a wrong length")
    head = load_json(data[_PREFIX.size : _PREFIX.size + head_bytes], "chunk index head")
    lengths = array("I")
    hashes = bytearray()
    view = memoryview(data)[_PREFIX.size + head_bytes :]
    for length, value in _CHUNK.iter_unpack(view):
        lengths.append(length)
        hashes += value
    layers, files = _read_head(head)
    index = ChunkIndex(layers=layers, files=files, lengths=lengths, hashes=bytes(hashes))
    _validate(index)
    return index


def _read_head(head: Any) -> tuple[tuple[IndexedLayer, ...], tuple[IndexedFile, ...]]:
    _members(head, {"layers", "files"}, "head")
    if not isinstance(head["layers"], list) or not isinstance(head["files"], list):
        raise FormatError("chunk index: layers and files must be lists")
    if len(head["layers"]) > layering.MAX_DATA_LAYERS:
        raise FormatError(f"chunk index: more than {layering.MAX_DATA_LAYERS} data layers")
    layers = []
    for number, item in enumerate(head["layers"]):
        where = f"layers[{number}]"
        _members(item, {"digest", "size"}, where)
        layers.append(
            IndexedLayer(
                digest=Digest.parse(item["digest"]), size=_integer(item["size"], where + ".size")
            )
        )
    files = []
    first_chunk = 0
    for number, item in enumerate(head["files"]):
        where = f"files[{number}]"
        _members(item, {"path", "size", "mode", "blake3", "layer", "offset", "chunks"}, where)
        file = _read_file(item, where, first_chunk)
        first_chunk += file.chunk_count
        files.append(file)
    return tuple(layers), tuple(files)


def _read_file(item: dict[str, Any], where: str, first_chunk: int) -> IndexedFile:
    mode = item["mode"]
    if not isinstance(mode, str) or mode not in _MODES:
        raise FormatError(f"chunk index: {where}.mode is neither 0644 nor 0755")
    blake3 = item["blake3"]
    if not isinstance(blake3, str) or not _BLAKE3.match(blake3):
        raise FormatError(f"chunk index: {where}.blake3 is not {CHUNK_HASH_BYTES} bytes of hex")
    if not isinstance(item["path"], str):
        raise FormatError(f"chunk index: {where}.path is not a string")
    return IndexedFile(
        path=item["path"],
        size=_integer(item["size"], where + ".size"),
        mode=_MODES[mode],
        blake3=ChunkHash(bytes.fromhex(blake3)),
        layer=_integer(item["layer"], where + ".layer"),
        offset=_integer(item["offset"], where + ".offset"),
        first_chunk=first_chunk,
        chunk_count=_integer(item["chunks"], where + ".chunks"),
    )


def _validate(index: ChunkIndex) -> None:
    check_paths(file.path for file in index.files)
    if sum(file.chunk_count for file in index.files) != index.chunk_count:
        raise FormatError("chunk index: the files' chunk counts do not add up")
    if index.chunk_count and not 0 < min(index.lengths) <= max(index.lengths) <= MAX_CHUNK_BYTES:
        raise FormatError(f"chunk index: a chunk is empty or longer than {MAX_CHUNK_BYTES} bytes")
    by_layer: list[list[IndexedFile]] = [[] for _ in index.layers]
    last_layer = 0
    for file in index.files:
        if not last_layer <= file.layer < len(index.layers):
            raise FormatError(f"chunk index: {file.path!r} is out of layer order")
        last_layer = file.layer
        by_layer[file.layer].append(file)
        end = file.first_chunk + file.chunk_count
        if sum(index.lengths[file.first_chunk : end]) != file.size:
            raise FormatError(f"chunk index: the chunks of {file.path!r} do not add up to its size")
    for number, (layer, files) in enumerate(zip(index.layers, by_layer, strict=True)):
        planned = layering.place([source_file(file) for file in files])
        if not files or planned.size != layer.size:
            raise FormatError(f"chunk index: layer {number} cannot have {layer.size} bytes")
        for file, placed in zip(files, planned.files, strict=True):
            if file.offset != placed.offset:
                raise FormatError(f"chunk index: {file.path!r} cannot lie at {file.offset}")


def source_file(file: IndexedFile) -> SourceFile:
    """Return what the tar writer needs to know of an indexed file."""
    return SourceFile(path=file.path, size=file.size, mode=file.mode)


def _members(value: object, names: set[str], where: str) -> None:
    if not isinstance(value, dict):
        raise FormatError(f"chunk index: {where} is not an object")
    if value.keys() != names:
        odd = sorted(value.keys() ^ names)
        raise FormatError(f"chunk index: {where} has a missing or unknown member {odd[0]!r:.80}")


def _integer(value: object, where: str) -> int:
    # Up to 2^53 every JSON reader agrees on an integer.
    if type(value) is not int or not 0 <= value <= 2**53:
        raise FormatError(f"chunk index: {where} is not a number of bytes or an ordinal")
    return value
