"""A directory that mirrors an artifact: what pull fills and verify checks.

Owns ``DEST/.modelpack/``: the lock, the receipt of what the last pull put there, the artifact's
metadata, and the staging directory; and the last step, in which finished files get their names.
Leaves out where bytes come from.

The promises, after a crash at any instant: a file under its final name is complete and verified;
files that no pull put there are as they were; the next pull goes on from what is there.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelpack import metadata
from modelpack.chunkindex import ChunkIndex, IndexedFile, decode_index
from modelpack.content import PIECE_BYTES
from modelpack.digest import chunk_hash
from modelpack.errors import FormatError, IntegrityError, UsageError
from modelpack.events import Observer, Warned
from modelpack.manifest import canonical_json, load_json
from modelpack.paths import METADATA_DIR, check_path
from modelpack.scan import identity_of
from modelpack.stores.files import Tree, locked, mapped_errors, sync_directory, write_atomically

RECEIPT = "receipt.json"
MANIFEST = "manifest.json"
_LOCK = "lock"
_STAGING = "staging"
_RECEIPT_VERSION = 1
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


class Destination:
    """A locked destination directory."""

    def __init__(self, path: Path, observer: Observer) -> None:
        """Read the state of an existing, locked directory; use ``open_destination``."""
        self.path = path
        self.state = path / METADATA_DIR
        self._observer = observer
        self.tree = Tree(path)
        self.receipt = self._read_receipt()
        self._by_path: Mapping[str, IndexedFile] = {}
        self.previous = self._read_index()
        """The chunk index of the last pull, if it is there and valid."""

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
        untouched = known == identity_of(status)
        before = self._by_path.get(file.path)
        if untouched and before is not None and not rehash:
            return before.blake3 == file.blake3
        if untouched and before is not None and before.blake3 != file.blake3:
            return False
        return self._hashes_right(file, index)

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
        root = self.state / _STAGING
        mine = root / key.hex()[:32]
        with mapped_errors(f"cannot use {root}"):
            root.mkdir(mode=0o700, exist_ok=True)
            for directory in (root, mine):
                if os.path.lexists(directory) and not _is_own_directory(directory):
                    raise IntegrityError(
                        f"{directory} is not a directory of its own; remove it first"
                    )
            for name in os.listdir(root):
                if name != mine.name and _is_own_directory(root / name):
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
            for directory in {(self.path / path).parent for path in paths}:
                sync_directory(directory)
            removed = self._remove_superseded(set(paths))
            for name, data in metadata_files.items():
                write_atomically(self.state / name, data)
            for name in (metadata.CHUNKS, metadata.MODEL, metadata.SBOM):
                if name not in metadata_files:
                    with suppress(FileNotFoundError):
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
        return removed

    def close(self) -> None:
        """Give the directory up."""
        self.tree.close()

    def _hashes_right(self, file: IndexedFile, index: ChunkIndex) -> bool:
        fd = self.tree.open(file.path)
        try:
            return all(
                chunk_hash(os.pread(fd, index.lengths[chunk], index.offsets[chunk]))
                == index.hash_of(chunk)
                for chunk in file.chunks
            )
        finally:
            os.close(fd)

    def _remove_superseded(self, keep: set[str]) -> int:
        """Remove the files of earlier pulls that are not to be kept, if nobody changed them."""
        if self.receipt is None:
            return 0
        removed = 0
        for path in sorted(self.receipt.owned - keep):
            status = self.tree.stat(path)
            if status is None:
                continue
            if self.receipt.files.get(path) != identity_of(status):
                self._observer(
                    Warned(
                        message=f"{self.path / path} is not part of this version, but was changed "
                        "since it was pulled; it is left where it is"
                    )
                )
                continue
            self.tree.unlink(path)
            removed += 1
        return removed

    def _remove_staging(self) -> None:
        root = self.state / _STAGING
        if not _is_own_directory(root):
            return
        with suppress(OSError):  # not empty: another version's, which the next pull removes
            for name in os.listdir(root):
                os.rmdir(root / name)
            root.rmdir()

    def _read_receipt(self) -> Receipt | None:
        try:
            with (self.state / RECEIPT).open("rb") as file:
                raw = file.read(_MAX_RECEIPT_BYTES)
            return Receipt.from_json(load_json(raw, RECEIPT))
        except FileNotFoundError:
            return None
        except FormatError as error:
            self._observer(Warned(message=f"{self.state / RECEIPT} is not usable: {error}"))
            return None

    def _read_index(self) -> ChunkIndex | None:
        if self.receipt is None:
            return None
        try:
            index = decode_index((self.state / metadata.CHUNKS).read_bytes())
        except FileNotFoundError:
            return None
        except FormatError as error:
            self._observer(Warned(message=f"{self.state / metadata.CHUNKS} is damaged: {error}"))
            return None
        self._by_path = index.by_path()
        return index

    def _write_receipt(self, receipt: Receipt) -> None:
        with mapped_errors(f"cannot write to {self.state}"):
            write_atomically(self.state / RECEIPT, canonical_json(receipt.to_json()))


def _is_own_directory(path: Path) -> bool:
    """Tell whether a path is a directory and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


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
        path.mkdir(parents=True, exist_ok=True)
        state = path / METADATA_DIR
        with suppress(FileExistsError):
            state.mkdir(mode=0o755)
        if not _is_own_directory(state):
            raise IntegrityError(f"{state} is not a directory of its own; remove it first")
    with _lock(state, observer):
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
        return Receipt.from_json(json.loads((directory / METADATA_DIR / RECEIPT).read_bytes()))
    except (OSError, ValueError, FormatError):
        return None
