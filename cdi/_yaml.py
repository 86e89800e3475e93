r"""YAML text to JSON values, strictly: one document, no key twice, bounded depth and size.

Owns the rules by which a plain scalar is a string, number, boolean or null, and the paths of faults
in the text. Leaves out what the values mean. A syntax error ends the reading; every other problem
is a fault and the reading goes on.

A plain scalar that some YAML version in use reads as a number, boolean or null is that here, so a
device must be named ``"0"`` and not ``0``. Dates and base-60 numbers are strings, as they are for
the runtimes.

>>> load_yaml("a: [1, 0o17, 1:30, 'no']\na: 2")
({'a': 2}, [Fault(path='a', reason='is given twice (line 2, column 1)')])
"""

import re
from dataclasses import dataclass, field
from typing import NoReturn, cast

import yaml

from cdi._reader import join
from cdi.errors import Fault

# A spec nests six levels; readers that recurse must not be led deeper than Python allows.
MAX_DEPTH = 64
# Aliases may repeat a subtree many times over; the largest real specs hold a few ten thousand values.
MAX_VALUES = 500_000

# libyaml where PyYAML was built with it, some ten times faster. Only its event stream is used: its
# composer recurses in C, and a deeply nested text would overrun the stack.
_LOADER = cast("type[yaml.SafeLoader]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_BASES = (
    (re.compile(r"[-+]?0x[0-9A-Fa-f_]*[0-9A-Fa-f]"), 16),
    (re.compile(r"[-+]?0b[01_]*[01]"), 2),
    (re.compile(r"[-+]?0o?[0-7_]*[0-7]"), 8),
)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOATS = frozenset({".inf", "-.inf", "+.inf", ".nan"})
_BOOLEANS = dict.fromkeys(("y", "yes", "true", "on"), True) | dict.fromkeys(
    ("n", "no", "false", "off"), False
)
_NULLS = frozenset({"", "~", "null"})
# A number in a spec has at most 20 digits, and int() refuses very long ones.
_MAX_NUMBER = 64


class _StopError(Exception):
    """The document cannot be read further."""


@dataclass(kw_only=True, slots=True)
class _Frame:
    """A mapping or sequence whose elements are being read."""

    value: dict[str, object] | list[object]
    path: str
    anchor: str | None
    size: int = 1
    key: str | None = None
    awaits_value: bool = False


@dataclass(kw_only=True, slots=True)
class _Builder:
    """Builds the value from the event stream without recursion."""

    faults: list[Fault]
    frames: list[_Frame] = field(default_factory=list)
    anchors: dict[str, tuple[object, int]] = field(default_factory=dict)
    result: object = None
    total: int = 0

    def feed(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._open({}, event)
            case yaml.SequenceStartEvent():
                self._open([], event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self.frames.pop()
                self._place(frame.value, frame.size, frame.anchor)
            case yaml.AliasEvent():
                self._alias(event)

    def _path(self) -> str:
        if not self.frames:
            return ""
        frame = self.frames[-1]
        if isinstance(frame.value, list):
            return f"{frame.path}[{len(frame.value)}]"
        return frame.path if frame.key is None else join(frame.path, frame.key)

    def _awaits_key(self) -> bool:
        return (
            bool(self.frames)
            and isinstance(self.frames[-1].value, dict)
            and not self.frames[-1].awaits_value
        )

    def _open(
        self, value: dict[str, object] | list[object], event: yaml.CollectionStartEvent
    ) -> None:
        if self._awaits_key():
            _stop(event, "a key must be a string")
        if len(self.frames) >= MAX_DEPTH:
            _stop(event, f"nested more than {MAX_DEPTH} levels deep")
        default = "map" if isinstance(value, dict) else "seq"
        if event.tag not in (None, "!", _TAG + default):
            self._fault(f"has the tag {event.tag!a}, which a spec must not use")
        self.frames.append(_Frame(value=value, path=self._path(), anchor=event.anchor))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        value = self._resolve(event)
        if self._awaits_key():
            self._key(value, event)
        else:
            self._place(value, 1, event.anchor)

    def _key(self, value: object, event: yaml.ScalarEvent) -> None:
        frame = self.frames[-1]
        frame.awaits_value = True
        frame.key = None
        if not isinstance(value, str):
            self._fault(f"has the key {event.value!a}, which is not a string; quote it")
            return
        frame.key = value
        if value in frame.value:
            self._fault(f"is given twice ({_where(event)})")

    def _alias(self, event: yaml.AliasEvent) -> None:
        if self._awaits_key():
            _stop(event, "a key must be a string")
        if event.anchor not in self.anchors:
            _stop(event, f"alias *{event.anchor} has no finished anchor before it")
        value, size = self.anchors[event.anchor]
        self._place(value, size, None)

    def _place(self, value: object, size: int, anchor: str | None) -> None:
        self.total += size
        if self.total > MAX_VALUES:
            raise _StopError(f"holds more than {MAX_VALUES} values")
        if anchor is not None:
            self.anchors[anchor] = (value, size)
        if not self.frames:
            self.result = value
            return
        frame = self.frames[-1]
        frame.size += size
        if isinstance(frame.value, list):
            frame.value.append(value)
            return
        if frame.key is not None:
            frame.value[frame.key] = value
        frame.key = None
        frame.awaits_value = False

    def _fault(self, reason: str) -> None:
        self.faults.append(Fault(path=self._path(), reason=reason))

    def _resolve(self, event: yaml.ScalarEvent) -> object:
        text = event.value
        if event.tag in (None, "!"):
            return _plain(text) if event.implicit[0] else text
        if event.tag == _TAG + "str":
            return text
        value = _plain(text)
        named: dict[str, type | tuple[type, ...]] = {
            "int": int,
            "float": (int, float),
            "bool": bool,
            "null": type(None),
        }
        expected = named.get(event.tag.removeprefix(_TAG))
        if expected is None:
            self._fault(f"has the tag {event.tag!a}, which a spec must not use")
        elif not isinstance(value, expected):
            self._fault(f"is {text!a}, which its tag {event.tag!a} does not allow")
        return value


def load_yaml(text: str) -> tuple[object, list[Fault]]:
    """Return the value of the one document in ``text`` and the faults found in it."""
    builder = _Builder(faults=[])
    documents = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _stop(event, "a second YAML document begins; a spec is one document")
            builder.feed(event)
    except _StopError as error:
        builder.faults.append(Fault(path="", reason=str(error)))
    except yaml.MarkedYAMLError as error:
        reason = f"{_where(error)}: {error.problem or 'not YAML'}"
        builder.faults.append(Fault(path="", reason=reason))
    except (yaml.YAMLError, UnicodeError) as error:
        builder.faults.append(Fault(path="", reason=f"not YAML: {' '.join(str(error).split())}"))
    else:
        if not documents:
            builder.faults.append(Fault(path="", reason="is empty"))
    return builder.result, builder.faults


def _plain(text: str) -> object:
    """Resolve a plain scalar as the strictest of YAML 1.1, YAML 1.2 and the Go readers do."""
    lower = text.lower()
    if lower in _NULLS:
        return None
    if lower in _BOOLEANS:
        return _BOOLEANS[lower]
    if lower in _SPECIAL_FLOATS:
        return float(lower.replace(".", ""))
    if len(text) > _MAX_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    for pattern, base in _BASES:
        if pattern.fullmatch(text):
            sign = -1 if text[0] == "-" else 1
            digits = text.lstrip("+-")[1:].lstrip("xbo").replace("_", "")
            return sign * int(digits, base)
    return float(text.replace("_", "")) if _FLOAT.fullmatch(text) else text


def _stop(event: yaml.Event, reason: str) -> NoReturn:
    raise _StopError(f"{_where(event)}: {reason}")


def _where(event: yaml.Event | yaml.MarkedYAMLError) -> str:
    mark = event.start_mark if isinstance(event, yaml.Event) else event.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
