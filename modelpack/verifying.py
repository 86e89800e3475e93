"""Holding what is on disk, or at a reference, against its own chunk index.

Owns the checks and their report; offline for a directory. Leaves out who signed it (``signing/``).

    report = verify_directory(Path("/models/llama"))
    assert report.ok, report.changed
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack import metadata
from modelpack.artifact import Artifact, is_intact, is_packed, load_artifact
from modelpack.chunkindex import ChunkIndex, IndexedFile, decode_index
from modelpack.content import PIECE_BYTES
from modelpack.descriptor import OCI_MANIFEST, Descriptor
from modelpack.digest import Digest, chunk_hash
from modelpack.errors import FormatError, IntegrityError, NotFoundError, UsageError
from modelpack.events import Finished, Moved, Observer, Planned, Warned, ignore
from modelpack.manifest import Manifest, load_json, parse_manifest
from modelpack.parallel import for_each
from modelpack.paths import METADATA_DIR, SIGNATURE_NAME
from modelpack.pulling import resolve_model
from modelpack.storage import Repository, VerifyingStream, iterate
from modelpack.stores.destination import MANIFEST, read_receipt
from modelpack.stores.files import Tree

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
    if not directory.is_dir():
        raise NotFoundError(f"{directory} is not a directory")
    state = directory / METADATA_DIR
    try:
        raw = (state / metadata.CHUNKS).read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{directory} holds no {METADATA_DIR}/{metadata.CHUNKS}: {_why_no_index(state)}"
        ) from error
    index = decode_index(raw)
    digest = _covering_manifest(state)
    receipt = read_receipt(directory)
    if receipt is not None and not receipt.complete:
        observer(Warned(message=f"{directory}: a pull into it is not finished; run it again"))
    chosen = [
        file
        for file in index.files
        if receipt is None or not receipt.selected or file.path in receipt.files
    ]
    observer(
        Planned(
            total_bytes=sum(file.size for file in chosen),
            reused_bytes=0,
            items=tuple((file.path, file.size) for file in chosen),
        )
    )
    missing, changed = _check_files(directory, index, chosen, observer)
    expected = {SIGNATURE_NAME, *(file.path for file in index.files)}
    return DirectoryReport(
        directory=str(directory),
        reference=receipt.reference if receipt else None,
        digest=str(digest) if digest else None,
        files=len(chosen),
        bytes=sum(file.size for file in chosen),
        missing=tuple(sorted(missing)),
        changed=tuple(sorted(changed)),
        extra=tuple(sorted(path for path in _files_below(directory) if path not in expected)),
        unselected=len(index.files) - len(chosen),
    )


def _why_no_index(state: Path) -> str:
    if (state / "staging").exists():
        return "a pull into it is not finished; run it again"
    if (state / MANIFEST).exists():
        return "what was pulled had none; it cannot be checked offline"
    return "it was not pulled by modelpack"


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


def _covering_manifest(state: Path) -> Digest | None:
    """Prove that the metadata files rebuild the manifest's last layer; return its digest."""
    try:
        raw = (state / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    value = load_json(raw, f"{state / MANIFEST}")
    own_type = value.get("mediaType") if isinstance(value, dict) else None
    # A copier may have turned the manifest into Docker's.
    manifest = parse_manifest(raw, own_type if isinstance(own_type, str) else OCI_MANIFEST)
    if not isinstance(manifest, Manifest) or not (is_packed(manifest) and is_intact(manifest)):
        return None
    files = {}
    for name in (metadata.CHUNKS, metadata.MODEL, metadata.SBOM):
        try:
            files[name] = (state / name).read_bytes()
        except FileNotFoundError:
            continue
    rebuilt = Digest.of(metadata.build_metadata_layer(files))
    if rebuilt != manifest.layers[-1].digest:
        raise IntegrityError(
            f"{state}: the chunk index, facts or SBOM are not those of manifest {manifest.digest}; "
            "pull again"
        )
    return manifest.digest


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
    fd = tree.open(file.path)
    try:
        for chunk in file.chunks:
            length = index.lengths[chunk]
            if chunk_hash(os.pread(fd, length, index.offsets[chunk])) != index.hash_of(chunk):
                return False
            observer(Moved(item=file.path, size=length))
    except OSError as error:
        raise UsageError(f"{tree.root / file.path} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    return True


def _files_below(directory: Path) -> Iterator[str]:
    """Yield every path below a directory that is no directory, but for the metadata."""
    pending = [""]
    while pending:
        relative = pending.pop()
        for entry in os.scandir(directory / relative):
            path = f"{relative}/{entry.name}" if relative else entry.name
            if path == METADATA_DIR:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            else:
                yield path


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
    """Fetch every layer and compare its digest."""
    layers = artifact.manifest.layers
    observer(
        Planned(
            total_bytes=sum(layer.size for layer in layers),
            reused_bytes=0,
            items=tuple((str(layer.digest), layer.size) for layer in layers),
        )
    )
    changed: list[str] = []

    def check(layer: Descriptor) -> None:
        item = str(layer.digest)
        try:
            with repository.open_blob(layer) as raw:
                for piece in iterate(VerifyingStream(raw, layer), PIECE_BYTES):
                    observer(Moved(item=item, size=len(piece)))
        except IntegrityError:
            changed.append(item)
        observer(Finished(item=item))

    for_each(check, layers, _FETCH_THREADS)
    return changed
