"""Reading any part of a packed file, every byte verified by the chunk index.

Owns random access by way of whole chunks: fetch, compare the BLAKE3, keep the last few. Leaves out
where an index comes from and what the bytes mean.

    reader = IndexedFileReader(index, file, layer_chunks(repository, artifact), where=str(reference))
    header = reader.read(0, 1024)  # fetches one chunk, not the file
"""

import os
from collections import OrderedDict
from collections.abc import Callable

from modelpack.artifact import Artifact
from modelpack.chunkindex import ChunkIndex, IndexedFile
from modelpack.digest import chunk_hash
from modelpack.errors import IntegrityError, NotFoundError
from modelpack.storage import Fetcher, read_all
from modelpack.stores.files import Tree, mapped_errors

# At most 16 MiB a reader: a parser goes forward and now and then looks at the chunk before.
KEPT_CHUNKS = 4

ReadChunk = Callable[[IndexedFile, int], bytes]
"""Returns the bytes of one chunk, by its number in the index; the caller verifies them."""


class IndexedFileReader:
    """A packed file as ``facts.ModelFile``; for one thread."""

    def __init__(
        self, index: ChunkIndex, file: IndexedFile, read_chunk: ReadChunk, *, where: str
    ) -> None:
        """Prepare to read ``file``; ``where`` names the artifact or directory in errors."""
        self._index = index
        self._file = file
        self._read_chunk = read_chunk
        self._where = where
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self.fetched_bytes = 0
        """What was read from the source so far, in whole chunks."""

    @property
    def size(self) -> int:
        """The file's length in bytes."""
        return self._file.size

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` verified bytes at ``offset``; fewer only at the end of the file.

        Raises:
            IntegrityError: the source has other bytes than the index says.
            NotFoundError, NetworkError: the source cannot be read.
        """
        end = min(offset + length, self._file.size)
        parts = []
        while offset < end:
            chunk = self._chunk_at(offset)
            start = self._index.offsets[chunk]
            part = self._chunk(chunk)[offset - start : end - start]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def _chunk_at(self, offset: int) -> int:
        """Return the number of the chunk that holds the byte at ``offset``."""
        low, high = self._file.first_chunk, self._file.chunks.stop
        while high - low > 1:
            middle = (low + high) // 2
            if self._index.offsets[middle] <= offset:
                low = middle
            else:
                high = middle
        return low

    def _chunk(self, chunk: int) -> bytes:
        data = self._kept.get(chunk)
        if data is not None:
            self._kept.move_to_end(chunk)
            return data
        data = self._read_chunk(self._file, chunk)
        self.fetched_bytes += len(data)
        right_length = len(data) == self._index.lengths[chunk]
        if not right_length or chunk_hash(data) != self._index.hash_of(chunk):
            raise IntegrityError(
                f"{self._where}: {self._file.path!a} has other bytes at offset "
                f"{self._index.offsets[chunk]} than its chunk index says; "
                "modelpack verify names everything that differs"
            )
        self._kept[chunk] = data
        while len(self._kept) > KEPT_CHUNKS:
            self._kept.popitem(last=False)
        return data


def layer_chunks(fetcher: Fetcher, artifact: Artifact) -> ReadChunk:
    """Return a way to read chunks from the layers of an artifact, by ranges."""
    index = artifact.index

    def read_chunk(file: IndexedFile, chunk: int) -> bytes:
        length = index.lengths[chunk]
        start = file.offset + index.offsets[chunk]
        with fetcher.open_blob(artifact.data_layers[file.layer], start, length) as stream:
            return read_all(stream, length)

    return read_chunk


def tree_chunks(tree: Tree, index: ChunkIndex) -> ReadChunk:
    """Return a way to read chunks from the files of a directory, following no links."""

    def read_chunk(file: IndexedFile, chunk: int) -> bytes:
        try:
            fd = tree.open(file.path)
        except FileNotFoundError as error:
            raise NotFoundError(f"{tree.root / file.path} is missing; pull again") from error
        try:
            with mapped_errors(f"cannot read {tree.root / file.path}"):
                return os.pread(fd, index.lengths[chunk], index.offsets[chunk])
        finally:
            os.close(fd)

    return read_chunk
