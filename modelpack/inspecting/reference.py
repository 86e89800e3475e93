"""Inspecting what a reference names: modelpack's artifacts, copies of them, and anything else.

Owns the requests: manifest, metadata layer, the chunks of tensor headers, companion, referrers.
Leaves out directories (``directory.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelpack.artifact import load_artifact
from modelpack.chunkindex import ChunkIndex, decode_index
from modelpack.descriptor import FORMAT_VERSION, Descriptor
from modelpack.digest import Digest
from modelpack.errors import AuthError, IntegrityError, NotFoundError, UsageError
from modelpack.events import Observer, Resolved, ignore
from modelpack.facts import ModelFacts
from modelpack.inspecting import report
from modelpack.inspecting.carried import carried_metadata
from modelpack.inspecting.headers import read_headers
from modelpack.inspecting.indexedfile import layer_chunks
from modelpack.inspecting.report import (
    ChunkStatistics,
    Companion,
    Inspection,
    inspected_files,
    inspected_layers,
    read_facts,
    state_of,
)
from modelpack.manifest import Index, Manifest
from modelpack.metadata import CHUNKS, MODEL
from modelpack.reference import COMPANION_SUFFIX
from modelpack.storage import Repository
from modelpack.tensors import TensorFile


def inspect_reference(repository: Repository, *, observer: Observer = ignore) -> Inspection:
    """Say what is at a repository's reference, whoever put it there.

    Fetches the manifest, the metadata layer and, by ranges, the chunks that hold tensor headers,
    each verified; never a whole weight file. What other tools packed is described by its manifest.

    Raises:
        NotFoundError: there is nothing.
        FormatError: the chunk index is invalid or of a newer format.
        IntegrityError: bytes are not what the manifest's digest promises.
    """
    reference = repository.reference
    name = reference.digest or reference.tag
    if name is None:
        raise UsageError(f"{reference} has neither tag nor digest; write REF:TAG")
    manifest = repository.fetch_manifest(name)
    observer(Resolved(reference=str(reference), digest=manifest.digest))
    warnings: list[str] = []
    if isinstance(manifest, Index):
        return Inspection(
            reference=str(reference),
            state=report.INDEX,
            digest=str(manifest.digest),
            media_type=manifest.media_type,
            annotations=manifest.annotations,
            manifests=manifest.manifests,
            referrers=_referrers(repository, manifest.digest, warnings),
            fetched_bytes=len(manifest.raw),
            warnings=tuple(warnings),
        )
    inside = _look_inside(repository, manifest, warnings)
    companion = _companion(repository, manifest, warnings)
    referrers = _referrers(repository, manifest.digest, warnings)
    return Inspection(
        reference=str(reference),
        state=state_of(manifest),
        digest=str(manifest.digest),
        media_type=manifest.media_type,
        artifact_type=manifest.artifact_type,
        config=manifest.config,
        format_version=manifest.annotations.get(FORMAT_VERSION),
        files=inspected_files(inside.index, inside.headers),
        model=inside.facts,
        layers=inspected_layers(manifest.layers, inside.index),
        chunks=ChunkStatistics.of(inside.index) if inside.index else None,
        annotations=manifest.annotations,
        companion=companion,
        referrers=referrers,
        fetched_bytes=len(manifest.raw) + inside.fetched_bytes,
        warnings=tuple(warnings),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Inside:
    """What the layers could be made to say."""

    index: ChunkIndex | None = None
    headers: Mapping[str, TensorFile] = field(default_factory=dict)
    facts: ModelFacts | None = None
    fetched_bytes: int = 0


def _look_inside(repository: Repository, manifest: Manifest, warnings: list[str]) -> _Inside:
    reference = str(repository.reference)
    state = state_of(manifest)
    if state == report.INTACT:
        artifact = load_artifact(repository, manifest)
        index = artifact.index
        headers = read_headers(
            index, index.files, layer_chunks(repository, artifact), where=reference
        )
        warnings.extend(headers.warnings)
        return _Inside(
            index=index,
            headers=headers.files,
            facts=read_facts(artifact.metadata.get(MODEL), warnings),
            fetched_bytes=manifest.layers[-1].size + headers.fetched_bytes,
        )
    if state == report.RECOMPRESSED:
        warnings.append(
            f"{reference}: its layers are not those that were packed (a copier recompressed "
            "them?); a pull fetches them whole, and tensor headers are not shown"
        )
        carried, fetched = carried_metadata(repository, manifest, warnings)
        return _Inside(
            index=decode_index(carried[CHUNKS]) if CHUNKS in carried else None,
            facts=read_facts(carried.get(MODEL), warnings),
            fetched_bytes=fetched,
        )
    return _Inside()


def _companion(repository: Repository, manifest: Manifest, warnings: list[str]) -> Companion | None:
    """Find the ModelPack manifest beside a tag, if it is one over the same layers."""
    tag = repository.reference.tag
    if tag is None:
        return None
    tag += COMPANION_SUFFIX
    try:
        companion = repository.fetch_manifest(tag)
    except (NotFoundError, UsageError):  # a tag of full length has no companion
        return None
    layers = {layer.digest for layer in manifest.layers}
    if isinstance(companion, Index) or not all(
        layer.digest in layers for layer in companion.layers
    ):
        warnings.append(f"{tag} is there, but holds other layers than {repository.reference}")
        return None
    return Companion(tag=tag, digest=str(companion.digest))


def _referrers(
    repository: Repository, digest: Digest, warnings: list[str]
) -> tuple[Descriptor, ...]:
    """List the referrers; a registry that answers oddly costs them, not the whole report."""
    try:
        return tuple(repository.referrers(digest))
    except NotFoundError:
        return ()
    except (AuthError, IntegrityError) as error:
        warnings.append(f"referrers cannot be listed: {error}")
        return ()
