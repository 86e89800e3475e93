r"""Read the YAML front matter of a model card.

Owns: finding the front matter of a README.md and taking the members that are facts. Leaves out: the
card's prose, and evaluation results.

The YAML is read as a stream of events, by PyYAML's safe parser, and no object is built from it:
anchors and merge keys, with which a few lines of YAML grow without bound, are refused; nesting costs
no stack; and a value is the text that was written (to a YAML 1.1 loader the language ``no`` is false).

Example::

    front_matter_facts("---\nlicense: mit\n---\n# Title", "README.md").licenses  # ("mit",)
"""

import re
from collections.abc import Iterator

import yaml

from modelpack.facts.model import MAX_ITEMS, ModelFacts, clean_text, clean_texts

MAX_FRONT_MATTER_BYTES = 512 * 1024
"""Cards with the results of large benchmarks have some 200 KiB."""

MAX_DEPTH = 64
"""Nesting of YAML collections; benchmark results nest six deep."""

_FRONT_MATTER = re.compile(
    r"\ufeff?\s*---[ \t]*\r?\n(.*?)(?:^---[ \t]*\r?$)", re.DOTALL | re.MULTILINE
)
_BEGINNING = re.compile(r"\ufeff?\s*---[ \t]*\r?\n")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})

# libyaml's parser where PyYAML was built with it: ten times as fast, the same events.
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def front_matter_facts(text: str, path: str) -> ModelFacts:
    """Return the facts in a model card's front matter.

    ``text`` is the beginning of the card, at least as long as the front matter may be; ``path`` is
    for the warning. Broken or unusual front matter gives no facts and one warning.
    """
    found = _FRONT_MATTER.match(text)
    if found is None:
        if _BEGINNING.match(text) is None:
            return ModelFacts()
        return _without(path, "does not end within the limit")
    try:
        members = dict(_members(found[1]))
    except yaml.YAMLError:
        return _without(path, "is not valid YAML")
    except _RefusedError as error:
        return _without(path, str(error))
    return ModelFacts(
        name=clean_text(members.get("model_name")),
        licenses=clean_texts(members.get("license")),
        license_name=clean_text(members.get("license_name")),
        license_link=clean_text(members.get("license_link")),
        base_models=clean_texts(members.get("base_model")),
        base_model_relation=clean_text(members.get("base_model_relation")),
        datasets=clean_texts(members.get("datasets")),
        languages=clean_texts(members.get("language")),
        pipeline_tag=clean_text(members.get("pipeline_tag")),
        library_name=clean_text(members.get("library_name")),
        tags=clean_texts(members.get("tags")),
    )


class _RefusedError(Exception):
    """The front matter is YAML, but not of the kind that is read here."""


def _without(path: str, reason: str) -> ModelFacts:
    return ModelFacts(warnings=(f"{path}: its front matter {reason}; its facts are left out",))


def _members(text: str) -> Iterator[tuple[str, str | list[str]]]:
    """Yield the root mapping's members that are a scalar or a list of scalars; nulls left out."""
    depth = 0
    key: str | None = None  # of the member whose value comes next; None when a key comes next
    items: list[str] = []
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _RefusedError("uses aliases")
        if isinstance(event, yaml.CollectionStartEvent):
            if depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                raise _RefusedError("is not a mapping")
            if depth == 1:
                if key is None:
                    raise _RefusedError("has a collection as a key")
                items = []
            depth += 1
            if depth > MAX_DEPTH:
                raise _RefusedError("is nested too deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            if depth == 1 and key is not None:
                if isinstance(event, yaml.SequenceEndEvent):
                    yield key, items
                key = None
        elif isinstance(event, yaml.ScalarEvent):
            if depth == 0:
                raise _RefusedError("is not a mapping")
            is_null = not event.style and event.implicit[0] and event.value in _NULLS
            if depth == 1 and key is None:
                key = event.value
            elif depth == 1 and key is not None:
                if not is_null:
                    yield key, event.value
                key = None
            elif depth == 2 and not is_null and len(items) < MAX_ITEMS:
                items.append(event.value)
        elif isinstance(event, yaml.DocumentEndEvent):
            return
