"""Read JSON objects strictly: take known fields by name and type, and note every fault on the way.

Owns the wording and the paths of structural faults: wrong types, missing and unknown fields,
numbers out of range. Leaves out what the fields mean (:mod:`cdi.spec`, :mod:`cdi.validate`) and
where the object came from (:mod:`cdi.parse`).

A faulty field reads as its empty value, so that reading goes on and finds the next fault.

>>> faults: list[Fault] = []
>>> reader = ObjectReader({"path": 7, "colour": "red"}, "devices[0]", faults)
>>> reader.string("path", required=True), reader.finish()
('', None)
>>> [str(fault) for fault in faults]
['devices[0].path: is a number, not a string; quote it', 'devices[0].colour: is not a known field']
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from cdi.errors import Fault

T = TypeVar("T")

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
# A message stays one readable line whatever the document holds.
_MAX_SHOWN_KEY = 60


def kind_of(value: object) -> str:
    """Name the JSON type of a value in words, for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "an array"
    return f"a {type(value).__name__}"


def join(path: str, key: str) -> str:
    """Append a field to a path; a key that is no plain word is quoted in brackets."""
    if not _PLAIN_KEY.fullmatch(key):
        shown = key if len(key) <= _MAX_SHOWN_KEY else key[:_MAX_SHOWN_KEY] + "…"
        return f"{path}[{shown!a}]"
    return f"{path}.{key}" if path else key


class ObjectReader:
    """Read one JSON object field by field; call :meth:`finish` last to report unknown fields."""

    __slots__ = ("_faults", "_known", "_path", "_value")

    def __init__(self, value: object, path: str, faults: list[Fault]) -> None:
        self._path = path
        self._faults = faults
        self._known: set[str] = set()
        self._value: Mapping[str, object] = {}
        if isinstance(value, Mapping):
            self._value = value
        else:
            self._fault(path, f"is {kind_of(value)}, not an object")
            self._known = {"*"}

    def _fault(self, path: str, reason: str) -> None:
        self._faults.append(Fault(path=path, reason=reason))

    def _take(self, name: str, *, required: bool = False) -> tuple[bool, object, str]:
        path = join(self._path, name)
        whole = "*" not in self._known
        self._known.add(name)
        if name in self._value:
            return True, self._value[name], path
        if required and whole:
            self._fault(path, "is required")
        return False, None, path

    def has(self, name: str) -> bool:
        """Tell whether the object has this field at all."""
        return name in self._value

    def string(self, name: str, *, required: bool = False) -> str:
        """Take a string; an absent one reads as empty."""
        present, value, path = self._take(name, required=required)
        return self._text(value, path) if present else ""

    def _text(self, value: object, path: str) -> str:
        if not isinstance(value, str):
            hint = "; quote it" if isinstance(value, (int, float)) else ""
            self._fault(path, f"is {kind_of(value)}, not a string{hint}")
            return ""
        if _SURROGATE.search(value):
            self._fault(path, "holds half of a surrogate pair, which no UTF-8 file can hold")
            return ""
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        """Take a whole number within ``low`` and ``high``, both included; absent reads as None.

        A float without a fraction is the same number, as in JSON Schema.
        """
        present, value, path = self._take(name)
        return self._number(value, path, low, high) if present else None

    def _number(self, value: object, path: str, low: int, high: int) -> int | None:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            what = "a fraction" if isinstance(value, float) else kind_of(value)
            self._fault(path, f"is {what}, not a whole number")
            return None
        if not low <= value <= high:
            self._fault(path, f"is outside {low} to {high}")
            return None
        return value

    def boolean(self, name: str) -> bool:
        """Take a boolean; an absent one reads as false."""
        present, value, path = self._take(name)
        if present and not isinstance(value, bool):
            self._fault(path, f"is {kind_of(value)}, not a boolean")
        return value is True

    def array(
        self, name: str, read: Callable[[object, str], T], *, required: bool = False
    ) -> tuple[T, ...]:
        """Take an array and read each element with ``read(value, path)``; absent reads as empty."""
        present, value, path = self._take(name, required=required)
        if not present:
            return ()
        if not isinstance(value, (list, tuple)):
            self._fault(path, f"is {kind_of(value)}, not an array")
            return ()
        elements = cast("list[object]", value)
        return tuple(read(element, f"{path}[{i}]") for i, element in enumerate(elements))

    def strings(self, name: str) -> tuple[str, ...]:
        """Take an array of strings."""
        return self.array(name, self._text)

    def integers(self, name: str, low: int, high: int) -> tuple[int, ...]:
        """Take an array of whole numbers within ``low`` and ``high``."""
        return self.array(name, lambda value, path: self._number(value, path, low, high) or 0)

    def objects(
        self, name: str, read: Callable[["ObjectReader"], T], *, required: bool = False
    ) -> tuple[T, ...]:
        """Take an array of objects."""
        return self.array(
            name,
            lambda value, path: read(ObjectReader(value, path, self._faults)),
            required=required,
        )

    def nested(
        self, name: str, read: Callable[["ObjectReader"], T], *, required: bool = False
    ) -> T | None:
        """Take an object; an absent one reads as None."""
        present, value, path = self._take(name, required=required)
        return read(ObjectReader(value, path, self._faults)) if present else None

    def string_map(self, name: str) -> dict[str, str]:
        """Take an object whose values are strings; an absent one reads as empty."""
        present, value, path = self._take(name)
        if not present:
            return {}
        if not isinstance(value, Mapping):
            self._fault(path, f"is {kind_of(value)}, not an object")
            return {}
        found = {}
        for key, text in value.items():
            if not self._is_key(key, path):
                continue
            found[key] = self._text(text, join(path, key))
        return found

    def _is_key(self, key: object, path: str) -> bool:
        if not isinstance(key, str):
            self._fault(path, f"has a key that is {kind_of(key)}, not a string; quote it")
            return False
        if _SURROGATE.search(key):
            self._fault(path, "has a key with half of a surrogate pair")
            return False
        return True

    def finish(self) -> None:
        """Report every field that was not asked for."""
        for key in self._value:
            if self._is_key(key, self._path) and key not in self._known:
                self._fault(join(self._path, key), self._unknown(key))

    def _unknown(self, key: str) -> str:
        for known in sorted(self._known):
            if key.replace("_", "").lower() == known.lower():
                return f"is not a known field; did you mean {known}?"
        return "is not a known field"
