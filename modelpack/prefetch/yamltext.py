r"""YAML text to plain data, so that no two readers see different things in one file.

Owns which YAML is taken: one document, no aliases, no tags, no key twice, bounded size and depth;
plain scalars mean what YAML 1.2's core schema says, so ``18:00`` and ``no`` are texts. Leaves out
what the data mean.

    >>> load_yaml(b"window: {from: 18:00}", "a.yaml")
    {'window': {'from': '18:00'}}
    >>> load_yaml(b"a: 1\na: 2", "a.yaml")
    Traceback (most recent call last):
    modelpack.errors.UsageError: a.yaml: line 2: the key 'a' is there twice
"""

import re
from collections.abc import Hashable
from typing import Any, NoReturn

import yaml

from modelpack.errors import UsageError

# A thousand models with all that can be said of them take some 500 KB.
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
# A configuration nests six levels.
_MAX_DEPTH = 16
_MAX_REASON = 200


def load_yaml(raw: bytes, what: str) -> Any:
    """Parse one document; an empty one is None.

    Raises:
        UsageError: it is not such YAML; the message names ``what`` and the line.
    """
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise UsageError(f"{what} is larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        return yaml.load(raw.decode("utf-8"), Loader=_Loader)  # noqa: S506  # a SafeLoader
    except _RefusedError as error:
        raise UsageError(f"{what}: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UsageError(f"{what}: {line}not valid YAML: {_one_line(error.problem)}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{what}: not valid YAML: {_one_line(error)}") from error


class _RefusedError(yaml.YAMLError):
    """Valid YAML, but not of the kind that is taken here."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with other rules for plain scalars and some refusals."""

    # A copy, which the rules below are added to; PyYAML's own are those of YAML 1.1.
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, by which a short file can stand for a huge one, tags and deep nesting."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            _refuse(event, "aliases are not accepted")
        if getattr(event, "tag", None) is not None:
            _refuse(event, "tags are not accepted")
        if self.depth >= _MAX_DEPTH:
            _refuse(event, f"nested deeper than {_MAX_DEPTH}")
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that is there twice, of which PyYAML would keep the last."""
        seen: set[str] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                _refuse(key, f"the key {_one_line(name)!r:.60} is not a text; quote it")
            if name in seen:
                _refuse(key, f"the key {name[:60]!r} is there twice")
            seen.add(name)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first)
    )


def _construct_int(_loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    # PyYAML's reads 010 as 8; its float is right for what the pattern lets through.
    if len(node.value) > _MAX_DEPTH + 4:
        _refuse(node, "a number has more than 20 digits")
    return int(node.value, 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _refuse(place: yaml.Event | yaml.Node, reason: str) -> NoReturn:
    mark = place.start_mark
    raise _RefusedError(f"line {mark.line + 1}: {reason}" if mark else reason)


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())[:_MAX_REASON]
