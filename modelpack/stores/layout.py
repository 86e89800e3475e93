"""An OCI image layout on disk as a repository: ``oci:PATH[:tag]``, needing no server.

Owns reading and writing the layout (image-spec, "Image Layout Specification"): ``oci-layout``,
``index.json``, ``blobs/ALGORITHM/HEX``. Every write is durable and atomic, a blob gets its name
only after its digest matched, and ``index.json`` changes under a lock. Referrers are found by
their manifests' entries in ``index.json``.

    with LayoutRepository(LayoutReference("./store")) as layout:
        print(layout.tags())
"""

import fcntl
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from modelpack.content import PIECE_BYTES, BlobContent, Content
from modelpack.descriptor import (
    INDEX_TYPES,
    MAX_MANIFEST_BYTES,
    REF_NAME,
    Descriptor,
)
from modelpack.digest import Digest
from modelpack.errors import FormatError, IntegrityError, NotFoundError
from modelpack.manifest import Index, Manifest, load_json, parse_manifest
from modelpack.ratelimit import RateLimiter
from modelpack.reference import COMPANION_SUFFIX, LayoutReference, Reference
from modelpack.storage import ByteStream, Progress, VerifyingStream, read_all
from modelpack.stores.files import (
    locked,
    make_directory,
    mapped_errors,
    sync_directory,
    write_atomically,
)

_LAYOUT_FILE = "oci-layout"
_INDEX_FILE = "index.json"
_LOCK_FILE = ".lock"
_LAYOUT_VERSION = b'{"imageLayoutVersion":"1.0.0"}'
# Enough to see what one meant.
_TAGS_SHOWN = 5
# index.json of a store with 100,000 manifests.
_MAX_INDEX_BYTES = 64 * 1024 * 1024


class LayoutRepository:
    """A layout directory as a ``storage.Repository``."""

    def __init__(self, reference: LayoutReference, limiter: RateLimiter | None = None) -> None:
        """Name the layout; nothing is read or made yet. ``limiter`` holds for what is written."""
        self._reference = reference
        self._limiter = limiter or RateLimiter(None)
        self.root = Path(reference.path)
        self._preparing = threading.Lock()
        self._swept: set[Path] = set()

    @property
    def reference(self) -> Reference:
        """The name it was opened by."""
        return self._reference

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up nothing: no file stays open between calls."""

    # --- reading -----------------------------------------------------------------------------

    def resolve(self, name: str | Digest) -> Descriptor:
        """Return the descriptor of the manifest at a tag or digest."""
        entries = self._entries()
        if isinstance(name, Digest):
            for entry in entries:
                if entry.digest == name:
                    return entry
            return self._unlisted(name)
        for entry in entries:
            if entry.annotations.get(REF_NAME) == name:
                return entry
        tags = [
            tag for tag in (self.tags() if entries else ()) if not tag.endswith(COMPANION_SUFFIX)
        ]
        more = ", …" if len(tags) > _TAGS_SHOWN else ""
        hint = f" (there is: {', '.join(tags[:_TAGS_SHOWN])}{more})" if tags else ""
        raise NotFoundError(f"{self._reference.with_tag(name)} does not exist{hint}")

    def fetch_manifest(self, name: str | Digest) -> Manifest | Index:
        """Return the verified manifest at a tag or digest."""
        descriptor = self.resolve(name)
        raw = self.fetch_blob(descriptor, max_bytes=MAX_MANIFEST_BYTES)
        return parse_manifest(raw, descriptor.media_type)

    def fetch_blob(self, descriptor: Descriptor, *, max_bytes: int) -> bytes:
        """Return a small blob, verified."""
        if descriptor.size > max_bytes:
            raise IntegrityError(
                f"blob {descriptor.digest} has {descriptor.size} bytes, over the bound of {max_bytes}"
            )
        with self.open_blob(descriptor) as stream:
            return read_all(VerifyingStream(stream, descriptor), descriptor.size)

    @contextmanager
    def open_blob(
        self, descriptor: Descriptor, start: int = 0, length: int | None = None
    ) -> Iterator[ByteStream]:
        """Open a blob, or a range of it, as an unverified stream."""
        path = self.blob_path(descriptor.digest)
        with mapped_errors(f"cannot read {path}"):
            try:
                # O_NONBLOCK: a FIFO in the place of a blob must not hold the open
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise NotFoundError(
                    f"{self._reference}: blob {descriptor.digest} is missing"
                ) from error
        try:
            size = os.fstat(fd).st_size
            if size != descriptor.size:
                raise IntegrityError(
                    f"{self._reference}: blob {descriptor.digest} has {size} bytes, "
                    f"not {descriptor.size}"
                )
            yield _FileStream(path, fd, start, size - start if length is None else length)
        finally:
            os.close(fd)

    def range_connection(self) -> "LayoutConnection":
        """Return a reader of ranges."""
        return LayoutConnection(self)

    def tags(self) -> list[str]:
        """Return all tags, sorted."""
        with mapped_errors(f"cannot read {self.root}"):
            if not self.root.exists():
                raise NotFoundError(f"{self._reference} does not exist")
        names = (entry.annotations.get(REF_NAME) for entry in self._entries())
        return sorted({name for name in names if name})

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Return the descriptors of the manifests whose subject is ``digest``."""
        found = []
        for entry in self._entries():
            if entry.media_type in INDEX_TYPES:
                continue
            manifest = self.fetch_manifest(entry.digest)
            if isinstance(manifest, Index) or manifest.subject is None:
                continue
            described = manifest.descriptor(manifest.annotations)
            if manifest.subject.digest == digest and artifact_type in {
                None,
                described.artifact_type,
            }:
                found.append(described)
        return found

    def blob_path(self, digest: Digest) -> Path:
        """Return where a blob is or would be; a parsed digest cannot leave the directory."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    # --- writing -----------------------------------------------------------------------------

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Tell whether the blob is there."""
        with mapped_errors(f"cannot read {self.root}"):
            try:
                return self.blob_path(descriptor.digest).stat().st_size == descriptor.size
            except (FileNotFoundError, NotADirectoryError):
                return False

    def push_blob(
        self, descriptor: Descriptor, content: Content, progress: Progress | None = None
    ) -> None:
        """Store a blob, hashing what is written."""
        self._prepare()
        path = self.blob_path(descriptor.digest)
        with mapped_errors(f"cannot write to {self.root}"):
            make_directory(path.parent)
            self._sweep(path.parent)
            with _beside(path) as (fd, temporary):
                self._write_blob(fd, descriptor, content, progress)
                os.replace(temporary, path)
            sync_directory(path.parent)

    def mount_blob(self, descriptor: Descriptor, source: Reference) -> bool:
        """Take a blob from another layout by a hard link, where the file system offers it."""
        if not isinstance(source, LayoutReference):
            return False
        origin = LayoutRepository(source)
        if not origin.has_blob(descriptor):
            return False
        # A link would carry damage over unseen: hash first.
        with origin.open_blob(descriptor) as stream:
            verified = VerifyingStream(stream, descriptor)
            buffer = memoryview(bytearray(PIECE_BYTES))
            while verified.readinto(buffer):
                continue
        self._prepare()
        path = self.blob_path(descriptor.digest)
        with mapped_errors(f"cannot write to {self.root}"):
            make_directory(path.parent)
            try:
                os.link(origin.blob_path(descriptor.digest), path)
            except FileExistsError:
                return self.has_blob(descriptor)
            except OSError:
                return False
            sync_directory(path.parent)
        return True

    def push_manifest(self, manifest: Manifest | Index, tag: str | None = None) -> None:
        """Store a manifest and list it in ``index.json``, under ``tag`` if given."""
        descriptor = Descriptor.of(
            manifest.raw,
            media_type=manifest.media_type,
            artifact_type=manifest.artifact_type if isinstance(manifest, Manifest) else None,
        )
        self.push_blob(descriptor, BlobContent((manifest.raw,)))
        with (
            mapped_errors(f"cannot write to {self.root}"),
            locked(self.root / _LOCK_FILE),
        ):
            self._list(descriptor, tag)

    def _list(self, descriptor: Descriptor, tag: str | None) -> None:
        entries = []
        before = self._entries()
        times = Counter(entry.digest for entry in before)
        for entry in before:
            name = entry.annotations.get(REF_NAME)
            if entry.digest == descriptor.digest and (name is None or name == tag):
                continue  # listed anew below
            if tag is not None and name == tag:
                if times[entry.digest] > 1:
                    continue  # it has another tag, or was listed without one
                # The manifest that loses its only tag stays, found by its digest.
                kept = {key: value for key, value in entry.annotations.items() if key != REF_NAME}
                entry = Descriptor(  # noqa: PLW2901
                    media_type=entry.media_type,
                    digest=entry.digest,
                    size=entry.size,
                    annotations=kept,
                    artifact_type=entry.artifact_type,
                    extra=entry.extra,
                )
            entries.append(entry)
        already = any(entry.digest == descriptor.digest for entry in entries)
        if tag is not None or not already:
            entries.append(
                Descriptor(
                    media_type=descriptor.media_type,
                    digest=descriptor.digest,
                    size=descriptor.size,
                    annotations={REF_NAME: tag} if tag else {},
                    artifact_type=descriptor.artifact_type,
                )
            )
        write_atomically(self.root / _INDEX_FILE, Index.build(entries).raw)

    def _write_blob(
        self, fd: int, descriptor: Descriptor, content: Content, progress: Progress | None
    ) -> None:
        hasher = descriptor.digest.hasher()
        size = 0
        for piece in content.pieces():
            hasher.update(piece)
            rest = piece
            while rest:
                rest = rest[os.write(fd, rest) :]
            size += len(piece)
            self._limiter.take(len(piece))
            if progress is not None:
                progress(len(piece))
        if size != descriptor.size or hasher.hexdigest() != descriptor.digest.hex:
            raise IntegrityError(
                f"{descriptor.digest}: its content changed while it was being written"
            )
        os.fsync(fd)

    def _sweep(self, directory: Path) -> None:
        """Remove what killed writers have left, once."""
        with self._preparing:
            if directory in self._swept:
                return
            self._swept.add(directory)
        for stale in directory.glob(".*"):
            with suppress(OSError), stale.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stale.unlink()

    def _prepare(self) -> None:
        """Make the layout's fixed files, unless they are there."""
        marker = self.root / _LAYOUT_FILE
        with mapped_errors(f"cannot make {self.root}"), self._preparing:
            if marker.exists():
                return
            if self.root.exists() and (
                not self.root.is_dir() or any(not _is_ours(item) for item in self.root.iterdir())
            ):
                raise FormatError(
                    f"{self.root} exists and is no OCI layout; name another directory"
                )
            make_directory(self.root)
            # Another process may be making it, and may have listed a manifest by now.
            with locked(self.root / _LOCK_FILE):
                if not (self.root / _INDEX_FILE).exists():
                    write_atomically(self.root / _INDEX_FILE, Index.build(()).raw)
                write_atomically(marker, _LAYOUT_VERSION)

    def _entries(self) -> tuple[Descriptor, ...]:
        path = self.root / _INDEX_FILE
        with mapped_errors(f"cannot read {path}"):
            try:
                with path.open("rb") as file:
                    raw = file.read(_MAX_INDEX_BYTES + 1)
            except FileNotFoundError:
                if (self.root / _LAYOUT_FILE).exists():
                    return ()
                if self.root.exists() and any(self.root.iterdir()):
                    raise FormatError(f"{self.root} is no OCI layout") from None
                return ()
            except NotADirectoryError as error:
                raise FormatError(f"{self.root} is no OCI layout") from error
        if len(raw) > _MAX_INDEX_BYTES:
            raise FormatError(f"{path} is larger than any real one")
        value = load_json(raw, str(path))
        if not isinstance(value, dict) or not isinstance(value.get("manifests"), list):
            raise FormatError(f"{path} is no image index")
        return tuple(
            Descriptor.from_json(item, f"{path}: manifests[{number}]")
            for number, item in enumerate(value["manifests"])
        )

    def _unlisted(self, digest: Digest) -> Descriptor:
        """Describe a manifest that only another manifest points at."""
        path = self.blob_path(digest)
        with mapped_errors(f"cannot read {path}"):
            if not path.is_file() or path.stat().st_size > MAX_MANIFEST_BYTES:
                raise NotFoundError(f"{self._reference.with_digest(digest)} does not exist")
            raw = path.read_bytes()
        value = load_json(raw, str(path))
        media_type = value.get("mediaType") if isinstance(value, dict) else None
        if not isinstance(media_type, str):
            raise NotFoundError(f"{self._reference.with_digest(digest)} is no manifest")
        return Descriptor(media_type=media_type, digest=digest, size=len(raw))


@contextmanager
def _beside(path: Path) -> Iterator[tuple[int, Path]]:
    """Make a new file beside ``path``, locked until the end; it is removed if the end is an error.

    One that is not locked was left by a killed writer, and anybody may remove it.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            break
        os.close(fd)  # somebody removed it before it was locked
    try:
        yield fd, temporary
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(fd)


def _is_ours(path: Path) -> bool:
    """Tell whether a path may be there while another writer makes the layout."""
    return path.name in {_LAYOUT_FILE, _INDEX_FILE, "blobs"} or path.name.startswith(".")


class LayoutConnection:
    """Ranges of a layout's blobs, as a ``storage.RangeConnection``."""

    def __init__(self, repository: LayoutRepository) -> None:
        self._repository = repository

    @contextmanager
    def open_range(self, descriptor: Descriptor, start: int, length: int) -> Iterator[ByteStream]:
        """Open a range of a blob."""
        with self._repository.open_blob(descriptor, start, length) as stream:
            yield stream

    def abort(self) -> None:
        """Do nothing: reads from a disk end by themselves."""

    def close(self) -> None:
        """Do nothing: every range has its own descriptor."""


class _FileStream:
    def __init__(self, path: Path, fd: int, start: int, length: int) -> None:
        self._path = path
        self._fd = fd
        self._position = start
        self._end = start + length

    def readinto(self, buffer: memoryview, /) -> int:
        with mapped_errors(f"cannot read {self._path}"):
            count = os.preadv(self._fd, [buffer[: self._end - self._position]], self._position)
        self._position += count
        return count
