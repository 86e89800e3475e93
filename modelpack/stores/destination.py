"""A directory that mirrors an artifact: what pull fills and verify checks.

Owns ``DEST/.modelpack/``: the lock, the receipt of what the last pull put there, the artifact's
metadata, and the staging directory; and the last step, in which finished files get their names.
Leaves out where bytes come from.

The promises, after a crash at any instant: a file under its final name is complete and verified;
files that no pull put there are as they were; the next pull goes on from what is there.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from modelpack import metadata
from modelpack.chunkindex import MAX_INDEX_BYTES, ChunkIndex, IndexedFile, decode_index
from modelpack.content import PIECE_BYTES
from modelpack.digest import chunk_hash
from modelpack.errors import FormatError, IntegrityError, UsageError
from modelpack.events import Observer, Warned
from modelpack.manifest import canonical_json, load_json
from modelpack.paths import METADATA_DIR, parent_of, parents_of
from modelpack.scan import identity_of
from modelpack.stores.files import (
    Tree,
    check_own_directory,
    is_own_directory,
    locked,
    make_directory,
    mapped_errors,
    remove_leftovers,
    write_atomically,
)
from modelpack.stores.receipts import MAX_RECEIPT_BYTES, RECEIPT, Receipt, is_untouched

MANIFEST = "manifest.json"
_LOCK = "lock"
STAGING = "staging"


class Destination:
    """A locked destination directory."""

    def __init__(self, path: Path, observer: Observer) -> None:
        """Read the state of an existing, locked directory; use ``open_destination``."""
        self.path = path
        self.state = path / METADATA_DIR
        self._observer = observer
        self.tree = Tree(path)
        self._by_path: Mapping[str, IndexedFile] = {}
        try:
            self.receipt = self._read_receipt()
            self.previous = self._read_index()
            """The chunk index of the last pull, if it is there and valid."""
            # Then there is no need to look for each of a million files.
            self._is_bare = self._has_nothing()
        except BaseException:
            self.close()
            raise

    def in_place(self, file: IndexedFile, index: ChunkIndex, *, rehash: bool) -> bool:
        """Tell whether a file is there, complete and right.

        A file that nobody touched since a pull verified it is believed, unless ``rehash``.

        Raises:
            IntegrityError: something that is no file, or a link, is in the way.
        """
        status = self._stat(file.path)
        if status is None or status.st_size != file.size:
            return False
        known = self.receipt.files.get(file.path) if self.receipt else None
        untouched = is_untouched(known, status)
        before = self._by_path.get(file.path)
        if untouched and before is not None and self.previous is not None:
            # The last pull verified chunks. What its index says of whole files nobody has proved,
            # and it may be another publisher's.
            if not rehash and self.previous.run_of(before) == index.run_of(file):
                return True
            if before.blake3 != file.blake3:
                return False
        return self._hashes_right(file, index)

    def owns(self, path: str) -> bool:
        """Tell whether a pull put a file of this name here."""
        return self.receipt is not None and path in self.receipt.owned

    def tell_of_edits(self, paths: list[str]) -> None:
        """Warn of files about to be replaced that somebody changed since they were pulled."""
        for path in paths:
            known = self.receipt.files.get(path) if self.receipt else None
            status = self._stat(path) if known else None
            if status is not None and not self._is_pulled(path, status):
                self._observer(
                    Warned(
                        message=f"{self.path / path} was changed since it was pulled; "
                        "it is replaced by the artifact's"
                    )
                )

    def refuse_strangers(self, paths: list[str]) -> None:
        """Prove that none of the paths to be written holds a file that no pull put there.

        Raises:
            UsageError: one does.
        """
        owned = self.receipt.owned if self.receipt else frozenset()
        for path in paths:
            if path not in owned and self._stat(path) is not None:
                raise UsageError(
                    f"{self.path / path} exists, differs, and was not put there by a pull; "
                    "move it away, or overwrite it with --force"
                )

    def check_way(self, paths: Iterable[str]) -> None:
        """Prove that only what pulls put here, and nobody changed, must go for these paths.

        A name may be a file's in one version and a directory's in the next.

        Raises:
            UsageError: something else is where a directory or a file has to be.
        """
        for path in paths:
            obstacles = self._obstacles(path)
            changed = [item for item in obstacles if not self._is_pulled_now(item)]
            strangers = self._strangers_below(path) if obstacles else []
            for item in (*changed, *strangers)[:1]:
                raise UsageError(
                    f"{self.path / item} is in the way of {path!r} and is not as a pull left it; "
                    "move it away"
                )

    def _obstacles(self, path: str) -> list[str]:
        """Return the files of earlier pulls that stand where ``path`` needs something else.

        They are a file where it needs a directory, or those in a directory of its own name.

        Raises:
            IntegrityError: a link or another kind of file is on the way.
        """
        if self._is_bare:
            return []
        try:
            self.tree.stat(path)
        except IntegrityError:
            owned = self.receipt.owned if self.receipt else frozenset()
            found = [above for above in parents_of(path) if above in owned]
            found += [item for item in owned if item.startswith(f"{path}/")]
            there = sorted(item for item in found if self.tree.stat(item) is not None)
            if not there:
                raise
            return there
        return []

    def _strangers_below(self, path: str) -> list[str]:
        """Return what is in a directory named ``path`` and was not put there by a pull."""
        owned = self.receipt.owned if self.receipt else frozenset()
        directories = {above for item in owned for above in parents_of(item)}
        found = []
        with suppress(FileNotFoundError, IntegrityError), self.tree.parent(f"{path}/.") as (fd, _):
            for place, inner, files, _ in os.fwalk(".", dir_fd=fd):
                below = os.path.normpath(os.path.join(path, place))
                found += [f"{below}/{name}" for name in files if f"{below}/{name}" not in owned]
                found += [
                    f"{below}/{name}" for name in inner if f"{below}/{name}" not in directories
                ]
        return found

    def _stat(self, path: str) -> os.stat_result | None:
        """Return a file's status; None also if only files of earlier pulls are in its way."""
        if self._is_bare:
            return None
        try:
            return self.tree.stat(path)
        except IntegrityError:
            if self._obstacles(path):
                return None
            raise

    def staging_path(self, key: bytes) -> Path:
        """Return the staging directory of an artifact, and remove those of others."""
        root = self.state / STAGING
        mine = root / key.hex()[:32]
        with mapped_errors(f"cannot use {root}"):
            with suppress(FileExistsError):
                root.mkdir(mode=0o700)
            for directory in (root, mine):
                if os.path.lexists(directory):
                    check_own_directory(directory)
            for name in os.listdir(root):
                if name != mine.name and is_own_directory(root / name):
                    for old in os.listdir(root / name):
                        os.unlink(root / name / old)
                    os.rmdir(root / name)
        return mine

    def begin_placing(self, reference: str, digest: str, paths: list[str]) -> None:
        """Record the paths that are about to be written, then remove what is in their way.

        ``check_way`` has been asked about them.
        """
        old = self.receipt
        self._write_receipt(
            Receipt(
                reference=old.reference if old else reference,
                digest=old.digest if old else digest,
                complete=False,
                selected=old.selected if old else False,
                files=old.files if old else {},
                owned=(old.owned if old else frozenset()) | frozenset(paths),
            )
        )
        was_bare, self._is_bare = self._is_bare, False
        for path in () if was_bare else paths:
            for obstacle in self._obstacles(path):
                self.tree.unlink(obstacle)

    def equals(self, path: str, other: Path) -> bool:
        """Tell whether the file at ``path`` has the same bytes as ``other``."""
        status = self._stat(path)
        if status is None or status.st_size != other.stat().st_size:
            return False
        with open(self.tree.open(path), "rb") as mine, other.open("rb") as theirs:
            while piece := mine.read(PIECE_BYTES):
                if piece != theirs.read(PIECE_BYTES):
                    return False
        return True

    def place(self, source: Path, path: str, mode: int) -> None:
        """Move a finished, durable file from the staging directory to its name.

        Raises:
            IntegrityError: a link or a directory is in the way.
        """
        with mapped_errors(f"cannot write {self.path}/{path}"):
            os.chmod(source, mode)
        self.tree.take_in(source, path)

    def set_mode(self, path: str, mode: int) -> None:
        """Give a file that is in place the mode the artifact says."""
        with mapped_errors(f"cannot set the mode of {self.path / path}"):
            fd = self.tree.open(path)
            try:
                if os.fstat(fd).st_mode & 0o7777 != mode:
                    os.fchmod(fd, mode)
            finally:
                os.close(fd)

    def finish(
        self,
        *,
        reference: str,
        digest: str,
        manifest: bytes,
        paths: list[str],
        selected: bool,
        metadata_files: Mapping[str, bytes],
    ) -> int:
        """Make the placed files durable, drop what the artifact lacks, write the receipt.

        Returns how many files of earlier pulls were removed.
        """
        with mapped_errors(f"cannot write to {self.path}"):
            self._sync_parents(paths)
            removed = self._remove_superseded(set(paths))
            # The old index says what a file of an old name should hold: both are gone, or neither.
            self._sync_parents(removed)
            for name, data in metadata_files.items():
                write_atomically(self.state / name, data)
            for name in os.listdir(self.state):
                if metadata.is_name(name) and name not in metadata_files:
                    with suppress(IsADirectoryError):  # nothing of ours
                        os.unlink(self.state / name)
            write_atomically(self.state / MANIFEST, manifest)
            identities = {}
            for path in paths:
                status = self.tree.stat(path)
                if status is None:
                    raise IntegrityError(f"{self.path / path} vanished; run pull again")
                identities[path] = identity_of(status)
            self._write_receipt(
                Receipt(
                    reference=reference,
                    digest=digest,
                    complete=True,
                    selected=selected,
                    files=identities,
                    owned=frozenset(identities),
                )
            )
            self._remove_staging()
        return len(removed)

    def close(self) -> None:
        """Give the directory up."""
        self.tree.close()

    def _hashes_right(self, file: IndexedFile, index: ChunkIndex) -> bool:
        with mapped_errors(f"cannot read {self.path / file.path}"):
            fd = self.tree.open(file.path)
            try:
                return all(
                    chunk_hash(os.pread(fd, index.lengths[chunk], index.offsets[chunk]))
                    == index.hash_of(chunk)
                    for chunk in file.chunks
                )
            finally:
                os.close(fd)

    def _sync_parents(self, paths: Iterable[str]) -> None:
        """Make durable what happened to names in the directories above these paths."""
        directories = set()
        for path in paths:
            above = path
            while above and (above := parent_of(above)) not in directories:
                directories.add(above)
        for directory in directories:
            place = f"{directory}/." if directory else "."
            with suppress(FileNotFoundError), self.tree.parent(place) as (fd, _):
                os.fsync(fd)

    def _remove_superseded(self, keep: set[str]) -> list[str]:
        """Remove the files of earlier pulls that are not to be kept, if nobody changed them."""
        removed: list[str] = []
        directories = {above for path in keep for above in parents_of(path)}
        for path in sorted(self.receipt.owned - keep) if self.receipt else ():
            if path in directories or not keep.isdisjoint(parents_of(path)):
                continue  # it had to go before, or its name would now lead elsewhere
            status = self.tree.stat(path)
            if status is None:
                continue
            if not self._is_pulled(path, status):
                self._observer(
                    Warned(
                        message=f"{self.path / path} is not part of this version, but was changed "
                        "since it was pulled; it is left where it is"
                    )
                )
                continue
            self.tree.unlink(path)
            removed.append(path)
        return removed

    def _is_half_way(self, path: str) -> bool:
        """Tell whether a pull that was stopped may have put a file of a new name there."""
        return (
            self.receipt is not None
            and not self.receipt.complete
            and path in self.receipt.owned
            and path not in self.receipt.files
        )

    def _is_pulled_now(self, path: str) -> bool:
        status = self.tree.stat(path)
        return status is None or self._is_pulled(path, status)

    def _is_pulled(self, path: str, status: os.stat_result) -> bool:
        """Tell whether a file is what the last pull, or a stopped one since, put there."""
        if self.receipt and is_untouched(self.receipt.files.get(path), status):
            return True
        if self._is_half_way(path):
            return True
        file = self._by_path.get(path)  # it may have been copied or touched since
        return (
            self.previous is not None
            and file is not None
            and file.size == status.st_size
            and self._hashes_right(file, self.previous)
        )

    def _has_nothing(self) -> bool:
        try:
            return os.listdir(self.tree.fd) == [METADATA_DIR]
        except PermissionError:  # one may write in a directory one may not read
            return False

    def _remove_staging(self) -> None:
        root = self.state / STAGING
        if not is_own_directory(root):
            return
        with suppress(OSError):  # not empty: another version's, which the next pull removes
            for name in os.listdir(root):
                os.rmdir(root / name)
            root.rmdir()

    def _read_receipt(self) -> Receipt | None:
        raw = self._read(RECEIPT, MAX_RECEIPT_BYTES)
        try:
            return None if raw is None else Receipt.from_json(load_json(raw, RECEIPT))
        except FormatError as error:
            self._observer(Warned(message=f"{self.state / RECEIPT} is not usable: {error}"))
            return None

    def _read_index(self) -> ChunkIndex | None:
        raw = self._read(metadata.CHUNKS, MAX_INDEX_BYTES) if self.receipt else None
        try:
            index = None if raw is None else decode_index(raw)
        except FormatError as error:
            self._observer(Warned(message=f"{self.state / metadata.CHUNKS} is damaged: {error}"))
            return None
        self._by_path = index.by_path() if index else {}
        return index

    def _read(self, name: str, limit: int) -> bytes | None:
        """Return the first ``limit`` bytes of a file of the state directory, None without one."""
        try:
            fd = self.tree.open(f"{METADATA_DIR}/{name}")
        except FileNotFoundError:
            return None
        with mapped_errors(f"cannot read {self.state / name}"), open(fd, "rb") as file:
            return file.read(limit)

    def _write_receipt(self, receipt: Receipt) -> None:
        with mapped_errors(f"cannot write to {self.state}"):
            write_atomically(self.state / RECEIPT, canonical_json(receipt.to_json()))


@contextmanager
def open_destination(path: Path, observer: Observer) -> Iterator[Destination]:
    """Make and lock a destination; another pull into it waits until this one is done.

    Raises:
        UsageError: the path is something else than a directory.
        IntegrityError: its ``.modelpack`` is a link or no directory.
    """
    with mapped_errors(f"cannot use {path}"):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} exists and is not a directory")
        make_directory(path)
        state = path / METADATA_DIR
        with suppress(FileExistsError):
            state.mkdir(mode=0o755)
        # Whoever owns DEST decides about everything in it anyway.
        check_own_directory(state, or_of={path.stat().st_uid})
    with _lock(state, observer):
        with mapped_errors(f"cannot use {state}"):
            remove_leftovers(state)
        destination = Destination(path, observer)
        try:
            yield destination
        finally:
            destination.close()


@contextmanager
def _lock(state: Path, observer: Observer) -> Iterator[None]:
    path = state / _LOCK
    with ExitStack() as stack:
        with mapped_errors(f"cannot lock {path}"):
            try:
                stack.enter_context(locked(path, wait=False))
            except BlockingIOError:
                observer(
                    Warned(message=f"another pull into {state.parent} is running; waiting for it")
                )
                stack.enter_context(locked(path))
        yield
