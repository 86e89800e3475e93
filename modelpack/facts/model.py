"""Hold the facts of a model, and their JSON.

Owns: ``ModelFacts``, its JSON form (the file ``.modelpack/model.json``), and the bounds on texts that
come out of a model and go into annotations and onto terminals. Leaves out: where facts come from.

Example::

    ModelFacts.from_json(json.loads(text)).or_else(ModelFacts(licenses=("mit",)))
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from modelpack.errors import FormatError

FACTS_VERSION = 1
"""The version of the JSON form."""

MAX_TEXT_CHARACTERS = 1_024
"""One fact: facts go into annotations, tables and SBOM fields; nothing real comes near this."""

MAX_ITEMS = 1_000
"""Items of one list: the longest real ones (languages of translation models) have some 200."""

MAX_NUMBER = 2**63 - 1
"""Numbers have to survive JSON readers that keep them in signed 64 bits."""

MAX_WARNINGS = 50
"""A model of 100,000 broken files should not make a report of 100,000 lines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """State what is known about a model; None or empty means that the files do not say.

    ``parameters`` counts tensor elements, each weight once even where the model ships it in several
    formats. ``precision`` is the data type that the model's configuration names. ``quantization``
    is a GGUF file type (``Q4_K_M``) or a method with its bits (``gptq-4bit``). ``remote_code`` lists
    ``Class: module.Name`` for every class that a loader would take from code shipped with the model.
    ``warnings`` names what was left out, one line each.
    """

    name: str | None = None
    formats: tuple[str, ...] = ()
    parameters: int | None = None
    parameters_by_dtype: Mapping[str, int] = field(default_factory=dict)
    tensor_count: int | None = None
    precision: str | None = None
    quantization: str | None = None
    architectures: tuple[str, ...] = ()
    model_type: str | None = None
    hidden_size: int | None = None
    layer_count: int | None = None
    attention_heads: int | None = None
    vocabulary_size: int | None = None
    context_length: int | None = None
    chat_template: bool | None = None
    remote_code: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    license_name: str | None = None
    license_link: str | None = None
    base_models: tuple[str, ...] = ()
    base_model_relation: str | None = None
    datasets: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    library_name: str | None = None
    tags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def or_else(self, other: "ModelFacts") -> "ModelFacts":
        """Return these facts with those of ``other`` where these are unknown.

        ``remote_code`` and ``warnings`` add up: each file that asks for code is a risk of its own.
        """
        chosen: dict[str, Any] = {}
        for each in fields(self):
            own = getattr(self, each.name)
            chosen[each.name] = getattr(other, each.name) if _unknown(own) else own
        chosen["remote_code"] = tuple(sorted({*self.remote_code, *other.remote_code}))[:MAX_ITEMS]
        chosen["warnings"] = (self.warnings + other.warnings)[:MAX_WARNINGS]
        return ModelFacts(**chosen)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: keys in a fixed order, unknown facts left out."""
        result: dict[str, Any] = {"version": FACTS_VERSION}
        for each in fields(self):
            value = getattr(self, each.name)
            if _unknown(value):
                continue
            if isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, Mapping):
                value = dict(sorted(value.items()))
            result[each.name] = value
        return result

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Return the facts that a JSON value holds. Members with unknown names are ignored.

        Raises:
            FormatError: the value is not the JSON form, is of another version, or has a member of
                the wrong type or over a bound.
        """
        if not isinstance(value, Mapping):
            raise FormatError("model facts are not a JSON object")
        version = value.get("version")
        if type(version) is not int or version != FACTS_VERSION:
            raise FormatError(
                f"model facts have version {ascii(version)[:20]}; this program reads "
                f"{FACTS_VERSION}, a newer one may read it"
            )
        found: dict[str, Any] = {}
        for each in fields(cls):
            if each.name in value:
                found[each.name] = _from_json(each.name, value[each.name])
        return cls(**found)


_TUPLES = frozenset(each.name for each in fields(ModelFacts) if each.default == ())
_NUMBERS = frozenset(
    {
        "attention_heads",
        "context_length",
        "hidden_size",
        "layer_count",
        "parameters",
        "tensor_count",
        "vocabulary_size",
    }
)


def clean_text(value: object) -> str | None:
    """Return a text fit for one line of a table, or None.

    None for what is not a string, is empty or too long, or holds control characters, escape
    sequences, line breaks or lone surrogates: such a text could forge lines on a terminal or in a
    log, and no real fact has them.
    """
    if not isinstance(value, str):
        return None
    text = value.strip()
    return text if 0 < len(text) <= MAX_TEXT_CHARACTERS and text.isprintable() else None


def clean_texts(values: object) -> tuple[str, ...]:
    """Return the fit texts of a list, or of a single string; in order, each once, at most 1,000."""
    if isinstance(values, str):
        values = (values,)
    if not isinstance(values, Iterable):
        return ()
    texts: dict[str, None] = {}
    for value in values:
        text = clean_text(value)
        if text is not None:
            texts[text] = None
        if len(texts) == MAX_ITEMS:
            break
    return tuple(texts)


def clean_number(value: object) -> int | None:
    """Return a positive integer that fits 64 bits, or None."""
    return value if type(value) is int and 0 < value <= MAX_NUMBER else None


def _unknown(value: object) -> bool:
    # False is known (a tokenizer without a chat template), and so is 0 (a file without tensors).
    return value is None or (isinstance(value, (tuple, Mapping)) and not value)


def _from_json(name: str, value: object) -> Any:
    if name in _TUPLES:
        valid = (
            isinstance(value, list)
            and len(value) <= MAX_ITEMS
            and all(_is_text(item) for item in value)
        )
        result: Any = tuple(value) if valid and isinstance(value, list) else None
    elif name == "parameters_by_dtype":
        valid = (
            isinstance(value, dict)
            and len(value) <= MAX_ITEMS
            and all(_is_text(key) and _is_count(count) for key, count in value.items())
        )
        result = value
    elif name in _NUMBERS:
        valid, result = _is_count(value), value
    elif name == "chat_template":
        valid, result = isinstance(value, bool), value
    else:
        valid, result = _is_text(value), value
    if not valid:
        raise FormatError(f"model facts have a member {name} of the wrong type or over a bound")
    return result


def _is_text(value: object) -> bool:
    return value is not None and clean_text(value) == value


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_NUMBER
