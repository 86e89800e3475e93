"""What an inspection found, and its JSON.

Owns the values. Leaves out finding them and showing them to people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelpack.artifact import is_intact, is_packed
from modelpack.chunkindex import ChunkIndex, IndexedFile
from modelpack.descriptor import Descriptor
from modelpack.errors import FormatError
from modelpack.facts import ModelFacts
from modelpack.facts.weights import weight_facts
from modelpack.filekinds import file_kind
from modelpack.manifest import Manifest, load_json
from modelpack.metadata import MODEL
from modelpack.tensors import TensorFile

# What the layers are, compared with what modelpack packed.
INTACT = "intact"
RECOMPRESSED = "recompressed"
"""Packed by modelpack, but a copier changed the layers on the way."""
FOREIGN = "foreign"
"""Not packed by modelpack: another tool's artifact, or a plain image."""
INDEX = "index"
"""An image index, which lists manifests."""
MOUNTED = "mounted"
"""A directory with a chunk index but no manifest to hold it against, as a mounted volume is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedFile:
    """A file of the model."""

    path: str
    size: int
    mode: int
    kind: str
    """ModelPack's: weight, weight.config, doc, code or dataset."""
    layer: int
    """Which data layer, from 0."""
    chunks: int
    blake3: str
    present: bool
    """False when a pull was told to leave the file out, or it is gone from the directory."""
    tensors: TensorFile | None
    """What its header says, if it holds tensors."""

    @classmethod
    def of(cls, file: IndexedFile, header: TensorFile | None, *, present: bool) -> "InspectedFile":
        """Describe a file of a chunk index."""
        return cls(
            path=file.path,
            size=file.size,
            mode=file.mode,
            kind=file_kind(file.path),
            layer=file.layer,
            chunks=file.chunk_count,
            blake3=file.blake3.hex(),
            present=present,
            tensors=header,
        )

    def to_json(self, *, tensors: bool = False) -> dict[str, Any]:
        """Return the file as a JSON object; ``tensors`` lists each tensor too."""
        return {
            "path": self.path,
            "size": self.size,
            "mode": f"{self.mode:04o}",
            "kind": self.kind,
            "layer": self.layer,
            "chunks": self.chunks,
            "blake3": self.blake3,
            "present": self.present,
            "tensors": _header_to_json(self.tensors, each=tensors) if self.tensors else None,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedLayer:
    """A layer of the manifest; the metadata layer, the last one, lists no files."""

    descriptor: Descriptor
    files: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the layer as a JSON object."""
        return {
            "digest": str(self.descriptor.digest),
            "size": self.descriptor.size,
            "media_type": self.descriptor.media_type,
            "files": list(self.files),
            "annotations": dict(sorted(self.descriptor.annotations.items())),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkStatistics:
    """How an artifact is cut; lengths in bytes, 0 when there are no chunks."""

    count: int
    bytes: int
    unique: int
    unique_bytes: int
    """What is left when equal chunks are counted once."""
    smallest: int
    largest: int

    @classmethod
    def of(cls, index: ChunkIndex) -> "ChunkStatistics":
        """Count an index's chunks."""
        lengths = {index.hash_of(chunk): index.lengths[chunk] for chunk in range(index.chunk_count)}
        return cls(
            count=index.chunk_count,
            bytes=index.total_bytes,
            unique=len(lengths),
            unique_bytes=sum(lengths.values()),
            smallest=min(index.lengths, default=0),
            largest=max(index.lengths, default=0),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, kw_only=True, slots=True)
class Companion:
    """The CNCF ModelPack manifest beside the artifact."""

    tag: str
    digest: str

    def to_json(self) -> dict[str, Any]:
        """Return the companion as a JSON object."""
        return {"tag": self.tag, "digest": self.digest}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What is at a reference, or what a pulled directory says of itself."""

    reference: str | None
    directory: str | None = None
    state: str
    """``intact``, ``recompressed``, ``foreign``, ``index`` or ``mounted``."""
    digest: str | None
    media_type: str | None
    artifact_type: str | None = None
    config: Descriptor | None = None
    format_version: str | None = None
    files: tuple[InspectedFile, ...] = ()
    model: ModelFacts | None = None
    layers: tuple[InspectedLayer, ...] = ()
    chunks: ChunkStatistics | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    companion: Companion | None = None
    referrers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    """What an index lists."""
    fetched_bytes: int = 0
    """What was read to know all this."""
    warnings: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum(file.size for file in self.files)

    def weights(self) -> ModelFacts:
        """Return what the headers say together, each weight counted once."""
        return weight_facts({file.path: file.tensors for file in self.files if file.tensors})

    def to_json(self, *, tensors: bool = False) -> dict[str, Any]:
        """Return the inspection as a JSON object; ``tensors`` lists each tensor too."""
        weights = self.weights()
        return {
            "reference": self.reference,
            "directory": self.directory,
            "digest": self.digest,
            "media_type": self.media_type,
            "artifact_type": self.artifact_type,
            "state": self.state,
            "format_version": self.format_version,
            "config": _described(self.config) if self.config else None,
            "bytes": self.bytes,
            "files": [file.to_json(tensors=tensors) for file in self.files],
            "tensors": {
                "formats": list(weights.formats),
                "count": weights.tensor_count or 0,
                "parameters": weights.parameters or 0,
                "parameters_by_dtype": dict(weights.parameters_by_dtype),
            },
            "model": self.model.to_json() if self.model else None,
            "layers": [layer.to_json() for layer in self.layers],
            "chunks": self.chunks.to_json() if self.chunks else None,
            "annotations": dict(sorted(self.annotations.items())),
            "companion": self.companion.to_json() if self.companion else None,
            "referrers": [_described(item) for item in self.referrers],
            "manifests": [
                {**_described(item), "platform": item.extra.get("platform")}
                for item in self.manifests
            ],
            "fetched_bytes": self.fetched_bytes,
            "warnings": list(self.warnings),
        }


def state_of(manifest: Manifest) -> str:
    """Tell whether a manifest's layers are modelpack's, a copier's or another tool's."""
    if not is_packed(manifest):
        return FOREIGN
    return INTACT if is_intact(manifest) else RECOMPRESSED


def read_facts(raw: bytes | None, warnings: list[str]) -> ModelFacts | None:
    """Return the facts in a ``model.json``, None (and a warning) if they are unusable."""
    if raw is None:
        return None
    try:
        return ModelFacts.from_json(load_json(raw, MODEL))
    except FormatError as error:
        warnings.append(f"{error}; the model's facts are left out")
        return None


def inspected_files(
    index: ChunkIndex | None, headers: Mapping[str, TensorFile], absent: Sequence[str] = ()
) -> tuple[InspectedFile, ...]:
    """Describe all files of an index."""
    if index is None:
        return ()
    gone = frozenset(absent)
    return tuple(
        InspectedFile.of(file, headers.get(file.path), present=file.path not in gone)
        for file in index.files
    )


def inspected_layers(
    layers: Sequence[Descriptor], index: ChunkIndex | None
) -> tuple[InspectedLayer, ...]:
    """Describe a manifest's layers, with the files that the index puts in them."""
    paths: list[list[str]] = [[] for _ in layers]
    for file in index.files if index else ():
        if file.layer < len(paths):
            paths[file.layer].append(file.path)
    return tuple(
        InspectedLayer(descriptor=layer, files=tuple(inside))
        for layer, inside in zip(layers, paths, strict=True)
    )


def _described(item: Descriptor) -> dict[str, Any]:
    return {
        "artifact_type": item.artifact_type,
        "media_type": item.media_type,
        "digest": str(item.digest),
        "size": item.size,
        "annotations": dict(sorted(item.annotations.items())),
    }


def _header_to_json(header: TensorFile, *, each: bool) -> dict[str, Any]:
    value: dict[str, Any] = {
        "format": header.format,
        "format_version": header.format_version,
        "header_bytes": header.header_length,
        "count": len(header.tensors),
        "parameters": header.parameters,
        "parameters_by_dtype": header.parameters_by_dtype,
    }
    if each:
        value["list"] = [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "offset": tensor.offset,
                "bytes": tensor.length,
            }
            for tensor in header.tensors
        ]
    return value
