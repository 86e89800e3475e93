"""Count a model's weights and read what GGUF metadata says about the model.

Owns: which of several weight files are counted, parameters per dtype, quantization, GGUF's
key-values. Leaves out: parsing the headers.

Example::

    weight_facts({"model.safetensors": tensor_file}).parameters_by_dtype  # {"F32": 22713216}
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelpack.facts.model import ModelFacts, clean_number, clean_text, clean_texts
from modelpack.tensors import MetadataValue, TensorFile
from modelpack.tensors.dtypes import GGML_FILE_TYPES, UNQUANTIZED_DTYPES
from modelpack.tensors.model import shown

MAX_BASE_MODELS = 64
"""Parents of a merged model; merges of more than a dozen are not seen."""

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
# The names that loaders look for come first: what else lies beside them may be a second copy.
_PREFERRED_STEMS = ("model", "diffusion_pytorch_model")
_QUANTIZATION_IN_NAME = re.compile(
    r"(?:^|[-_.])("
    + "|".join(sorted(GGML_FILE_TYPES.values(), key=len, reverse=True))
    + r")(?:[-_.]|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _WeightSet:
    """Files that hold one set of weights: a single file, or the shards of one name."""

    directory: str
    stem: str
    paths: tuple[str, ...]


def weight_facts(files: Mapping[str, TensorFile]) -> ModelFacts:
    """Return the facts in the headers of a model's tensor files, given by their paths.

    Each weight is counted once. Not counted, with a warning: GGUF files beside safetensors files
    (another form of the same model); files that hold a tensor of the same name as one counted in
    their directory (variants: other precisions and quantizations); ``consolidated*`` beside
    other files and the directory ``original/`` beside others (second copies under other names).
    """
    if not files:
        return ModelFacts()
    formats = tuple(sorted({each.format for each in files.values()}))
    # safetensors is what the others are made from.
    chosen = {path: each for path, each in files.items() if each.format == formats[-1]}
    warnings = [f"{shown(path)}: {_NOT_COUNTED}" for path in sorted(files.keys() - chosen.keys())]
    counted: dict[str, TensorFile] = {}
    for weights, is_counted in _choose(chosen):
        if is_counted:
            counted |= {path: chosen[path] for path in weights.paths}
        else:
            warnings.append(f"{shown(weights.paths[0])}: {_NOT_COUNTED}")
    by_dtype: defaultdict[str, int] = defaultdict(int)
    for each in counted.values():
        for dtype, count in each.parameters_by_dtype.items():
            by_dtype[dtype] += count
    facts = ModelFacts(
        formats=formats,
        parameters=sum(by_dtype.values()),
        parameters_by_dtype=dict(sorted(by_dtype.items())),
        tensor_count=sum(len(each.tensors) for each in counted.values()),
        warnings=tuple(warnings),
    )
    if formats[-1] == "gguf":
        path, first = min(counted.items())
        facts = facts.or_else(_gguf_facts(path, first, by_dtype))
    return facts


_NOT_COUNTED = "another copy of weights that are counted already; its parameters are not counted"


def _choose(files: Mapping[str, TensorFile]) -> Iterator[tuple[_WeightSet, bool]]:
    """Go through the sets, the likely main ones first, and say which are counted."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for weights in sorted(_weight_sets(files), key=_rank):
        names = {tensor.name for path in weights.paths for tensor in files[path].tensors}
        here = seen[weights.directory]
        copy = not here.isdisjoint(names)
        copy |= weights.stem.startswith("consolidated") and bool(here)
        copy |= _is_original(weights.directory) and not all(map(_is_original, seen))
        if not copy:
            here |= names
        yield weights, not copy


def _weight_sets(files: Mapping[str, TensorFile]) -> list[_WeightSet]:
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted(files):
        directory, _, name = path.rpartition("/")
        groups[directory, _SHARD.sub("", name.rpartition(".")[0])].append(path)
    return [
        _WeightSet(directory=directory, stem=stem, paths=tuple(paths))
        for (directory, stem), paths in groups.items()
    ]


def _rank(weights: _WeightSet) -> tuple[bool, str, bool, int, str]:
    preferred = (
        _PREFERRED_STEMS.index(weights.stem)
        if weights.stem in _PREFERRED_STEMS
        else len(_PREFERRED_STEMS)
    )
    return (
        _is_original(weights.directory),
        weights.directory,
        weights.stem.startswith("consolidated"),
        preferred,
        weights.stem,
    )


def _is_original(directory: str) -> bool:
    return directory.partition("/")[0] == "original"


def _gguf_facts(path: str, file: TensorFile, by_dtype: Mapping[str, int]) -> ModelFacts:
    """Return the facts in GGUF's standard keys (the specification's "Standardized key-value pairs")."""
    metadata = file.metadata
    architecture = clean_text(metadata.get("general.architecture"))

    def number(key: str) -> int | None:
        return clean_number(metadata.get(f"{architecture}.{key}"))

    return ModelFacts(
        name=clean_text(metadata.get("general.name")),
        quantization=_quantization(path, file, by_dtype),
        model_type=architecture,
        hidden_size=number("embedding_length"),
        layer_count=number("block_count"),
        attention_heads=number("attention.head_count"),
        vocabulary_size=number("vocab_size"),
        context_length=number("context_length"),
        chat_template=True if metadata.get("tokenizer.chat_template") else None,
        licenses=clean_texts(metadata.get("general.license")),
        license_name=clean_text(metadata.get("general.license.name")),
        license_link=clean_text(metadata.get("general.license.link")),
        base_models=_base_models(metadata),
        datasets=clean_texts(metadata.get("general.datasets")),
        languages=clean_texts(metadata.get("general.languages")),
        tags=clean_texts(metadata.get("general.tags")),
    )


def _quantization(path: str, file: TensorFile, by_dtype: Mapping[str, int]) -> str | None:
    """Name the quantization: what the file says, else its name, else what most of it is stored in."""
    stated = file.metadata.get("general.file_type")
    if type(stated) is int and stated in GGML_FILE_TYPES:
        name = GGML_FILE_TYPES[stated]
    elif found := _QUANTIZATION_IN_NAME.search(path.rpartition("/")[2]):
        name = found[1].upper()
    elif by_dtype:
        name = max(by_dtype, key=lambda dtype: by_dtype[dtype])
    else:
        return None
    return None if name in UNQUANTIZED_DTYPES else name


def _base_models(metadata: Mapping[str, MetadataValue]) -> tuple[str, ...]:
    count = clean_number(metadata.get("general.base_model.count")) or 0
    parents = []
    for number in range(min(count, MAX_BASE_MODELS)):
        for key in ("repo_url", "url", "name"):
            parent = clean_text(metadata.get(f"general.base_model.{number}.{key}"))
            if parent is not None:
                parents.append(parent)
                break
    return clean_texts(parents)
