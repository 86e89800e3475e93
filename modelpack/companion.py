"""The CNCF ModelPack manifest that lies beside an artifact, over the same blobs. Pure.

Owns the mapping from a chunk index and what is known of the model to model-spec's documents, so
that its tools find a model they understand. Leaves out the artifact itself (``artifact.py``).

    manifest, config = build_companion(index, facts)
"""

import re
from collections.abc import Sequence
from typing import Any

from modelpack.chunkindex import ChunkIndex, IndexedFile
from modelpack.descriptor import (
    MODEL_CONFIG,
    MODEL_FILEPATH,
    MODEL_LAYER_PREFIX,
    MODEL_MANIFEST,
    Descriptor,
)
from modelpack.facts import ModelFacts
from modelpack.filekinds import file_kind
from modelpack.manifest import Manifest, canonical_json

_LANGUAGE = re.compile("[a-z]{2}")
_UNNAMED = "model"


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
