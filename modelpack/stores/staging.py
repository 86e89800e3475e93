"""Where a pull in progress keeps its files: partial files and a journal of verified chunks.

Owns the staging directory. After a crash at any instant, opening it again tells which chunks are
verified: those the journal lists (their bytes were on disk before the journal was), and those
whose bytes hash right now. Leaves out moving finished files to where they belong
(``stores/destination.py``, ``runtime/``).

Layout, under a directory that only its owner may enter (a file swapped between its verification
and its use is CVE-2026-4137):

```text
journal     32 bytes key, then one bit for each chunk
NUMBER      the partial file number NUMBER of the chunk index
```
"""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from modelpack.chunkindex import ChunkIndex
from modelpack.digest import ChunkHash, chunk_hash
from modelpack.errors import SpaceError
from modelpack.events import Moved, Observer
from modelpack.plan import ChunkMap
from modelpack.stores.blocks import (
    SYNC_ALL_FROM,
    WORTH_SHARING,
    allocate,
    is_written,
    sync_file_system,
    write_back,
)
from modelpack.stores.files import mapped_errors, sync_directory
from modelpack.stores.pagecache import open_direct, placed, put

_logger = logging.getLogger(__name__)

JOURNAL = "journal"
# A crash costs at most this much re-hashing.
_SYNC_BYTES = 256 * 1024 * 1024
_SYNC_SECONDS = 2.0
_MAX_OPEN_FILES = 128
# Of smaller files there are many, and a system call for each takes longer than it saves.
_WORTH_A_CALL = 256 * 1024
# Room for directories, the journal and the metadata besides the files themselves.
_RESERVE_BYTES = 1024 * 1024
_KEY_BYTES = 32


class ChunkSource(Protocol):
    """Where chunks can be had on this machine, as ``reuse.LocalChunks``."""

    def share(self, value: ChunkHash, fd: int, offset: int, length: int) -> bool:
        """Have a file share a chunk's blocks, unverified; False if that cannot be."""

    def read(self, value: ChunkHash, buffer: memoryview) -> memoryview | None:
        """Return a chunk's verified bytes, in ``buffer`` or elsewhere; None if they are not there."""


class Staging:
    """The partial files of one artifact; a ``download.Sink`` that several threads write to."""

    def __init__(
        self,
        directory: Path,
        *,
        key: bytes,
        chunk_map: ChunkMap,
        files: Iterable[int],
        observer: Observer,
    ) -> None:
        """Open or make the staging directory for the files with these numbers.

        ``key`` (32 bytes) identifies the chunk index; a journal with another is not believed.

        Raises:
            SpaceError: the files will not fit.
            ModelpackError: the directory cannot be used.
        """
        self.directory = directory
        self._map = chunk_map
        self._index: ChunkIndex = chunk_map.index
        self._key = key
        self.files = tuple(files)
        self._observer = observer
        self._lock = threading.Lock()
        # One directory takes one new file at a time, and the kernel spins while it waits for that.
        self._making = threading.Lock()
        self._open: OrderedDict[int, int] = OrderedDict()
        self._direct: dict[int, int] = {}
        self._passes_cache = False
        self._in_use: dict[int, int] = {}
        self._dirty: set[int] = set()
        self._allocated: set[int] = set()
        self._unsynced: list[int] = []
        self._unsynced_bytes = 0
        self._bits = bytearray((self._index.chunk_count + 7) // 8)
        self._wake = threading.Event()
        self._stopping = False
        self._failure: BaseException | None = None
        self.verified_chunks: set[int] = set()
        self.fetched_bytes = 0
        """Content that came over the wire in this run."""
        self._journal = -1
        self._syncer = threading.Thread(target=self._sync_loop, name="modelpack-sync", daemon=True)
        try:
            with mapped_errors(f"cannot use {directory}"):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                directory.chmod(0o700)
                self._check_space()
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._journal = os.open(directory / JOURNAL, flags, 0o600)
            self._recover()
        except BaseException:
            self.close()
            raise
        self._syncer.start()

    # --- writing -----------------------------------------------------------------------------

    def pass_page_cache(self) -> None:
        """From now on write past the page cache what lies in memory as ``pagecache`` wants it."""
        self._passes_cache = True

    def write(self, chunk: int, offset: int, data: memoryview) -> None:
        """Put bytes at ``offset`` of a chunk.

        Raises:
            SpaceError: the file system is full.
        """
        number = self._map.file_of[chunk]
        file = self._index.files[number]
        with mapped_errors(f"cannot write {file.path}"):
            if len(data) == file.size < _WORTH_A_CALL:
                self._write_file(number, data)
                return
            with self._file(number) as fd:
                self._allocate(number, fd)
                position = self._index.offsets[chunk] + offset
                put(fd, data, position, direct=self._direct_of(number))

    def verified(self, chunks: Sequence[int]) -> None:
        """Take note that chunks are written and match their hashes."""
        self._note(chunks, reused=False)

    def copied(self, chunks: Sequence[int]) -> None:
        """Take note that chunks were copied from this machine and match their hashes."""
        self._note(chunks, reused=True)

    def take(self, chunk: int, source: ChunkSource, buffer: memoryview) -> bool:
        """Bring a chunk from elsewhere on this machine; False if it is no longer there.

        Where the file system can, its blocks are shared rather than copied. Either way it is hashed
        as it is here, or as it was written. ``buffer`` is an aligned one for any chunk.

        Raises:
            SpaceError: the file system is full.
        """
        number = self._map.file_of[chunk]
        position, length = self._index.offsets[chunk], self._index.lengths[chunk]
        value = self._index.hash_of(chunk)
        with (
            mapped_errors(f"cannot write {self._index.files[number].path}"),
            self._file(number) as fd,
        ):
            memory = placed(buffer, position, length)
            shared = source.share(value, fd, position, length)
            if not (shared and _holds(fd, memory, position, value)):
                data = source.read(value, memory)
                # A forged index may give a known hash another length, which would run into the next.
                if data is None or len(data) != length:
                    return False
                # A chunk too small to be shared says nothing of those that follow it.
                if length >= WORTH_SHARING:
                    self._allocate(number, fd)
                put(fd, data, position, direct=self._direct_of(number))
        self.copied((chunk,))
        return True

    def read(self, chunk: int) -> bytes:
        """Return a chunk's bytes from its partial file."""
        number = self._map.file_of[chunk]
        with self._file(number) as fd:
            return os.pread(fd, self._index.lengths[chunk], self._index.offsets[chunk])

    def path(self, number: int) -> Path:
        """Return where file ``number`` is being built."""
        return self.directory / str(number)

    def _write_back(self, chunk: int) -> None:
        """Keep the disk busy from the first chunk on, so that the last sync is a short one."""
        if self._passes_cache or self._index.lengths[chunk] < _WORTH_A_CALL:
            return
        with self._file(self._map.file_of[chunk]) as fd:
            write_back(fd, self._index.offsets[chunk], self._index.lengths[chunk])

    def _note(self, chunks: Sequence[int], *, reused: bool) -> None:
        for chunk in chunks:
            self._write_back(chunk)
        with self._lock:
            if self._failure is not None:
                raise self._failure
            for chunk in chunks:
                length = self._index.lengths[chunk]
                number = self._map.file_of[chunk]
                self.verified_chunks.add(chunk)
                self.fetched_bytes += 0 if reused else length
                self._unsynced.append(chunk)
                self._dirty.add(number)
                self._unsynced_bytes += length
                path = self._index.files[number].path
                self._observer(Moved(item=path, size=length, reused=reused))
            if self._unsynced_bytes >= _SYNC_BYTES:
                self._wake.set()

    def _write_file(self, number: int, data: memoryview) -> None:
        """Write a whole small file, of which there may be thousands, with as few calls as it takes."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with self._making:
            fd = os.open(f"{self.directory}/{number}", flags, 0o600)
        try:
            put(fd, data, 0)
        finally:
            os.close(fd)

    @contextmanager
    def _file(self, number: int) -> Iterator[int]:
        """Lend the descriptor of a partial file, keeping a bounded number open."""
        with self._lock:
            fd = self._open.pop(number, -1)
            if fd < 0:
                fd = self._create(number)
            self._open[number] = fd
            self._in_use[number] = self._in_use.get(number, 0) + 1
            self._close_surplus()
        try:
            yield fd
        finally:
            with self._lock:
                self._in_use[number] -= 1
                if not self._in_use[number]:
                    del self._in_use[number]

    def _create(self, number: int) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path(number), flags, 0o600)
        size = self._index.files[number].size
        if os.fstat(fd).st_size != size:
            try:
                os.ftruncate(fd, size)
            except BaseException:
                os.close(fd)
                raise
        return fd

    def _allocate(self, number: int, fd: int) -> None:
        """Give a file its place on the disk before it is written to.

        Not before blocks are shared: some file systems would keep the place that these replace.
        """
        if number in self._allocated or self._index.files[number].size < _WORTH_A_CALL:
            return
        with self._lock:
            if number not in self._allocated:
                allocate(fd, self._index.files[number].size)
                self._allocated.add(number)

    def _direct_of(self, number: int) -> int:
        """Return a descriptor of a file in use that passes the page cache, -1 for none."""
        if not self._passes_cache:
            return -1
        with self._lock:
            if number not in self._direct:
                self._direct[number] = open_direct(self.path(number))
            return self._direct[number]

    def _close_surplus(self) -> None:
        for number in list(self._open):
            if len(self._open) <= _MAX_OPEN_FILES:
                return
            if number not in self._in_use:
                self._close_file(number)

    def _close_file(self, number: int) -> None:
        os.close(self._open.pop(number))
        direct = self._direct.pop(number, -1)
        if direct >= 0:
            os.close(direct)

    # --- durability --------------------------------------------------------------------------

    def _sync_loop(self) -> None:
        while not self._stopping:
            self._wake.wait(_SYNC_SECONDS)
            self._wake.clear()
            try:
                self.sync()
            except BaseException as error:  # noqa: BLE001 - raised by the next chunk
                with self._lock:
                    self._failure = error
                return

    def sync(self) -> None:
        """Make every chunk noted so far survive a power loss, then list it in the journal.

        Raises:
            SpaceError, ModelpackError: the disk refused; the journal is unchanged.
        """
        with self._lock:
            chunks, self._unsynced, self._unsynced_bytes = self._unsynced, [], 0
            numbers, self._dirty = self._dirty, set()
        if not chunks:
            return
        with mapped_errors(f"cannot write to {self.directory}"):
            if len(numbers) >= SYNC_ALL_FROM:
                sync_file_system(self._journal)
            else:
                for number in numbers:
                    with self._file(number) as fd:
                        os.fdatasync(fd)
            for chunk in chunks:
                self._bits[chunk >> 3] |= 1 << (chunk & 7)
            self._write_journal()

    def _write_journal(self) -> None:
        data = memoryview(self._key + self._bits)
        position = 0
        while position < len(data):
            position += os.pwrite(self._journal, data[position:], position)
        os.fdatasync(self._journal)

    # --- coming back -------------------------------------------------------------------------

    def _recover(self) -> None:
        """Find out which chunks an earlier, interrupted run left here."""
        with mapped_errors(f"cannot read {self.directory}"):
            stored = os.pread(self._journal, _KEY_BYTES + len(self._bits), 0)
            if stored[:_KEY_BYTES] == self._key and len(stored) == _KEY_BYTES + len(self._bits):
                self._bits[:] = stored[_KEY_BYTES:]
            else:
                os.ftruncate(self._journal, 0)
            sizes = {number: self._partial_size(number) for number in self.files}
            lost = [n for n, size in sizes.items() if size != self._index.files[n].size]
            # A lost file is made again in full length: before that, the journal must stop vouching
            # for it, or its holes would pass for content after a crash.
            if sum(self._forget(number) for number in lost):
                self._write_journal()
            for number, size in sizes.items():
                if size is not None:
                    self._recover_file(number)

    def _partial_size(self, number: int) -> int | None:
        try:
            return os.stat(self.path(number), follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def _forget(self, number: int) -> int:
        """Take a file's chunks off the journal's list; return how many were on it."""
        count = 0
        for chunk in self._index.files[number].chunks:
            count += self._bits[chunk >> 3] >> (chunk & 7) & 1
            self._bits[chunk >> 3] &= ~(1 << (chunk & 7))
        return count

    def _recover_file(self, number: int) -> None:
        with self._file(number) as fd:
            for chunk in self._index.files[number].chunks:
                if self._bits[chunk >> 3] >> (chunk & 7) & 1:
                    self.verified_chunks.add(chunk)
                elif self._hashes_right(fd, chunk):
                    self.verified_chunks.add(chunk)
                    self._unsynced.append(chunk)
                    self._dirty.add(number)

    def _hashes_right(self, fd: int, chunk: int) -> bool:
        """Tell whether a chunk that the journal does not list is there all the same."""
        start = self._index.offsets[chunk]
        length = self._index.lengths[chunk]
        if not is_written(fd, start, length):
            return False
        return chunk_hash(os.pread(fd, length, start)) == self._index.hash_of(chunk)

    def _check_space(self) -> None:
        needed = _RESERVE_BYTES
        for number in self.files:
            needed += self._index.files[number].size
            try:
                needed -= os.stat(self.path(number), follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
        status = os.statvfs(self.directory)
        free = status.f_bavail * status.f_frsize
        if needed > free:
            raise SpaceError(
                f"{self.directory}: needs {needed / 2**20:,.1f} MiB, {free / 2**20:,.1f} MiB are free; "
                "free some space and run again"
            )

    # --- the end -----------------------------------------------------------------------------

    def complete(self) -> None:
        """Make all partial files durable and stop writing.

        Raises:
            SpaceError, ModelpackError: the disk refused.
        """
        with mapped_errors(f"cannot write to {self.directory}"):
            for number in self.files:  # files without any chunk have not been made yet
                if not self._index.files[number].chunk_count:
                    with self._file(number) as fd:
                        os.fchmod(fd, 0o600)
        self.sync()
        self.close()
        # What the syncer took on before that, and failed at after the last chunk was noted.
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop, keeping what is verified for the next run."""
        self._stopping = True
        self._wake.set()
        if self._syncer.is_alive():
            self._syncer.join()
        with self._lock:
            # After a second interrupt a worker may still write: its descriptor stays its own.
            for number in self._open.keys() - self._in_use.keys():
                self._close_file(number)
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1

    def remove(self) -> None:
        """Remove the directory and what is left in it."""
        for entry in os.scandir(self.directory):
            os.unlink(entry.path)
        self.directory.rmdir()
        sync_directory(self.directory.parent)


def _holds(fd: int, memory: memoryview, position: int, value: ChunkHash) -> bool:
    """Tell whether a file has a chunk at ``position``; one on a disk that fails has not."""
    try:
        return chunk_hash(memory[: os.preadv(fd, [memory], position)]) == value
    except OSError:
        return False
