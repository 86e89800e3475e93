"""Where a model's SBOM comes from: a reference, a pulled directory, or any model directory.

Owns finding the facts, the chunk index and the SBOM that the artifact carries, each verified. Leaves
out writing documents.

    source = directory_source(Path("model"))
    raw = source.cyclonedx()
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from blake3 import blake3

from modelpack.artifact import is_intact, is_packed, load_artifact
from modelpack.chunkindex import ChunkIndex, decode_index
from modelpack.diffing.sides import directory_side
from modelpack.errors import FormatError, IntegrityError, NotFoundError
from modelpack.events import Observer, ignore
from modelpack.facts import ModelFacts, collect_facts
from modelpack.inspecting.carried import carried_metadata
from modelpack.inspecting.indexedfile import IndexedFileReader, ReadChunk, layer_chunks, tree_chunks
from modelpack.inspecting.pulled import has_index, read_pulled
from modelpack.inspecting.report import read_facts
from modelpack.metadata import CHUNKS, MODEL, SBOM
from modelpack.pulling import resolve_model
from modelpack.reference import RegistryReference
from modelpack.sbom.cyclonedx import write_cyclonedx
from modelpack.sbom.inband import check_in_band
from modelpack.sbom.subject import Subject
from modelpack.sbom.supplement import Supplement
from modelpack.scan import scan_directory
from modelpack.storage import Repository
from modelpack.stores.files import Tree, mapped_errors

_BLOCK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A model to describe."""

    name: str
    """The directory or reference."""
    digest: str | None
    """Of the artifact's manifest, if there is one."""
    facts: ModelFacts
    index: ChunkIndex
    in_band: bytes | None = None
    """The SBOM that the artifact carries, verified to describe these files."""
    location: str | None = None
    directory: Path | None = None
    warnings: tuple[str, ...] = field(default=())

    def subject(
        self,
        *,
        supplement: Supplement | None = None,
        sha256: Mapping[str, str] | None = None,
        timestamp: datetime | None = None,
    ) -> Subject:
        """Join what is known with what people add."""
        return Subject(
            facts=self.facts,
            index=self.index,
            supplement=supplement or Supplement(),
            sha256=sha256 or {},
            timestamp=timestamp,
            location=self.location,
        )

    def cyclonedx(
        self,
        *,
        supplement: Supplement | None = None,
        sha256: Mapping[str, str] | None = None,
        timestamp: datetime | None = None,
    ) -> bytes:
        """Return the SBOM that the artifact carries; one made now if it has none or more is known.

        ``timestamp`` dates the one that is made; the artifact's own stays as it was signed.
        """
        if self.in_band is not None and supplement is None and sha256 is None:
            return self.in_band
        return write_cyclonedx(
            self.subject(supplement=supplement, sha256=sha256, timestamp=timestamp)
        )


def directory_source(directory: Path, *, observer: Observer = ignore) -> Source:
    """Describe a directory: as it was pulled if it was, else as a push would pack it.

    A directory that was not pulled is hashed, or taken from the cache of earlier pushes.

    Raises:
        NotFoundError: there is no such directory, or nothing in it.
        FormatError: something in it cannot be packed, or its records are malformed.
        IntegrityError: its records contradict each other.
    """
    if directory.exists() and has_index(directory):
        return _pulled_source(directory)
    with directory_side(directory, observer=observer) as side:
        index = side.version.index
        return Source(
            name=str(directory),
            digest=None,
            facts=_collected(index, side.read_chunk, str(directory)),
            index=index,
            directory=directory,
        )


def reference_source(repository: Repository, *, observer: Observer = ignore) -> Source:
    """Describe the artifact at a repository's reference; of the weights only headers are fetched.

    Raises:
        NotFoundError: there is nothing.
        FormatError: it was not packed by modelpack, or what it carries is malformed.
        IntegrityError: bytes are not what a digest promises, or the SBOM describes other files.
    """
    manifest = resolve_model(repository, observer)
    reference = repository.reference
    if not is_packed(manifest):
        raise FormatError(
            f"{reference} was not packed by modelpack and has no chunk index to describe; "
            "pull it and name the directory"
        )
    warnings: list[str] = []
    read_chunk: ReadChunk | None = None
    if is_intact(manifest):
        artifact = load_artifact(repository, manifest)
        files, index = artifact.metadata, artifact.index
        read_chunk = layer_chunks(repository, artifact)
    else:
        files, _ = carried_metadata(repository, manifest, warnings)
        if CHUNKS not in files:
            raise FormatError(f"{reference}: its layers hold no chunk index any more")
        index = decode_index(files[CHUNKS])
        warnings.append(
            f"{reference}: its layers are not those that were packed (a copier recompressed them?); "
            "described is what was packed"
        )
    location = None
    if isinstance(reference, RegistryReference):
        location = f"oci://{reference.repository_name}@{manifest.digest}"
    return Source(
        name=str(reference),
        digest=str(manifest.digest),
        facts=_facts(files, index, read_chunk, str(reference), warnings),
        index=index,
        in_band=_in_band(files, index),
        location=location,
        warnings=tuple(warnings),
    )


def sha256_of_files(source: Source) -> dict[str, str]:
    """Return the SHA-256 of every file of a directory, by reading all of them.

    Raises:
        NotFoundError: a file is gone.
        IntegrityError: a file has other bytes than the chunk index says.
    """
    assert source.directory is not None
    on_disk = {file.path: file.source for file in scan_directory(source.directory).files}
    found = {}
    for file in source.index.files:
        if file.path not in on_disk:
            raise NotFoundError(f"{source.directory / file.path} is missing; pull again")
        sha256, blake = _hash_file(on_disk[file.path])
        if blake != file.blake3:
            raise IntegrityError(
                f"{source.directory / file.path} has other bytes than the chunk index says; "
                "pull again, or push the directory as a new version"
            )
        found[file.path] = sha256
    return found


def _pulled_source(directory: Path) -> Source:
    pulled = read_pulled(directory)
    index = pulled.index
    assert index is not None
    warnings = []
    in_place = pulled.present()
    expected = pulled.receipt.files if pulled.receipt else index.by_path()
    touched = [path for path in expected if not in_place.get(path)]
    if touched:
        warnings.append(
            f"{directory}: {len(touched)} of its files are gone or changed since the pull, "
            f"{min(touched)!a} for one; described is what was pulled"
        )
    with _tree_reader(directory, index) as read_chunk:
        facts = _facts(pulled.metadata, index, read_chunk, str(directory), warnings)
    return Source(
        name=str(directory),
        digest=str(pulled.manifest.digest) if pulled.manifest else None,
        facts=facts,
        index=index,
        in_band=_in_band(pulled.metadata, index),
        directory=directory,
        warnings=tuple(warnings),
    )


@contextmanager
def _tree_reader(directory: Path, index: ChunkIndex) -> Iterator[ReadChunk]:
    with mapped_errors(f"cannot read {directory}"):
        tree = Tree(directory)
    try:
        yield tree_chunks(tree, index)
    finally:
        tree.close()


def _in_band(files: Mapping[str, bytes], index: ChunkIndex) -> bytes | None:
    raw = files.get(SBOM)
    if raw is not None:
        check_in_band(raw, index)
    return raw


def _facts(
    files: Mapping[str, bytes],
    index: ChunkIndex,
    read_chunk: ReadChunk | None,
    where: str,
    warnings: list[str],
) -> ModelFacts:
    """Take the facts that were found at push, or find them now."""
    known = read_facts(files.get(MODEL), warnings)
    if known is not None:
        return known
    return _collected(index, read_chunk, where) if read_chunk else ModelFacts()


def _collected(index: ChunkIndex, read_chunk: ReadChunk, where: str) -> ModelFacts:
    return collect_facts(
        {file.path: IndexedFileReader(index, file, read_chunk, where=where) for file in index.files}
    )


def _hash_file(path: Path) -> tuple[str, bytes]:
    sha256, blake = hashlib.sha256(), blake3()
    with mapped_errors(f"cannot read {path}"), open(path, "rb") as file:
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        while count := file.readinto(buffer):
            sha256.update(buffer[:count])
            blake.update(buffer[:count])
    return sha256.hexdigest(), blake.digest()
