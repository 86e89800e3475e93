"""The headers of an artifact's tensor files, read through its chunk index.

Owns choosing the files whose first chunks are worth reading and reading them in parallel. Leaves
out the parsers (``tensors/``) and getting at chunks (``indexedfile.py``).

    found = read_headers(index, index.files, layer_chunks(repository, artifact), where=reference)
    print(found.files["model.safetensors"].parameters)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelpack.chunkindex import MAX_CHUNK_BYTES, ChunkIndex, IndexedFile
from modelpack.errors import FormatError
from modelpack.inspecting.indexedfile import IndexedFileReader, ReadChunk
from modelpack.parallel import for_each
from modelpack.tensors import TensorFile, probe

# Headers of shards wait for the network, not for a core.
_THREADS = 4
_SUFFIXES = (".safetensors", ".gguf")
# Of all files together. The shards of the largest models have some 30 MiB; a hostile artifact could
# have a hundred megabytes in each of thousands of files, and a parsed header takes several times
# its length.
MAX_HEADERS_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Headers:
    """What the headers say, by path, and what it cost to know."""

    files: Mapping[str, TensorFile]
    warnings: tuple[str, ...]
    """One line for each file whose header is left out, and why."""
    fetched_bytes: int


def read_headers(
    index: ChunkIndex, files: Sequence[IndexedFile], read_chunk: ReadChunk, *, where: str
) -> Headers:
    """Read and parse the headers of those of ``files`` that hold tensors.

    Only the chunks of the headers are read, each verified before it is parsed; when they come to
    more than ``MAX_HEADERS_BYTES``, the rest is left out.

    Raises:
        IntegrityError: a chunk has other bytes than the index says.
    """
    candidates = [file for file in files if may_hold_tensors(index, file)]
    parsed: dict[str, TensorFile | None] = {}
    faults: dict[str, str] = {}
    readers = {
        file.path: IndexedFileReader(index, file, read_chunk, where=where) for file in candidates
    }

    def read(file: IndexedFile) -> None:
        if sum(reader.fetched_bytes for reader in readers.values()) > MAX_HEADERS_BYTES:
            faults[file.path] = (
                f"{file.path!a} is left out: the headers before it are too large together"
            )
            return
        try:
            parsed[file.path] = read_header(index, file, readers[file.path])
        except FormatError as error:
            faults[file.path] = f"{file.path!a} {error}; its tensors are left out"

    for_each(read, candidates, _THREADS)
    found = {file.path: parsed.get(file.path) for file in candidates}
    return Headers(
        files={path: header for path, header in found.items() if header is not None},
        warnings=tuple(faults[file.path] for file in candidates if file.path in faults),
        fetched_bytes=sum(reader.fetched_bytes for reader in readers.values()),
    )


def read_header(
    index: ChunkIndex, file: IndexedFile, reader: IndexedFileReader
) -> TensorFile | None:
    """Return what a file's header says, None if the file holds no tensors.

    Raises:
        FormatError: the file's name claims a format that its content is not.
    """
    end = _header_end(index, file)

    def read(offset: int, length: int) -> bytes:
        return reader.read(offset, max(0, min(length, end - offset)))

    # A GGUF header does not say how long it is, so its parser reads ahead: stop it at the chunk
    # that ends the header. An index with other chunks than modelpack's costs a second, longer look.
    if end < file.size:
        try:
            found = probe(file.path, read, file.size)
        except FormatError:
            found = None
        if found is not None:
            return found
    return probe(file.path, reader.read, file.size)


def may_hold_tensors(index: ChunkIndex, file: IndexedFile) -> bool:
    """Tell, by name and chunk lengths alone, whether a file may have a tensor header.

    Opaque files are cut every 4 MiB; any other chunks follow tensors (``chunking.py``).
    """
    if not file.size:
        return False
    if file.path.lower().endswith(_SUFFIXES):
        return True
    lengths = index.lengths[file.first_chunk : file.chunks.stop]
    return any(length != MAX_CHUNK_BYTES for length in lengths[:-1])


def _header_end(index: ChunkIndex, file: IndexedFile) -> int:
    """Return where the header's extent ends: with the first chunk that is shorter than the rest."""
    end = 0
    for chunk in file.chunks:
        end += index.lengths[chunk]
        if index.lengths[chunk] < MAX_CHUNK_BYTES:
            break
    return end
