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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelpack import metadata
from modelpack.chunkindex import MAX_INDEX_BYTES, ChunkIndex, IndexedFile, decode_index
from modelpack.content import PIECE_BYTES
from modelpack.digest import chunk_hash
from modelpack.errors import FormatError, IntegrityError, ModelpackError, UsageError
from modelpack.events import Observer, Warned
from modelpack.manifest import canonical_json, load_json
from modelpack.paths import METADATA_DIR, check_path, parent_of
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

RECEIPT = "receipt.json"
MANIFEST = "manifest.json"
_LOCK = "lock"
STAGING = "staging"
_RECEIPT_VERSION = 1
# Every file that an index may name, twice, and its numbers: some 300 bytes each.
_MAX_RECEIPT_BYTES = 256 * 1024 * 1024

Identity = tuple[int, int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What the last pull left in a directory."""

    reference: str
    digest: str
    complete: bool
    """Whether all that was asked for is in place."""
    selected: bool
    """Whether only some of the artifact's files were asked for."""
    files: Mapping[str, Identity] = field(default_factory=dict)
    """The files in place, and what tells that nobody has touched them since."""
    owned: frozenset[str] = frozenset()
    """Every path that a pull has written or is about to write."""

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as JSON."""
        return {
            "version": _RECEIPT_VERSION,
            "reference": self.reference,
            "digest": self.digest,
            "complete": self.complete,
            "selected": self.selected,
            "files": {path: list(identity) for path, identity in sorted(self.files.items())},
            "owned": sorted(self.owned),
        }

    @classmethod
    def from_json(cls, value: Any) -> "Receipt":
        """Read a receipt.

        Raises:
            FormatError: it is not one of this version.
        """
        try:
            if value["version"] != _RECEIPT_VERSION:
                raise FormatError("receipt has another version")
            return cls(
                reference=str(value["reference"]),
                digest=str(value["digest"]),
                complete=value["complete"] is True,
                selected=value["selected"] is True,
                files={
                    check_path(path): (item[0], item[1], item[2], item[3], item[4])
                    for path, item in value["files"].items()
                },
                owned=frozenset(check_path(path) for path in value["owned"]),
            )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise FormatError("receipt is malformed") from error


def is_untouched(known: Identity | None, status: os.stat_result) -> bool:
    """Tell whether a file is as a receipt knows it.

    The device number does not count: a volume has another one on every machine that mounts it.
    """
    return known is not None and known[1:] == identity_of(status)[1:]


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
        except BaseException:
            self.close()
            raise

    def in_place(self, file: IndexedFile, index: ChunkIndex, *, rehash: bool) -> bool:
        """Tell whether a file is there, complete and right.

        A file that nobody touched since a pull verified it is believed, unless ``rehash``.

        Raises:
            IntegrityError: something that is no file, or a link, is in the way.
        """
        status = self.tree.stat(file.path)
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
            status = self.tree.stat(path) if known else None
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
            if path not in owned and self.tree.stat(path) is not None:
                raise UsageError(
                    f"{self.path / path} exists, differs, and was not put there by a pull; "
                    "move it away, or overwrite it with --force"
                )

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
        """Record the paths that are about to be written, before any of them is."""
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

    def equals(self, path: str, other: Path) -> bool:
        """Tell whether the file at ``path`` has the same bytes as ``other``."""
        status = self.tree.stat(path)
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
        with mapped_errors(f"cannot write {self.path / path}"):
            self.tree.stat(path)
            os.chmod(source, mode)
            with self.tree.parent(path, create=True) as (fd, name):
                os.rename(source, name, dst_dir_fd=fd)

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
        for path in sorted(self.receipt.owned - keep) if self.receipt else ():
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

    def _is_pulled(self, path: str, status: os.stat_result) -> bool:
        """Tell whether a file is what the last pull put there."""
        if self.receipt and is_untouched(self.receipt.files.get(path), status):
            return True
        file = self._by_path.get(path)  # it may have been copied or touched since
        return (
            self.previous is not None
            and file is not None
            and file.size == status.st_size
            and self._hashes_right(file, self.previous)
        )

    def _remove_staging(self) -> None:
        root = self.state / STAGING
        if not is_own_directory(root):
            return
        with suppress(OSError):  # not empty: another version's, which the next pull removes
            for name in os.listdir(root):
                os.rmdir(root / name)
            root.rmdir()

    def _read_receipt(self) -> Receipt | None:
        raw = self._read(RECEIPT, _MAX_RECEIPT_BYTES)
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


def read_receipt(directory: Path) -> Receipt | None:
    """Return the receipt of a pulled directory without locking it, None if there is none."""
    try:
        with (directory / METADATA_DIR / RECEIPT).open("rb") as file:
            return Receipt.from_json(load_json(file.read(_MAX_RECEIPT_BYTES), RECEIPT))
    except (OSError, ModelpackError):
        return None
