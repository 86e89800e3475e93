"""One mapping of a configuration, read member by member, with the path of whatever is wrong.

Owns unknown and missing members, types and numbers. Leaves out what members mean.

    >>> section = Section({"budgt": 1}, "a.yaml")
    >>> section.only("budget")
    Traceback (most recent call last):
    modelpack.errors.UsageError: a.yaml: budgt is not known; did you mean budget?
"""

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from modelpack.errors import FormatError, UsageError

_T = TypeVar("_T")
# Nothing that belongs in a configuration is longer.
MAX_TEXT = 2048
_SHOWN = 80


class Section:
    """A mapping at a path of a document; every method names that path when it refuses."""

    def __init__(self, value: Any, what: str, path: str = "") -> None:
        """Take a mapping; ``what`` is the file.

        Raises:
            UsageError: it is something else.
        """
        self.what = what
        self.path = path
        if not isinstance(value, Mapping):
            name = path or "the file"
            raise UsageError(f"{what}: {name} is {_kind(value)}, not a mapping of names to values")
        self._value: Mapping[str, Any] = value

    def only(self, *known: str) -> None:
        """Refuse every other member; called first, so that a misspelt name is not called missing."""
        for name in self._value:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                self.refuse(name, f"is not known{hint}")

    def names(self) -> list[str]:
        """Return the members' names, in the document's order."""
        return list(self._value)

    def raw(self, name: str) -> Any:
        """Return a member as it is, None if it is not there; it must not be there and empty."""
        value = self._value.get(name)
        if value is None and name in self._value:
            self.refuse(name, "is empty; give it a value or leave it out")
        return value

    def has(self, name: str) -> bool:
        """Tell whether a member is there."""
        return self.raw(name) is not None

    def required(self, name: str) -> Any:
        """Return a member that must be there."""
        if not self.has(name):
            self.refuse(name, "is missing")
        return self._value[name]

    def text(self, name: str) -> str | None:
        """Return a text, None if it is not there."""
        value = self.raw(name)
        return None if value is None else self.as_text(value, name)

    def as_text(self, value: Any, name: str) -> str:
        """Return a value that must be a text of one line."""
        if not isinstance(value, str):
            self.refuse(name, f"is {_kind(value)}, not a text; quote it")
        if not 0 < len(value) <= MAX_TEXT or not value.isprintable():
            self.refuse(name, f"is not a line of 1 to {MAX_TEXT} characters")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(name, f"is {_kind(value)}, neither true nor false")
        return value

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.refuse(name, f"is not a whole number from {least} to {most}")
        return value

    def number(self, name: str, *, above: float, most: float) -> float:
        """Return a number within bounds that must be there."""
        value = self.required(name)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or not above < value <= most:
            self.refuse(name, f"is not a number above {above:g}, up to {most:g}")
        return float(value)

    def parsed(self, name: str, parse: Callable[[Any], _T]) -> _T | None:
        """Return what a parser makes of a member, None if it is not there."""
        value = self.raw(name)
        return None if value is None else self.parse(value, name, parse)

    def parse(self, value: Any, name: str, parse: Callable[[Any], _T]) -> _T:
        """Return what a parser makes of a value; the path goes in front of what it complains of."""
        try:
            return parse(value)
        except (UsageError, FormatError) as error:
            raise UsageError(f"{self.what}: {self.place(name)}: {error}") from error

    def items(self, name: str, most: int) -> list[Any]:
        """Return a list; one that is not there is empty."""
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(name, f"is {_kind(value)}, not a list")
        if len(value) > most:
            self.refuse(name, f"has {len(value)} entries; at most {most} are taken")
        return value

    def section(self, name: str) -> "Section":
        """Return a mapping within this one; one that is not there is empty."""
        value = self.raw(name)
        return Section({} if value is None else value, self.what, self.place(name))

    def sections(self, name: str, most: int) -> list["Section"]:
        """Return the mappings in a list within this one."""
        return [
            Section(value, self.what, f"{self.place(name)}[{number}]")
            for number, value in enumerate(self.items(name, most))
        ]

    def place(self, name: str) -> str:
        """Return the path of a member."""
        shown = name if name.isprintable() and len(name) <= _SHOWN else repr(name[:_SHOWN])
        return f"{self.path}.{shown}" if self.path else shown

    def refuse(self, name: str, reason: str) -> NoReturn:
        """Refuse a member.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.what}: {self.place(name)} {reason}")


def _kind(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "a mapping"
