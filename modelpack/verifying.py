"""Holding what is on disk, or at a reference, against its own chunk index.

Owns the checks and their report; offline for a directory. Leaves out who signed it (``signing/``).

    report = verify_directory(Path("/models/llama"))
    assert report.ok, report.changed
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from modelpack import layering
from modelpack.artifact import Artifact, is_intact, is_packed, load_artifact
from modelpack.chunkindex import ChunkIndex, IndexedFile, source_file
from modelpack.content import PIECE_BYTES
from modelpack.digest import ChunkHash, chunk_hash
from modelpack.errors import FormatError, IntegrityError
from modelpack.events import Finished, Moved, Observer, Planned, Warned, ignore, one_at_a_time
from modelpack.inspecting.pulled import read_pulled
from modelpack.manifest import Manifest, load_json
from modelpack.parallel import for_each
from modelpack.paths import SIGNATURE_NAME
from modelpack.pulling import resolve_model
from modelpack.storage import ByteStream, Repository, VerifyingStream
from modelpack.stores.files import Tree, files_below, mapped_errors

_MAX_CONFIG_BYTES = 4 * 1024 * 1024
_FETCH_THREADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectoryReport:
    """What a directory holds, compared with its index."""

    directory: str
    reference: str | None
    """What it was pulled from, if a receipt says so."""
    digest: str | None
    """The manifest's, if it is there and covers the index."""
    files: int
    bytes: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    extra: tuple[str, ...]
    unselected: int
    """Files of the artifact that the pull was told to leave out."""

    @property
    def ok(self) -> bool:
        """Whether nothing is missing, changed or extra."""
        return not (self.missing or self.changed or self.extra)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "ok": self.ok,
            "directory": self.directory,
            "reference": self.reference,
            "digest": self.digest,
            "files": self.files,
            "bytes": self.bytes,
            "missing": list(self.missing),
            "changed": list(self.changed),
            "extra": list(self.extra),
            "unselected": self.unselected,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceReport:
    """What is at a reference, compared with what its manifest promises."""

    reference: str
    digest: str
    files: int
    bytes: int
    missing: tuple[str, ...]
    """Blobs that the manifest names and the registry lacks."""
    changed: tuple[str, ...]
    """Blobs with other bytes than their digest, or files with others than the index says."""
    full: bool
    """Whether every byte was fetched and hashed."""

    @property
    def ok(self) -> bool:
        """Whether everything checked is right."""
        return not (self.missing or self.changed)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "ok": self.ok,
            "reference": self.reference,
            "digest": self.digest,
            "files": self.files,
            "bytes": self.bytes,
            "missing": list(self.missing),
            "changed": list(self.changed),
            "full": self.full,
        }


def verify_directory(directory: Path, *, observer: Observer = ignore) -> DirectoryReport:
    """Hash every file of a pulled directory or mounted volume against its own index.

    Nothing is believed but the index itself; when the manifest is there too (a pulled directory),
    the index is proved to be the one that the manifest's digest covers.

    Raises:
        NotFoundError: no such directory, or it holds no chunk index.
        FormatError, IntegrityError: the index is invalid or not the manifest's.
    """
    pulled = read_pulled(directory)
    index, receipt = pulled.needed_index(), pulled.receipt
    observer = one_at_a_time(observer)
    if receipt is not None and not receipt.complete:
        observer(Warned(message=f"{directory}: a pull into it is not finished; run it again"))
    # A receipt is nobody's promise: it may excuse a file that is not there, and nothing else.
    excused = set()
    if receipt is not None and receipt.selected:
        excused = _absent(directory, index) - receipt.files.keys()
    chosen = [file for file in index.files if file.path not in excused]
    observer(
        Planned(
            total_bytes=sum(file.size for file in chosen),
            reused_bytes=0,
            items=tuple((file.path, file.size) for file in chosen),
        )
    )
    missing, changed = _check_files(directory, index, chosen, observer)
    expected = {SIGNATURE_NAME, *(file.path for file in index.files)}
    extra = (path for path in files_below(directory) if path not in expected)
    return DirectoryReport(
        directory=str(directory),
        reference=pulled.reference,
        digest=str(pulled.manifest.digest) if pulled.manifest and pulled.is_covered else None,
        files=len(chosen),
        bytes=sum(file.size for file in chosen),
        missing=tuple(sorted(missing)),
        changed=tuple(sorted(changed)),
        extra=tuple(sorted(extra)),
        unselected=len(index.files) - len(chosen),
    )


def verify_reference(
    repository: Repository, *, full: bool = False, observer: Observer = ignore
) -> ReferenceReport:
    """Check the artifact at a reference; with ``full``, by fetching and hashing every byte.

    Without it no weight is fetched: the manifest, config and index are verified, and the registry
    is asked for every blob.

    Raises:
        NotFoundError: no such reference.
        FormatError: it is no model artifact of modelpack's.
    """
    observer = one_at_a_time(observer)
    manifest = resolve_model(repository, observer)
    reference = str(repository.reference)
    if not is_packed(manifest):
        raise FormatError(f"{reference} was not packed by modelpack; it has no chunk index")
    if not is_intact(manifest):
        raise IntegrityError(
            f"{reference}: its layers are not those that were packed (a copier recompressed them?)"
        )
    artifact = load_artifact(repository, manifest)
    _check_config(repository, manifest)
    missing = [str(layer.digest) for layer in manifest.layers if not repository.has_blob(layer)]
    changed: list[str] = []
    if full and not missing:
        changed = _check_layers(repository, artifact, observer)
    return ReferenceReport(
        reference=reference,
        digest=str(manifest.digest),
        files=len(artifact.index.files),
        bytes=artifact.index.total_bytes,
        missing=tuple(missing),
        changed=tuple(changed),
        full=full,
    )


def _absent(directory: Path, index: ChunkIndex) -> set[str]:
    """Return the paths of the index under which there is nothing at all."""
    tree = Tree(directory)
    try:
        return {file.path for file in index.files if not tree.holds(file.path)}
    finally:
        tree.close()


def _check_files(
    directory: Path, index: ChunkIndex, files: Iterable[IndexedFile], observer: Observer
) -> tuple[list[str], list[str]]:
    missing: list[str] = []
    changed: list[str] = []
    tree = Tree(directory)

    def check(file: IndexedFile) -> None:
        try:
            status = tree.stat(file.path)
        except IntegrityError:
            changed.append(file.path)
            return
        if status is None:
            missing.append(file.path)
        elif status.st_size != file.size or not _hashes_right(tree, file, index, observer):
            changed.append(file.path)
        observer(Finished(item=file.path))

    try:
        for_each(check, files, os.cpu_count() or 1)
    finally:
        tree.close()
    return missing, changed


def _hashes_right(tree: Tree, file: IndexedFile, index: ChunkIndex, observer: Observer) -> bool:
    with mapped_errors(f"{tree.root / file.path} cannot be read"):
        fd = tree.open(file.path)
        try:
            for chunk in file.chunks:
                length = index.lengths[chunk]
                if chunk_hash(os.pread(fd, length, index.offsets[chunk])) != index.hash_of(chunk):
                    return False
                observer(Moved(item=file.path, size=length))
        finally:
            os.close(fd)
    return True


def _check_config(repository: Repository, manifest: Manifest) -> None:
    raw = repository.fetch_blob(manifest.config, max_bytes=_MAX_CONFIG_BYTES)
    value = load_json(raw, "image config")
    try:
        listed = value["rootfs"]["diff_ids"]
    except (KeyError, TypeError) as error:
        raise FormatError(f"manifest {manifest.digest}: its config lists no layers") from error
    if listed != [str(layer.digest) for layer in manifest.layers]:
        raise IntegrityError(f"manifest {manifest.digest}: its config lists other layers")


def _check_layers(repository: Repository, artifact: Artifact, observer: Observer) -> list[str]:
    """Fetch every layer; return the digests of those, and the paths of files, that are wrong."""
    layers = artifact.manifest.layers
    index = artifact.index
    observer(
        Planned(
            total_bytes=sum(layer.size for layer in layers),
            reused_bytes=0,
            items=tuple((str(layer.digest), layer.size) for layer in layers),
        )
    )
    changed: list[str] = []

    def check(number: int) -> None:
        layer = layers[number]
        item = str(layer.digest)
        files = index.files_of_layer(number)  # none of the metadata layer, which has been read
        try:
            with repository.open_blob(layer) as raw:
                reader = _LayerReader(VerifyingStream(raw, layer), item, observer)
                wrong = _wrong_files(reader, index, files) if files else []
                reader.drain()
        except IntegrityError:
            wrong = [item]
        changed.extend(wrong)
        observer(Finished(item=item))

    for_each(check, range(len(layers)), _FETCH_THREADS)
    return changed


def _wrong_files(
    reader: "_LayerReader", index: ChunkIndex, files: Sequence[IndexedFile]
) -> list[str]:
    """Return the paths of a layer's files whose bytes are not what the index says.

    Raises:
        IntegrityError: the tar is not the one of these files.
    """
    wrong = []
    rest = iter(files)
    for frame, source in layering.frames([source_file(file) for file in files]):
        reader.expect(frame)
        if source is not None:
            file = next(rest)
            found = [reader.hash(index.lengths[chunk]) for chunk in file.chunks]
            if found != [index.hash_of(chunk) for chunk in file.chunks]:
                wrong.append(file.path)
    return wrong


class _LayerReader:
    """Reads a layer in order, and tells of it."""

    def __init__(self, stream: ByteStream, item: str, observer: Observer) -> None:
        self._stream = stream
        self._item = item
        self._observer = observer
        self._buffer = memoryview(bytearray(PIECE_BYTES))

    def expect(self, expected: bytes) -> None:
        """Prove that these bytes come next."""
        found = b"".join(bytes(piece) for piece in self._pieces(len(expected)))
        if found != expected:
            raise IntegrityError(f"layer {self._item} is another tar than the index describes")

    def hash(self, size: int) -> ChunkHash:
        """Return the BLAKE3 of the next ``size`` bytes."""
        hasher = blake3()
        for piece in self._pieces(size):
            hasher.update(piece)
        return ChunkHash(hasher.digest())

    def drain(self) -> None:
        """Read to the end, where the stream proves its digest."""
        while count := self._stream.readinto(self._buffer):
            self._observer(Moved(item=self._item, size=count))

    def _pieces(self, size: int) -> Iterator[memoryview]:
        while size and (count := self._stream.readinto(self._buffer[:size])):
            self._observer(Moved(item=self._item, size=count))
            size -= count
            yield self._buffer[:count]
