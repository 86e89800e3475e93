"""Pulling what has no usable chunk index: recompressed copies, and other tools' artifacts.

Owns whole layers, each verified by its own digest while it is unpacked: image layers in any
compression, ModelPack layers (tar or raw), and plain files with a title, as oras pushes them.
If an index is among the files (a recompressed copy), every file is also held against it, and it
against them. Slower than a ranged pull and not resumable inside a layer, but no less strict.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelpack import metadata
from modelpack.chunkindex import MAX_INDEX_BYTES, ChunkIndex, IndexedFile, decode_index
from modelpack.content import PIECE_BYTES
from modelpack.descriptor import (
    DOCKER_CONFIG,
    FORMAT_VERSION,
    MODEL_FILEPATH,
    OCI_CONFIG,
    TITLE,
    Descriptor,
)
from modelpack.digest import chunk_hash
from modelpack.errors import (
    FormatError,
    IntegrityError,
    NotFoundError,
    PolicyError,
    TransientError,
)
from modelpack.events import Finished, Moved, Observer, Planned, Retried, Warned
from modelpack.manifest import Manifest, load_json
from modelpack.paths import METADATA_DIR, check_path, check_paths
from modelpack.selection import Selection
from modelpack.storage import ByteStream, Repository, VerifyingStream
from modelpack.stores.destination import Destination, open_destination
from modelpack.stores.files import mapped_errors
from modelpack.untar import decompressed, entries, is_metadata

Judge = Callable[[Mapping[str, Path]], None]
"""Decides, by path in the artifact and place on disk, whether files may get their names."""

_TRIES = 3
# What ModelPack's filepath was called before the specification went to the CNCF.
_OLD_MODEL_FILEPATH = "org.cnai.model.filepath"
# model-spec, specs-go/v1/annotations.go: facts of a raw layer's file, its mode among them.
_MODEL_FILE_METADATA = "org.cncf.model.file.metadata+json"
# oras writes plain files with the media type of a tar layer, and marks what really is one.
_ORAS_UNPACK = "io.deis.oras.content.unpack"
_IMAGE_LAYERS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
_TARS = (".tar", ".tar+gzip", ".tar.gzip", ".tar+zstd", ".tar.gz")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainResult:
    """What a plain pull did."""

    files: int
    bytes: int
    fetched_bytes: int
    removed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unpacked:
    staged: Path
    size: int
    mode: int


@dataclass
class _Harvest:
    """The files found so far; a later layer's file replaces an earlier one's."""

    files: dict[str, _Unpacked] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)
    fetched: int = 0
    serial: int = 0


def plain_pull(
    repository: Repository,
    manifest: Manifest,
    destination: Path,
    *,
    selection: Selection,
    force: bool,
    observer: Observer,
    judge: Judge | None = None,
) -> PlainResult:
    """Bring a directory to the state of a manifest's layers.

    Raises:
        PolicyError: ``judge`` refuses what a file holds; none has got its name.
        FormatError: a layer of an unknown kind, or an entry that is refused.
        IntegrityError: a layer's bytes do not have its digest, or a file not its index's hashes.
    """
    is_image = manifest.config.media_type in {OCI_CONFIG, DOCKER_CONFIG}
    names = [file_of_layer(layer, is_image=is_image) for layer in manifest.layers]
    with open_destination(destination, observer) as target:
        staging = target.staging_path(hashlib.sha256(b"plain" + manifest.raw).digest())
        with mapped_errors(f"cannot write to {staging}"):
            staging.mkdir(mode=0o700, exist_ok=True)
        _empty(staging)
        observer(
            Planned(
                total_bytes=sum(layer.size for layer in manifest.layers),
                reused_bytes=0,
                items=tuple((str(layer.digest), layer.size) for layer in manifest.layers),
            )
        )
        harvest = _Harvest()
        for layer, name in zip(manifest.layers, names, strict=True):
            _fetch_layer(repository, layer, name, staging, harvest, observer)
        check_paths(harvest.files)
        _hold_against_index(harvest.metadata, harvest.files, manifest, observer)
        files = {path: item for path, item in harvest.files.items() if selection.takes(path)}
        if not files:
            raise NotFoundError(f"{repository.reference} has no file to pull")
        if judge is not None:
            try:
                judge({path: item.staged for path, item in files.items()})
            except PolicyError:
                _empty(staging)
                raise
        removed = _place(
            target, repository, manifest, files, harvest, selection, staging, force=force
        )
    return PlainResult(
        files=len(files),
        bytes=sum(item.size for item in files.values()),
        fetched_bytes=harvest.fetched,
        removed=removed,
    )


def file_of_layer(layer: Descriptor, *, is_image: bool) -> str | None:
    """Return the path of the one file that a layer is, or None when it is a tar of files.

    ``is_image`` tells whether the manifest is an image's: only there is an image layer always one.

    Raises:
        FormatError: it is neither.
    """
    media_type = layer.media_type.lower()
    keys = (MODEL_FILEPATH, _OLD_MODEL_FILEPATH, TITLE)
    named = next((layer.annotations[key] for key in keys if layer.annotations.get(key)), None)
    is_tar = media_type.endswith(_TARS)
    if is_tar and media_type.startswith(_IMAGE_LAYERS) and not is_image and named:
        is_tar = layer.annotations.get(_ORAS_UNPACK) == "true"
    if is_tar:
        return None
    if named:
        return check_path(named)
    raise FormatError(f"layer {layer.digest} is {layer.media_type!r:.100}, which is no model file")


def _empty(staging: Path) -> None:
    with mapped_errors(f"cannot write to {staging}"):
        for entry in os.listdir(staging):
            os.unlink(staging / entry)


def _fetch_layer(
    repository: Repository,
    layer: Descriptor,
    name: str | None,
    staging: Path,
    harvest: _Harvest,
    observer: Observer,
) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            with repository.open_blob(layer) as raw:
                stream = VerifyingStream(_Counting(raw, layer, harvest, observer), layer)
                if name is None:
                    _unpack(stream, layer, staging, harvest)
                else:
                    _store(stream, layer, name, staging, harvest)
        except TransientError as error:
            if attempt == _TRIES:
                raise
            observer(Retried(what=f"layer {layer.digest.short}", reason=str(error), delay=0))
        else:
            observer(Finished(item=str(layer.digest)))
            return


def _unpack(stream: VerifyingStream, layer: Descriptor, staging: Path, harvest: _Harvest) -> None:
    found: dict[str, _Unpacked] = {}
    described: dict[str, bytes] = {}
    for path, size, executable, content in entries(decompressed(stream, layer.media_type)):
        if is_metadata(path):
            if size > MAX_INDEX_BYTES:
                raise FormatError(f"layer {layer.digest} holds a {path} of {size} bytes")
            described[path.removeprefix(METADATA_DIR + "/")] = content.read()
            continue
        if path in found:
            raise FormatError(f"layer {layer.digest} holds {path!r:.200} twice")
        harvest.serial += 1
        staged = staging / str(harvest.serial)
        with mapped_errors(f"cannot write {path}"), staged.open("xb") as file:
            while piece := content.read(PIECE_BYTES):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        found[path] = _Unpacked(staged=staged, size=size, mode=0o755 if executable else 0o644)
    harvest.files.update(found)
    harvest.metadata.update(described)


def _store(
    stream: VerifyingStream, layer: Descriptor, path: str, staging: Path, harvest: _Harvest
) -> None:
    harvest.serial += 1
    staged = staging / str(harvest.serial)
    buffer = memoryview(bytearray(PIECE_BYTES))
    size = 0
    with mapped_errors(f"cannot write {path}"), staged.open("xb") as file:
        while count := stream.readinto(buffer):
            file.write(buffer[:count])
            size += count
        file.flush()
        os.fsync(file.fileno())
    harvest.files[path] = _Unpacked(staged=staged, size=size, mode=_raw_mode(layer))


def _raw_mode(layer: Descriptor) -> int:
    """Return the mode of a raw layer's file, which ModelPack keeps in an annotation."""
    text = layer.annotations.get(_MODEL_FILE_METADATA)
    if text is None:
        return 0o644
    value = load_json(text.encode(), f"{_MODEL_FILE_METADATA} of layer {layer.digest}")
    mode = value.get("mode") if isinstance(value, dict) else None
    return 0o755 if type(mode) is int and mode & 0o100 else 0o644


def _hold_against_index(
    described: Mapping[str, bytes],
    files: Mapping[str, _Unpacked],
    manifest: Manifest,
    observer: Observer,
) -> None:
    """Check a changed copy's files against the index it still carries."""
    raw = described.get(metadata.CHUNKS)
    if raw is None:
        return
    index = decode_index(raw)
    if FORMAT_VERSION not in manifest.annotations:
        observer(
            Warned(
                message="the manifest was rewritten on the way here, probably by a copier that "
                "recompressed the layers; they were pulled whole, and are what the chunk index says"
            )
        )
    known = index.by_path()
    for path in known:
        if path not in files:
            raise IntegrityError(f"{path} is in the artifact's chunk index, but in no layer")
    for path, item in files.items():
        file = known.get(path)
        if file is None or file.size != item.size:
            raise IntegrityError(f"{path} is not what the artifact's chunk index says")
        _check_chunks(item.staged, file, index)


def _check_chunks(staged: Path, file: IndexedFile, index: ChunkIndex) -> None:
    with staged.open("rb") as content:
        for chunk in file.chunks:
            if chunk_hash(content.read(index.lengths[chunk])) != index.hash_of(chunk):
                raise IntegrityError(f"{file.path} differs from the artifact's chunk index")


def _place(
    target: Destination,
    repository: Repository,
    manifest: Manifest,
    files: Mapping[str, _Unpacked],
    harvest: _Harvest,
    selection: Selection,
    staging: Path,
    *,
    force: bool,
) -> int:
    same = {path for path, item in files.items() if target.equals(path, item.staged)}
    changed = [path for path in files if path not in same]
    if not force:
        target.refuse_strangers(changed)
    target.check_way(changed)
    reference, digest = str(repository.reference), str(manifest.digest)
    target.begin_placing(reference, digest, changed)
    for path in changed:
        target.place(files[path].staged, path, files[path].mode)
    for path in same:
        target.set_mode(path, files[path].mode)
    _empty(staging)  # of files that were in place or not asked for; finish() removes it
    known = {metadata.CHUNKS, metadata.MODEL, metadata.SBOM}
    return target.finish(
        reference=reference,
        digest=digest,
        manifest=manifest.raw,
        paths=list(files),
        selected=not selection.is_everything,
        metadata_files={name: raw for name, raw in harvest.metadata.items() if name in known},
    )


class _Counting:
    """Reports the bytes of a layer as they come."""

    def __init__(
        self, source: ByteStream, layer: Descriptor, harvest: _Harvest, observer: Observer
    ) -> None:
        self._source = source
        self._item = str(layer.digest)
        self._harvest = harvest
        self._observer = observer

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._source.readinto(buffer)
        self._harvest.fetched += count
        if count:
            self._observer(Moved(item=self._item, size=count))
        return count
