"""Chunks that are on this machine already: an earlier version, a seed directory.

Owns finding a chunk by its hash in local files and reading it, always hashed again: a file may
have changed since its index was written. Leaves out deciding what to reuse (``plan.py``).
"""

import logging
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from modelpack.chunkindex import ChunkIndex, IndexedFile, decode_index
from modelpack.chunking import chunk_lengths
from modelpack.digest import ChunkHash, chunk_hash
from modelpack.errors import FormatError, ModelpackError
from modelpack.metadata import CHUNKS
from modelpack.packing import chunk_lengths_of
from modelpack.paths import METADATA_DIR
from modelpack.scan import ScannedFile, scan_directory
from modelpack.stores.blocks import share_blocks
from modelpack.stores.files import Tree, mapped_errors

_logger = logging.getLogger(__name__)


class LocalChunks:
    """Where wanted chunks can be had on this machine; a container of their hashes."""

    def __init__(self, wanted: Collection[ChunkHash]) -> None:
        """Prepare to look only for these hashes."""
        self._wanted = wanted
        self._places: dict[ChunkHash, tuple[int, str, int, int]] = {}
        self._trees: list[Tree] = []
        # Trees on a file system that shares no blocks, or on another one.
        self._unshared: set[int] = set()

    def __contains__(self, value: object) -> bool:
        return value in self._places

    def add_indexed(self, directory: Path, index: ChunkIndex, files: Iterable[IndexedFile]) -> None:
        """Offer files of a directory whose chunks an index knows."""
        number = self._add_tree(directory)
        for file in files:
            for chunk in file.chunks:
                value = index.hash_of(chunk)
                if value in self._wanted:
                    place = (number, file.path, index.offsets[chunk], index.lengths[chunk])
                    self._places.setdefault(value, place)

    def add_directory(self, directory: Path) -> None:
        """Offer every file of a directory: by its own index if it was pulled, else by hashing.

        Raises:
            NotFoundError, UsageError: there is no such directory.
        """
        try:
            index = decode_index((directory / METADATA_DIR / CHUNKS).read_bytes())
        except (OSError, FormatError):
            self._hash_directory(directory)
        else:
            self.add_indexed(directory, index, index.files)

    def read(self, value: ChunkHash, buffer: memoryview | None = None) -> memoryview | None:
        """Return a chunk's bytes, or None if they are no longer what they were.

        They are in ``buffer``, if one is given that is long enough.
        """
        _, _, offset, length = self._places[value]
        if buffer is None or len(buffer) < length:
            buffer = memoryview(bytearray(length))
        fd = self._open(value)
        if fd is None:
            return None
        try:
            data = buffer[: os.preadv(fd, [buffer[:length]], offset)]
        except OSError:  # a disk that fails
            return None
        finally:
            os.close(fd)
        return data if chunk_hash(data) == value else None

    def share(self, value: ChunkHash, fd: int, offset: int, length: int) -> bool:
        """Have a file share a chunk's blocks with the file that has it, unverified.

        False if that cannot be; then the chunk has to be read.
        """
        number, _, start, known = self._places[value]
        if length != known or number in self._unshared:
            return False
        source = self._open(value)
        if source is None:
            return False
        try:
            return share_blocks(source, start, fd, offset, length)
        except OSError as error:
            _logger.debug("no blocks are shared with %s: %s", self._trees[number].root, error)
            self._unshared.add(number)
            return False
        finally:
            os.close(source)

    def close(self) -> None:
        """Give the directories up."""
        for tree in self._trees:
            tree.close()
        self._trees.clear()

    def _open(self, value: ChunkHash) -> int | None:
        number, path, _, _ = self._places[value]
        try:
            return self._trees[number].open(path)
        except (FileNotFoundError, ModelpackError):
            return None

    def _add_tree(self, directory: Path) -> int:
        self._trees.append(Tree(directory))
        return len(self._trees) - 1

    def _hash_directory(self, directory: Path) -> None:
        scan = scan_directory(directory)
        root = Path(os.path.realpath(directory))
        # One open directory, and the blobs/ of a Hugging Face cache, to which its links lead.
        numbers = {root: self._add_tree(root)}
        for file in scan.files:
            above = root if file.source.is_relative_to(root) else file.source.parent
            if above not in numbers:
                numbers[above] = self._add_tree(above)
            path = file.source.relative_to(above).as_posix()
            with mapped_errors(f"cannot read {file.source}"):
                self._hash_file(file, numbers[above], path)

    def _hash_file(self, file: ScannedFile, number: int, path: str) -> None:
        fd = os.open(file.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            offset = 0
            for length in _lengths(fd, file):
                value = chunk_hash(os.pread(fd, length, offset))
                if value in self._wanted:
                    self._places.setdefault(value, (number, path, offset, length))
                offset += length
        finally:
            os.close(fd)


def _lengths(fd: int, file: ScannedFile) -> Iterable[int]:
    try:
        return chunk_lengths_of(fd, file.path, file.size)
    except FormatError:  # a download that broke off: what it holds may do all the same
        return chunk_lengths(file.size, None)
