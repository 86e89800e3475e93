"""Pushing: from a model directory to an artifact at a reference.

Owns the order of the steps (docs/format.md, "Pushing") and the results. Leaves out the parts:
scanning, layering, packing, the documents, uploading. Blobs go first and manifests last, so a tag
never points at something that is not there.

    result = push(Path("model"), open_repository("localhost:5000/team/model:v1"))
    print(result.digest, result.uploaded_bytes)
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelpack import layering, metadata
from modelpack.artifact import build_config, build_manifest
from modelpack.blobrecord import BlobRecord
from modelpack.cache import Cache
from modelpack.chunkindex import build_index, encode_index
from modelpack.companion import build_companion
from modelpack.content import BlobContent, Content, FileRegion
from modelpack.descriptor import (
    DEFAULT_PLATFORM,
    MODEL_CONFIG,
    OCI_CONFIG,
    OCI_LAYER_TAR,
    OUR_PREFIX,
    Descriptor,
)
from modelpack.errors import InterruptedTransferError, SpaceError, UsageError
from modelpack.events import Event, Finished, Moved, Observer, Planned, Warned, ignore
from modelpack.facts import ModelFacts, collect_facts
from modelpack.layering import PlannedLayer, SourceFile
from modelpack.manifest import canonical_json
from modelpack.packing import Cores, PackedLayer, pack_layer
from modelpack.parallel import for_each
from modelpack.paths import METADATA_DIR
from modelpack.reference import RegistryReference, companion_tag
from modelpack.sbom.inband import in_band
from modelpack.sbom.licenses import licenses_of
from modelpack.sbom.supplement import Supplement
from modelpack.sbom.texts import source_date
from modelpack.scan import Scan, ScannedFile, scan_directory
from modelpack.selection import Selection
from modelpack.storage import Repository
from modelpack.stores.files import mapped_errors

# Layers hashed and uploaded at once: enough to hide one's latency behind another's bytes.
_PARALLEL_LAYERS = 4
# Registries that refuse blobs over a size, by host suffix (their documentation).
_BLOB_LIMITS = {
    "ghcr.io": 10 * 1000**3,
    ".amazonaws.com": 52_000 * 1024**2,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PushOptions:
    """How to push."""

    selection: Selection = field(default_factory=Selection)
    prefix: str = ""
    """A directory that all files are put under, such as ``models`` for KServe."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    companion: bool = True
    """Also tag a CNCF ModelPack manifest over the same blobs."""
    platform: str = DEFAULT_PLATFORM
    use_cache: bool = True
    """Believe that a file with unchanged device, inode, size and times has unchanged bytes."""
    max_connections: int | None = None
    supplement: Supplement | None = None
    """What only people know, for the SBOM that goes into the artifact and so into its digest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PushResult:
    """What a push did."""

    reference: str
    digest: str
    companion: str | None
    """The companion's reference."""
    files: int
    layers: int
    """The metadata layer included."""
    chunks: int
    bytes: int
    """Of the files."""
    uploaded_bytes: int
    reused_bytes: int
    """Of blobs that were at the registry already."""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {
            "reference": self.reference,
            "digest": self.digest,
            "companion": self.companion,
            "files": self.files,
            "layers": self.layers,
            "chunks": self.chunks,
            "bytes": self.bytes,
            "uploaded_bytes": self.uploaded_bytes,
            "reused_bytes": self.reused_bytes,
            "warnings": list(self.warnings),
        }


def push(
    directory: Path,
    repository: Repository,
    options: PushOptions | None = None,
    *,
    observer: Observer = ignore,
) -> PushResult:
    """Package a directory and store it at the repository's tag.

    Reproducible: the same files, with the same supplement, give the same digest on any machine. Idempotent: what is there
    already is not sent again. A normal return proves that the target has checked every digest.

    Raises:
        UsageError: the reference has no tag, or an annotation is not allowed.
        FormatError: a file cannot be packed; the message holds its path.
        IntegrityError: a file changed while it was read.
        NetworkError, AuthError, SpaceError: as the registry says.
    """
    chosen = options or PushOptions()
    tag = _check_request(repository, chosen)
    timestamp = source_date(os.environ)
    scan = scan_directory(directory, selection=chosen.selection, prefix=chosen.prefix)
    sources = {file.path: file for file in scan.files}
    plan = layering.plan_layers(
        SourceFile(path=file.path, size=file.size, mode=file.mode) for file in scan.files
    )
    _check_limits(repository, plan)
    run = _Push(repository, chosen, observer)
    for skipped in scan.skipped:
        if skipped != METADATA_DIR:
            run.warn(f"{skipped} is not part of a model and was left out")
    packed = run.transfer_layers(plan, sources)
    index = build_index(
        plan,
        [layer.descriptor.digest for layer in packed],
        (chunks for layer in packed for chunks in layer.chunks),
    )
    facts = run.facts(scan)
    metadata_layer = metadata.build_metadata_layer(
        {
            metadata.CHUNKS: encode_index(index),
            metadata.MODEL: canonical_json(facts.to_json()) + b"\n",
            metadata.SBOM: in_band(facts, index, supplement=chosen.supplement, timestamp=timestamp),
        }
    )
    described = Descriptor.of(metadata_layer, media_type=OCI_LAYER_TAR)
    titles = [(layer.descriptor, layer.title) for layer in packed]
    config = build_config([*titles, (described, "metadata")], platform=chosen.platform)
    manifest = build_manifest(
        config=config,
        data_layers=[layer.descriptor for layer in packed],
        metadata_layer=metadata_layer,
        annotations={**_known_annotations(facts), **chosen.annotations},
    )
    run.transfer(described, BlobContent((metadata_layer,)), "metadata")
    run.transfer(Descriptor.of(config, media_type=OCI_CONFIG), BlobContent((config,)), "config")
    reference = repository.reference.with_tag(tag)
    companion = None
    if chosen.companion:
        other, other_config = build_companion(index, facts)
        run.transfer(
            Descriptor.of(other_config, media_type=MODEL_CONFIG),
            BlobContent((other_config,)),
            "companion config",
        )
        repository.push_manifest(other, companion_tag(tag))
        companion = str(repository.reference.with_tag(companion_tag(tag)))
    repository.push_manifest(manifest, tag)
    return PushResult(
        reference=str(reference),
        digest=str(manifest.digest),
        companion=companion,
        files=len(scan.files),
        layers=len(manifest.layers),
        chunks=index.chunk_count,
        bytes=index.total_bytes,
        uploaded_bytes=run.uploaded,
        reused_bytes=run.reused,
        warnings=tuple(run.warnings),
    )


class _Push:
    """One push: counts, and the pipeline from files to blobs at the target."""

    def __init__(self, repository: Repository, options: PushOptions, observer: Observer) -> None:
        self._repository = repository
        self._options = options
        self._observer = observer
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._cache = Cache("layers") if options.use_cache else None
        self._record = BlobRecord(repository.reference)
        self.uploaded = 0
        self.reused = 0
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        """Tell the user, and keep it for the result."""
        self.warnings.append(message)
        self._tell(Warned(message=message))

    def transfer_layers(
        self, plan: tuple[PlannedLayer, ...], sources: Mapping[str, ScannedFile]
    ) -> list[PackedLayer]:
        """Hash and upload all layers, several at once, some uploading while others are hashed."""
        titles = [_title(layer) for layer in plan]
        self._tell(
            Planned(
                total_bytes=sum(layer.size for layer in plan),
                reused_bytes=0,
                items=tuple((title, layer.size) for title, layer in zip(titles, plan, strict=True)),
            )
        )
        packed: dict[int, PackedLayer] = {}
        threads = min(_PARALLEL_LAYERS, self._options.max_connections or _PARALLEL_LAYERS)
        with Cores() as cores:

            def handle(number: int) -> None:
                layer = pack_layer(
                    plan[number], sources, cache=self._cache, observer=self._hashed, cores=cores
                )
                packed[number] = layer
                self.transfer(layer.descriptor, layer.content, layer.title)

            for_each(handle, range(len(plan)), threads, stop=self._stop)
        return [packed[number] for number in range(len(plan))]

    def transfer(self, descriptor: Descriptor, content: Content, title: str) -> None:
        """Bring one blob to the target by the cheapest way that is open."""
        if self._repository.has_blob(descriptor) or self._mount(descriptor):
            with self._lock:
                self.reused += descriptor.size
            self._tell(Moved(item=title, size=descriptor.size, reused=True))
        else:

            def progress(size: int) -> None:
                if self._stop.is_set():
                    raise InterruptedTransferError("stopped")
                self._tell(Moved(item=title, size=size))

            self._repository.push_blob(descriptor, content, progress)
            with self._lock:
                self.uploaded += descriptor.size
        self._record.add(descriptor)
        self._tell(Finished(item=title))

    def facts(self, scan: Scan) -> ModelFacts:
        """Collect what the files say of the model, or take it from the cache."""
        key = (
            b"facts-1"
            + repr([(file.path, str(file.source), file.identity) for file in scan.files]).encode()
        )
        known = self._cache.get(key) if self._cache else None
        if known is not None:
            return _facts_from(known)
        lead = len(self._options.prefix.strip("/"))
        facts = collect_facts(
            {file.path[lead + 1 if lead else 0 :]: _LocalFile(file) for file in scan.files}
        )
        if self._cache:
            self._cache.put(key, canonical_json(facts.to_json()))
        return facts

    def _mount(self, descriptor: Descriptor) -> bool:
        return any(
            self._repository.mount_blob(descriptor, source)
            for source in self._record.sources(descriptor)
        )

    def _hashed(self, event: Event) -> None:
        if self._stop.is_set():
            raise InterruptedTransferError("stopped")
        self._tell(event)

    def _tell(self, event: Event) -> None:
        with self._lock:
            self._observer(event)


class _LocalFile:
    """A scanned file as ``facts.ModelFile``."""

    def __init__(self, file: ScannedFile) -> None:
        self.size = file.size
        self._path = file.source

    def read(self, offset: int, length: int) -> bytes:
        with mapped_errors(f"{self._path} cannot be read"):
            fd = FileRegion(self._path, self.size).open()
            try:
                return os.pread(fd, length, offset)
            finally:
                os.close(fd)


def _facts_from(raw: bytes) -> ModelFacts:
    import json  # noqa: PLC0415 - only on a cache hit

    return ModelFacts.from_json(json.loads(raw))


def _title(layer: PlannedLayer) -> str:
    return layer.files[0].file.path if len(layer.files) == 1 else f"{len(layer.files)} files"


def _check_request(repository: Repository, options: PushOptions) -> str:
    reference = repository.reference
    if reference.tag is None or reference.digest is not None:
        raise UsageError(f"{reference}: push needs a tag and no digest, such as NAME:v1")
    for key in options.annotations:
        if key.startswith(OUR_PREFIX):
            raise UsageError(f"annotations under {OUR_PREFIX} are modelpack's own: {key}")
    if options.companion:
        companion_tag(reference.tag)
    return reference.tag


def _check_limits(repository: Repository, plan: tuple[PlannedLayer, ...]) -> None:
    """Say before anything is sent that a registry will refuse a layer for its size."""
    reference = repository.reference
    if not isinstance(reference, RegistryReference):
        return
    for suffix, limit in _BLOB_LIMITS.items():
        if not reference.registry.endswith(suffix):
            continue
        for layer in plan:
            if layer.size > limit:
                raise SpaceError(
                    f"{layer.files[0].file.path} makes a layer of {layer.size / 1e9:.1f} GB, "
                    f"{reference.registry} takes {limit / 1e9:.1f} GB; split the file into shards "
                    "or use another registry"
                )


def _known_annotations(facts: ModelFacts) -> dict[str, str]:
    """Return the standard annotations that the model's own files answer."""
    known = {}
    licenses = [item.id or item.expression for item in licenses_of(facts.licenses)]
    if licenses and all(licenses):  # the annotation takes SPDX expressions and nothing else
        known["org.opencontainers.image.licenses"] = " AND ".join(filter(None, licenses))
    if facts.name:
        known["org.opencontainers.image.title"] = facts.name
    return known
