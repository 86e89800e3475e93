"""Layers as whole blobs, built by the same engine that builds files.

Owns a chunk index whose files are the layers' tars: the model's chunks with the tar's framing
between them as chunks of their own, which nobody has to fetch because it follows from the index.
Leaves out writing them anywhere.
"""

from array import array
from collections.abc import Collection, Mapping

from modelpack import layering
from modelpack.chunkindex import ChunkIndex, IndexedFile, source_file
from modelpack.digest import CHUNK_HASH_BYTES, ChunkHash, chunk_hash
from modelpack.reuse import LocalChunks

# Nobody asks a layer for its BLAKE3; its name is its SHA-256.
_NO_HASH = ChunkHash(bytes(CHUNK_HASH_BYTES))


def blob_index(index: ChunkIndex) -> tuple[ChunkIndex, dict[ChunkHash, bytes]]:
    """Return an index of the data layers as files, and the framing chunks by their hashes."""
    lengths = array("I")
    hashes = bytearray()
    framing: dict[ChunkHash, bytes] = {}
    files = []
    for number, layer in enumerate(index.layers):
        first = len(lengths)
        members = index.files_of_layer(number)
        by_path = {file.path: file for file in members}
        for frame, source in layering.frames([source_file(file) for file in members]):
            value = chunk_hash(frame)
            framing[value] = frame
            lengths.append(len(frame))
            hashes += value
            if source is not None:
                file = by_path[source.path]
                end = file.first_chunk + file.chunk_count
                lengths.extend(index.lengths[file.first_chunk : end])
                hashes += index.hashes[file.first_chunk * CHUNK_HASH_BYTES : end * CHUNK_HASH_BYTES]
        files.append(
            IndexedFile(
                path=layer.digest.hex,
                size=layer.size,
                mode=0o644,
                blake3=_NO_HASH,
                layer=number,
                offset=0,
                first_chunk=first,
                chunk_count=len(lengths) - first,
            )
        )
    blobs = ChunkIndex(
        layers=index.layers, files=tuple(files), lengths=lengths, hashes=bytes(hashes)
    )
    return blobs, framing


class FramedChunks(LocalChunks):
    """Chunks on this machine, and the framing that is made rather than fetched."""

    def __init__(self, wanted: Collection[ChunkHash], framing: Mapping[ChunkHash, bytes]) -> None:
        """Look only for ``wanted``, besides ``framing``."""
        super().__init__(wanted)
        self._framing = framing

    def __contains__(self, value: object) -> bool:
        return value in self._framing or super().__contains__(value)

    def read(self, value: ChunkHash, buffer: memoryview | None = None) -> memoryview | None:
        """Return a chunk's bytes, or None if they are no longer what they were."""
        frame = self._framing.get(value)
        return super().read(value, buffer) if frame is None else memoryview(frame)

    def share(self, value: ChunkHash, fd: int, offset: int, length: int) -> bool:
        """Share a chunk's blocks; framing has none."""
        return value not in self._framing and super().share(value, fd, offset, length)
