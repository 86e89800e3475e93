"""Gather a model's facts from its files.

Owns: which files are read, how much of them, and whose word counts. Leaves out: what each file says
(``documents``, ``front_matter``, ``weights``) and opening files.

Example::

    class LocalFile:
        def __init__(self, path): self.path, self.size = path, path.stat().st_size
        def read(self, offset, length):
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(length)

    collect_facts({path.name: LocalFile(path) for path in directory.iterdir()})
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from modelpack.errors import FormatError
from modelpack.facts.documents import config_facts, pipeline_facts, remote_code, tokenizer_facts
from modelpack.facts.model import ModelFacts
from modelpack.facts.weights import weight_facts
from modelpack.tensors import TensorFile, probe
from modelpack.tensors.model import shown

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""A JSON file that is loaded whole: the largest config.json in use (20,000 class labels) has about
1 MB, and loading the worst JSON of this size takes about 100 MB of memory."""

_MODEL_CARD = "README.md"
_TENSOR_SUFFIXES = (".safetensors", ".gguf")


class ModelFile(Protocol):
    """A file whose bytes can be read by ranges: on disk, in a layer, or in a registry."""

    @property
    def size(self) -> int:
        """The file's length in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes at ``offset``; fewer only at the end of the file."""


def collect_facts(
    contents: Mapping[str, ModelFile], tensor_files: Mapping[str, TensorFile] | None = None
) -> ModelFacts:
    """Return what the files of a model say about it.

    ``contents`` maps paths relative to the model's root, with forward slashes, to files;
    ``tensor_files`` maps paths to headers that are already parsed, and when it is given no header
    is read again. Read are the model card's front matter and small JSON files at the root and,
    without ``tensor_files``, the headers of files named ``*.safetensors`` and ``*.gguf``. Where two
    files speak of one fact, the order is: model card, config.json, tokenizer files, weights.

    Never raises for what the files hold; what cannot be used is left out and named in ``warnings``.
    Errors of the ``read`` calls pass through.
    """
    facts = _card_facts(contents)
    for path, read_facts in _DOCUMENTS.items():
        facts = facts.or_else(_document_facts(contents, path, read_facts))
    if tensor_files is None:
        tensor_files, broken = _headers(contents)
        facts = facts.or_else(broken)
    return facts.or_else(weight_facts(tensor_files))


def _template_facts(_: Mapping[str, Any]) -> ModelFacts:
    return ModelFacts(chat_template=True)


def _processor_facts(config: Mapping[str, Any]) -> ModelFacts:
    return ModelFacts(remote_code=remote_code(config))


# In the order in which their word counts. A template file of its own overrides the tokenizer's.
_DOCUMENTS: dict[str, Callable[[Mapping[str, Any]], ModelFacts]] = {
    "config.json": config_facts,
    "model_index.json": pipeline_facts,
    "chat_template.json": _template_facts,
    "tokenizer_config.json": tokenizer_facts,
    "preprocessor_config.json": _processor_facts,
    "processor_config.json": _processor_facts,
}
_TEMPLATE = "chat_template.jinja"


def _card_facts(contents: Mapping[str, ModelFile]) -> ModelFacts:
    facts = ModelFacts(chat_template=True if _TEMPLATE in contents else None)
    card = contents.get(_MODEL_CARD)
    if card is None:
        return facts
    # PyYAML takes longer to load than a push of what is there already takes to do.
    from modelpack.facts.front_matter import (  # noqa: PLC0415
        MAX_FRONT_MATTER_BYTES,
        front_matter_facts,
    )

    raw = card.read(0, min(card.size, MAX_FRONT_MATTER_BYTES))
    return facts.or_else(front_matter_facts(raw.decode("utf-8", errors="replace"), _MODEL_CARD))


def _document_facts(
    contents: Mapping[str, ModelFile],
    path: str,
    read_facts: Callable[[Mapping[str, Any]], ModelFacts],
) -> ModelFacts:
    content = contents.get(path)
    if content is None:
        return ModelFacts()
    if content.size > MAX_DOCUMENT_BYTES:
        return _left_out(path, f"is over {MAX_DOCUMENT_BYTES} bytes")
    try:
        document = json.loads(content.read(0, content.size))
    except (ValueError, RecursionError):  # bad UTF-8, bad JSON, numbers of 5,000 digits, nesting
        return _left_out(path, "is not valid JSON")
    if not isinstance(document, dict):
        return _left_out(path, "is not a JSON object")
    return read_facts(document)


def _left_out(path: str, reason: str) -> ModelFacts:
    return ModelFacts(warnings=(f"{path}: {reason}; its facts are left out",))


def _headers(contents: Mapping[str, ModelFile]) -> tuple[dict[str, TensorFile], ModelFacts]:
    found: dict[str, TensorFile] = {}
    warnings: list[str] = []
    for path, content in sorted(contents.items()):
        if not path.lower().endswith(_TENSOR_SUFFIXES):
            continue
        try:
            parsed = probe(path, content.read, content.size)
        except FormatError as error:
            warnings.append(f"{shown(path)}: {error}; its facts are left out")
            continue
        if parsed is not None:
            found[path] = parsed
    return found, ModelFacts(warnings=tuple(warnings))
