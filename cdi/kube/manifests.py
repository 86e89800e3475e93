r"""Kubernetes manifests as text: documents in, documents out, what is not changed stays as it was.

Owns YAML and JSON of one or more documents. A document that nobody changes keeps its text to the
letter, comments included; in a changed one the order, the spelling of scalars (``yes``, ``0o17``,
``1.10``) and block text stay, comments and anchors do not. Leaves out what the objects mean.

>>> manifest = load("kind: Pod  # mine\n---\nkind: Job\n")
>>> print(manifest.text({1: [{"kind": "Job", "replaced": "no"}]}), end="")
kind: Pod  # mine
---
kind: Job
replaced: "no"
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import yaml

from cdi.errors import CdiError

# A large Helm release renders to a few MiB, and nests some twenty levels.
MAX_TEXT = 32 * 1024 * 1024
MAX_DEPTH = 100
# Aliases repeat whole subtrees; this bounds what they can grow to.
MAX_VALUES = 2_000_000

_TAG = "tag:yaml.org,2002:"
_LOADER = cast("type[yaml.SafeLoader]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))
# As in cdi.emit: bare only where no reader of any YAML version takes it for anything but text.
_BARE = re.compile(r"[A-Za-z/]([A-Za-z0-9_./:=@+-]*[A-Za-z0-9_./=@+-])?")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class InvalidManifestError(CdiError):
    """A manifest is no YAML, or its objects are not what their kinds promise."""

    exit_code = 5


class Scalar(str):
    """A scalar as a document spells it: its text, with the tag and the style to write it back."""

    __slots__ = ("style", "tag")
    tag: str
    style: str | None

    @classmethod
    def of(cls, text: str, tag: str, style: str | None) -> "Scalar":
        """Build one."""
        made = cls(text)
        made.tag = tag
        made.style = style
        return made


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document: its value and its text, which begins with ``---`` where that was written."""

    value: object
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The documents of one file, empty ones left out."""

    documents: tuple[Document, ...]

    def text(self, replaced: Mapping[int, Sequence[object]]) -> str:
        """Return the file's text, with some documents, by position, replaced by objects."""
        parts: list[str] = []
        for i, document in enumerate(self.documents):
            parts += dump_each(replaced[i]) if i in replaced else [document.source]
        return join(parts)


def load(text: str) -> Manifest:
    """Read all documents of a manifest.

    Scalars are :class:`Scalar`, whatever YAML takes them for, except that null is None. Mappings
    keep their order and merge keys (``<<``) are resolved.

    Raises:
        InvalidManifestError: it is no YAML, has a key twice, or is beyond the limits above.
    """
    if len(text) > MAX_TEXT:
        raise InvalidManifestError(f"is larger than {MAX_TEXT} characters")
    reader = _Reader()
    values: list[object] = []
    starts: list[int] = []
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                starts.append(event.start_mark.line if event.start_mark else 0)
                reader = _Reader()
            elif isinstance(event, yaml.DocumentEndEvent):
                values.append(reader.result)
            else:
                reader.feed(event)
    except yaml.MarkedYAMLError as error:
        where = f"{_where(error.problem_mark)}: " if error.problem_mark else ""
        raise InvalidManifestError(f"{where}{error.problem or 'is no YAML'}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise InvalidManifestError(f"is no YAML: {' '.join(str(error).split())}") from error
    lines = text.splitlines(keepends=True)
    ends = [*starts[1:], len(lines)]
    first = [0, *starts[1:]]  # comments before the first document belong to it
    sources = ["".join(lines[a:b]) for a, b in zip(first, ends, strict=True)] if starts else []
    documents = zip(values, sources, strict=True)
    return Manifest(
        documents=tuple(Document(value=v, source=s) for v, s in documents if v is not None)
    )


def dump_each(objects: Iterable[object]) -> list[str]:
    """Return each object as the text of one YAML document."""
    return [
        yaml.dump(
            value,
            Dumper=_Dumper,
            sort_keys=False,
            default_flow_style=False,
            allow_unicode=True,
            width=sys.maxsize,
        )
        for value in objects
    ]


def dump(objects: Iterable[object]) -> str:
    """Return objects as YAML, one document each; the same objects give the same text."""
    return join(dump_each(objects))


def join(parts: Iterable[str]) -> str:
    """Join the texts of documents into one file."""
    whole: list[str] = []
    for part in parts:
        if whole and not part.startswith("---"):
            whole.append("---\n")
        whole.append(part if part.endswith("\n") else f"{part}\n")
    return "".join(whole)


@dataclass(kw_only=True, slots=True)
class _Frame:
    """A mapping or sequence being read; the items of a mapping are keys and values in turn."""

    is_mapping: bool
    anchor: str | None
    size: int = 1
    items: list[object] = field(default_factory=list)


class _Reader:
    """Builds one document's value from YAML's event stream, without recursion."""

    def __init__(self) -> None:
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[object, int]] = {}
        self._total = 0
        self.result: object = None

    def feed(self, event: yaml.Event) -> None:
        """Take the next event of the document."""
        match event:
            case yaml.ScalarEvent():
                self._place(_scalar(event), 1, event.anchor)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                if len(self._frames) >= MAX_DEPTH:
                    raise _error(event, f"is nested more than {MAX_DEPTH} levels deep")
                mapping = isinstance(event, yaml.MappingStartEvent)
                self._frames.append(_Frame(is_mapping=mapping, anchor=event.anchor))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self._frames.pop()
                value = _mapping(frame.items, event) if frame.is_mapping else frame.items
                self._place(value, frame.size, frame.anchor)
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise _error(event, f"has the alias *{event.anchor} without an anchor before")
                self._place(*self._anchors[event.anchor], None)

    def _place(self, value: object, size: int, anchor: str | None) -> None:
        self._total += size
        if self._total > MAX_VALUES:
            raise InvalidManifestError(f"has a document of more than {MAX_VALUES} values")
        if anchor:
            self._anchors[anchor] = (value, size)
        if self._frames:
            self._frames[-1].items.append(value)
            self._frames[-1].size += size
        else:
            self.result = value


def _mapping(items: Sequence[object], event: yaml.Event) -> dict[str, object]:
    pairs = list(zip(items[::2], items[1::2], strict=True))
    explicit: set[str] = set()
    for key, _ in pairs:
        if not isinstance(key, str):
            raise _error(event, "ends a mapping with a key that is no text")
        if key in explicit:
            raise _error(event, f"ends a mapping that has the key {key[:60]!a} twice")
        explicit.add(key)
    value: dict[str, object] = {}
    for key, inner in pairs:
        if isinstance(key, Scalar) and key.tag == f"{_TAG}merge":
            for one in inner if isinstance(inner, list) else [inner]:
                if not isinstance(one, dict):
                    raise _error(event, "ends a mapping that merges what is no mapping")
                value |= {k: v for k, v in one.items() if k not in explicit and k not in value}
        else:
            value[cast("str", key)] = inner
    return value


def _scalar(event: yaml.ScalarEvent) -> Scalar | None:
    tag = event.tag
    if tag in (None, "!"):
        plain = event.implicit[0] and tag is None
        tag = _Dumper.resolved(event.value) if plain else f"{_TAG}str"
    if tag == f"{_TAG}null":
        return None
    return Scalar.of(event.value, tag, event.style)


def _error(event: yaml.Event, reason: str) -> InvalidManifestError:
    return InvalidManifestError(f"{_where(event.start_mark)}: {reason}")


class _Mark(Protocol):
    """A place in a text; PyYAML and libyaml each have a class of their own."""

    line: int
    column: int


def _where(mark: _Mark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"


class _Dumper(yaml.SafeDumper):
    """PyYAML's emitter: scalars as they were spelled, new texts quoted, no anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class's signature
        return True

    @classmethod
    def resolved(cls, text: str) -> str:
        """Return the tag that YAML 1.1 gives a plain scalar."""
        resolvers = cls.yaml_implicit_resolvers
        for tag, pattern in resolvers.get(text[:1], []) + resolvers.get(None, []):
            if pattern.match(text):
                return cast("str", tag)
        return f"{_TAG}str"


def _represent_scalar(dumper: yaml.SafeDumper, scalar: Scalar) -> yaml.ScalarNode:
    return dumper.represent_scalar(scalar.tag, str(scalar), style=scalar.style)


def _represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    bare = _BARE.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar(f"{_TAG}str", text, style=None if bare else '"')


_Dumper.add_representer(Scalar, _represent_scalar)
_Dumper.add_representer(str, _represent_str)
