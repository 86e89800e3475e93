"""What a model artifact is: its manifest, its image config, its companion, and reading one back.

Owns the mapping between a packed model and its OCI documents (docs/format.md); all of it is pure
but ``load_artifact``, which fetches the metadata layer. Leaves out packing and transferring.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.chunkindex import ChunkIndex, IndexedFile, decode_index
from modelpack.descriptor import (
    DEFAULT_PLATFORM,
    FORMAT_VERSION,
    METADATA_LAYER,
    MODEL_CONFIG,
    MODEL_FILEPATH,
    MODEL_LAYER_PREFIX,
    MODEL_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER_TAR,
    Descriptor,
)
from modelpack.errors import FormatError, UsageError
from modelpack.facts import ModelFacts
from modelpack.manifest import Manifest, canonical_json
from modelpack.metadata import CHUNKS, MAX_METADATA_BYTES, read_metadata_layer
from modelpack.storage import Fetcher

VERSION = "1"

# ModelPack model-spec, "Layer media types", by what a file's name says of it.
_WEIGHT = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".keras",
           ".npz", ".msgpack", ".tflite", ".engine", ".pdparams", ".mlmodel", ".om")  # fmt: skip
_DOC = (".md", ".txt", ".pdf", ".rst", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".html")
_CODE = (".py", ".ipynb", ".sh", ".cpp", ".cu", ".c", ".h", ".js", ".ts")
_DATASET = (".parquet", ".csv", ".tsv", ".jsonl", ".arrow")
_DOC_NAMES = ("license", "readme", "notice", "use_policy")
_CONFIG_TEXTS = ("merges.txt", "vocab.txt", "requirements.txt")
_LANGUAGE = re.compile("[a-z]{2}")
_UNNAMED = "model"


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A model artifact that carries a valid chunk index for the layers it really has."""

    manifest: Manifest
    index: ChunkIndex
    metadata: Mapping[str, bytes]
    """The files of the metadata layer by name, the encoded index among them."""

    @property
    def data_layers(self) -> tuple[Descriptor, ...]:
        """The layers that hold the model's files."""
        return self.manifest.layers[:-1]

    @property
    def fetched_bytes(self) -> int:
        """What was fetched to know this much."""
        return len(self.manifest.raw) + self.manifest.layers[-1].size


def build_config(
    layers: Sequence[tuple[Descriptor, str]], *, platform: str = DEFAULT_PLATFORM
) -> bytes:
    """Return the image config for layers and their titles, in order.

    Raises:
        UsageError: ``platform`` is not OS/ARCHITECTURE[/VARIANT].
    """
    parts = platform.split("/")
    if len(parts) not in {2, 3} or not all(part.isalnum() for part in parts):
        raise UsageError(f"platform {platform!r} is not OS/ARCHITECTURE, such as linux/arm64")
    value: dict[str, Any] = {"architecture": parts[1], "os": parts[0]}
    if parts[2:]:
        value["variant"] = parts[2]
    value["config"] = {}
    value["rootfs"] = {
        "type": "layers",
        "diff_ids": [str(descriptor.digest) for descriptor, _ in layers],
    }
    value["history"] = [{"created_by": f"modelpack: {title}"} for _, title in layers]
    return canonical_json(value)


def build_manifest(
    *,
    config: bytes,
    data_layers: Sequence[Descriptor],
    metadata_layer: bytes,
    annotations: Mapping[str, str],
) -> Manifest:
    """Return the image manifest that goes to the tag."""
    metadata = Descriptor.of(metadata_layer, media_type=OCI_LAYER_TAR)
    return Manifest.build(
        config=Descriptor.of(config, media_type=OCI_CONFIG),
        layers=[*data_layers, metadata],
        annotations={
            **annotations,
            FORMAT_VERSION: VERSION,
            METADATA_LAYER: str(metadata.digest),
        },
    )


def build_companion(index: ChunkIndex, facts: ModelFacts) -> tuple[Manifest, bytes]:
    """Return the CNCF ModelPack manifest over the same blobs, and its config.

    The metadata layer is left out: a ModelPack tool would put it beside the model's files, and
    other tools have no use for it. A layer of one file carries that file's path; one of several
    carries ``.``, the directory that the paths in its tar start from: modctl looks only at those,
    and KitOps unpacks into the parent of what the annotation says.
    """
    layers = []
    for number, layer in enumerate(index.layers):
        files = index.files_of_layer(number)
        kind = _layer_kind(files)
        path = files[0].path if len(files) == 1 else "."
        layers.append(
            Descriptor(
                media_type=f"{MODEL_LAYER_PREFIX}{kind}.v1.tar",
                digest=layer.digest,
                size=layer.size,
                annotations={MODEL_FILEPATH: path},
            )
        )
    config = canonical_json(_companion_config(facts, [str(layer.digest) for layer in layers]))
    manifest = Manifest.build(
        config=Descriptor.of(config, media_type=MODEL_CONFIG),
        layers=layers,
        artifact_type=MODEL_MANIFEST,
    )
    return manifest, config


def is_packed(manifest: Manifest) -> bool:
    """Tell whether a manifest was written by modelpack, in any version."""
    return FORMAT_VERSION in manifest.annotations


def is_intact(manifest: Manifest) -> bool:
    """Tell whether the layers are those that were packed, not a copier's recompression."""
    return (
        bool(manifest.layers)
        and manifest.annotations.get(METADATA_LAYER) == str(manifest.layers[-1].digest)
        and all(layer.media_type == OCI_LAYER_TAR for layer in manifest.layers)
    )


def load_artifact(fetcher: Fetcher, manifest: Manifest) -> Artifact:
    """Fetch and validate the metadata layer of a packed, intact manifest.

    Raises:
        FormatError: a newer format, or an index that is invalid or belongs to other layers.
        IntegrityError: the layer's bytes do not have its digest.
    """
    version = manifest.annotations.get(FORMAT_VERSION)
    if version != VERSION:
        raise FormatError(
            f"manifest {manifest.digest} has format version {version!r:.40}, this modelpack reads "
            f"{VERSION}: update it"
        )
    raw = fetcher.fetch_blob(manifest.layers[-1], max_bytes=MAX_METADATA_BYTES)
    metadata = read_metadata_layer(raw)
    if CHUNKS not in metadata:
        raise FormatError(f"manifest {manifest.digest}: its metadata layer has no chunk index")
    index = decode_index(metadata[CHUNKS])
    promised = [(layer.digest, layer.size) for layer in index.layers]
    actual = [(layer.digest, layer.size) for layer in manifest.layers[:-1]]
    if promised != actual:
        raise FormatError(f"manifest {manifest.digest}: its chunk index describes other layers")
    return Artifact(manifest=manifest, index=index, metadata=metadata)


def file_kind(path: str) -> str:
    """Return the ModelPack kind of a file: weight, weight.config, doc, code or dataset."""
    name = path.rpartition("/")[2].lower()
    if name.endswith(_WEIGHT):
        return "weight"
    if name.endswith(_CODE):
        return "code"
    if name.endswith(_DATASET):
        return "dataset"
    if name in _CONFIG_TEXTS:
        return "weight.config"
    if name.endswith(_DOC) or name.startswith(_DOC_NAMES):
        return "doc"
    return "weight.config"


def _layer_kind(files: Sequence[IndexedFile]) -> str:
    kinds = {file_kind(file.path) for file in files}
    if len(kinds) == 1:
        return kinds.pop()
    return "weight" if "weight" in kinds else "weight.config"


def _companion_config(facts: ModelFacts, diff_ids: list[str]) -> dict[str, Any]:
    """Return the ModelPack config (model-spec, config-schema.json): only what is known."""
    descriptor = {
        # model-spec's own validator wants a name, though its text does not
        "name": facts.name or facts.model_type or _UNNAMED,
        "family": facts.model_type,
        "licenses": list(facts.licenses),
        "datasetsURL": [item for item in facts.datasets if item.startswith("https://")],
    }
    config = {
        "architecture": "transformer" if facts.attention_heads else None,
        "format": facts.formats[0] if len(facts.formats) == 1 else None,
        "paramSize": _parameter_size(facts.parameters) if facts.parameters else None,
        "precision": facts.precision,
        "quantization": facts.quantization,
        "capabilities": _capabilities(facts),
    }
    return {
        "descriptor": {key: value for key, value in descriptor.items() if value},
        "config": {key: value for key, value in config.items() if value},
        "modelfs": {"type": "layers", "diffIds": diff_ids},
    }


def _capabilities(facts: ModelFacts) -> dict[str, Any]:
    languages = [item for item in facts.languages if _LANGUAGE.fullmatch(item)]
    return {"languages": languages} if languages else {}


def _parameter_size(parameters: int) -> str | None:
    """Write a parameter count as model-spec wants it: 22.7m, 8b, 1.2t; None below a thousand."""
    for unit, size in (("t", 10**12), ("b", 10**9), ("m", 10**6), ("k", 10**3)):
        if parameters >= size:
            return f"{parameters / size:.1f}".removesuffix(".0") + unit
    return None
