"""Read the JSON files that stand beside a model's weights.

Owns: the facts in config.json, model_index.json, tokenizer_config.json and the processor files.
Leaves out: weights and the model card.

Example::

    config_facts({"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"}).precision
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from modelpack.facts.model import MAX_ITEMS, ModelFacts, clean_number, clean_text, clean_texts

_T = TypeVar("_T")
_ODD_CHARACTERS = 200

# The same number goes by different names in different families; the first that is there counts.
_HIDDEN_SIZE = ("hidden_size", "n_embd", "d_model")
_LAYER_COUNT = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_ATTENTION_HEADS = ("num_attention_heads", "n_head", "n_heads")
_VOCABULARY_SIZE = ("vocab_size",)
_CONTEXT_LENGTH = ("max_position_embeddings", "n_positions", "n_ctx")
# Models of several modalities keep the language model's numbers one level down.
_INNER_CONFIGS = ("text_config", "llm_config", "language_config")


def config_facts(config: Mapping[str, Any]) -> ModelFacts:
    """Return the facts in a transformers config.json."""
    levels = [config] + [
        inner for name in _INNER_CONFIGS if isinstance(inner := config.get(name), Mapping)
    ]
    precision = _first(levels, ("torch_dtype", "dtype"), clean_text)
    return ModelFacts(
        architectures=clean_texts(config.get("architectures")),
        model_type=clean_text(config.get("model_type")),
        precision=precision.removeprefix("torch.") if precision else None,
        quantization=_quantization(levels),
        hidden_size=_first(levels, _HIDDEN_SIZE, clean_number),
        layer_count=_first(levels, _LAYER_COUNT, clean_number),
        attention_heads=_first(levels, _ATTENTION_HEADS, clean_number),
        vocabulary_size=_first(levels, _VOCABULARY_SIZE, clean_number),
        context_length=_first(levels, _CONTEXT_LENGTH, clean_number),
        remote_code=remote_code(config),
    )


def pipeline_facts(index: Mapping[str, Any]) -> ModelFacts:
    """Return the facts in a diffusers model_index.json.

    A pipeline whose class is a pair names a module shipped with the model: remote code.
    """
    name = index.get("_class_name")
    if isinstance(name, list):
        return ModelFacts(remote_code=tuple(sorted(_references("Pipeline", name))))
    return ModelFacts(architectures=clean_texts(name), library_name="diffusers")


def tokenizer_facts(config: Mapping[str, Any]) -> ModelFacts:
    """Return the facts in a tokenizer_config.json."""
    template = config.get("chat_template")
    return ModelFacts(
        chat_template=isinstance(template, (str, list)) and bool(template),
        remote_code=remote_code(config),
    )


def remote_code(config: Mapping[str, Any]) -> tuple[str, ...]:
    """List the classes that a loader would take from code shipped with the model, if allowed to.

    ``auto_map`` is what transformers reads for models, tokenizers and processors alike;
    ``custom_pipelines`` does the same for pipelines.
    """
    found: set[str] = set()
    auto_map = config.get("auto_map")
    if isinstance(auto_map, Mapping):
        for name, target in auto_map.items():
            found |= _references(name, target)
    elif auto_map:
        # The oldest form, a bare reference or a pair of them, in tokenizer files.
        found |= _references("AutoTokenizer", auto_map)
    pipelines = config.get("custom_pipelines")
    if isinstance(pipelines, Mapping):
        for name, pipeline in pipelines.items():
            found |= _references(
                name, pipeline.get("impl") if isinstance(pipeline, dict) else pipeline
            )
    return tuple(sorted(found)[:MAX_ITEMS])


def _references(name: str, target: object) -> set[str]:
    """Name what an entry refers to, escaped where it is odd: an odd entry must not hide the code."""
    targets = target if isinstance(target, list) else [target]
    return {
        clean_text(f"{name}: {each}") or ascii(f"{name}: {each}"[:_ODD_CHARACTERS])
        for each in targets
        if each is not None
    }


def _quantization(levels: list[Mapping[str, Any]]) -> str | None:
    """Name the method and, where it is said, the bits: ``gptq-4bit``, ``fp8``."""
    for config in levels:
        settings = config.get("quantization_config")
        if not isinstance(settings, Mapping):
            continue
        method = clean_text(settings.get("quant_method"))
        bits = clean_number(settings.get("bits"))
        if settings.get("load_in_4bit") is True:
            bits = 4
        elif settings.get("load_in_8bit") is True:
            bits = 8
        if method is not None:
            return f"{method}-{bits}bit" if bits is not None else method
    return None


def _first(
    levels: list[Mapping[str, Any]], names: tuple[str, ...], clean: Callable[[object], _T | None]
) -> _T | None:
    """Return the first fit value among the names, the outer configuration before the inner ones."""
    for config in levels:
        for name in names:
            value = clean(config.get(name))
            if value is not None:
                return value
    return None
