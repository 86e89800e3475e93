"""The field types that only an inventory has: amounts, PCI addresses, modes, paths and choices.

Owns their wording and paths of faults. Leaves out plain types (:mod:`cdi._reader`) and which fields
an inventory has (:mod:`cdi.inventory`).

>>> faults = []
>>> reader = InventoryReader({"pci": "17:00.0", "memory": "141Gi"}, "devices[0]", faults)
>>> reader.quantity("memory"), reader.pci("pci"), str(faults[0])
(151397597184, '', "devices[0].pci: '17:00.0' is no PCI address; write it like 0000:17:00.0")
"""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeVar, cast

from cdi._reader import ObjectReader, join, kind_of
from cdi.errors import CdiUsageError
from cdi.inventory_quantity import MAX_BYTES, parse_quantity

Choice = TypeVar("Choice", bound=StrEnum)
Value = TypeVar("Value")
Scalar = str | int | bool

# Linux's MINORBITS is 20 and a major takes the 12 bits that are left of a 32-bit dev_t.
MAX_MAJOR, MAX_MINOR = 2**12 - 1, 2**20 - 1
# Permission bits with set-user-id, set-group-id and sticky.
MAX_MODE = 0o7777
MAX_INT64, MIN_INT64 = 2**63 - 1, -(2**63)

_MODE = re.compile(r"0?[0-7]{3,4}", re.ASCII)
_PCI = re.compile(r"([0-9a-f]{4}|0000[0-9a-f]{4}):[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
# A device number; sixteen million are more than any node has, and fit every field.
_MAX_INDEX = 2**24


def normal_pci(text: str) -> str:
    """Return a PCI address with a four-digit domain in lower case, or empty if it is none.

    NVML and procfs of some drivers write the domain with eight digits.
    """
    found = _PCI.fullmatch(text.lower())
    if found is None:
        return ""
    return found[0] if len(found[1]) == 4 else found[0][4:]


class InventoryReader(ObjectReader):
    """Read one object of an inventory; :meth:`finish` reports unknown fields."""

    __slots__ = ()

    def fault(self, name: str, reason: str) -> None:
        """Note a fault of a field of this object; an empty name stands for the object itself."""
        self._fault(join(self._path, name) if name else self._path, reason)

    def records(
        self, name: str, read: Callable[["InventoryReader"], Value], *, required: bool = False
    ) -> tuple[Value, ...]:
        """Take an array of objects of an inventory."""
        return self.array(
            name,
            lambda value, path: read(InventoryReader(value, path, self._faults)),
            required=required,
        )

    def record(self, name: str, read: Callable[["InventoryReader"], Value]) -> Value | None:
        """Take an object of an inventory; an absent one reads as None."""
        present, value, path = self._take(name)
        return read(InventoryReader(value, path, self._faults)) if present else None

    def record_map(
        self, name: str, read: Callable[["InventoryReader"], Value]
    ) -> dict[str, tuple[Value, str]]:
        """Take an object of objects: each key with what was read and the path of it."""
        present, value, path = self._take(name)
        if not present:
            return {}
        if not isinstance(value, Mapping):
            self._fault(path, f"is {kind_of(value)}, not an object")
            return {}
        return {
            key: (read(InventoryReader(inner, join(path, key), self._faults)), join(path, key))
            for key, inner in value.items()
            if self._is_key(key, path)
        }

    def text(self, name: str, *, required: bool = False) -> str:
        """Take a string that is not empty where it is given; an absent one reads as empty."""
        found = self.string(name, required=required)
        if not found and self._value.get(name) == "":
            self.fault(name, "is empty; leave it out where it is not known")
        return found

    def choice(self, name: str, choices: type[Choice], *, required: bool = False) -> Choice | None:
        """Take one word of an enumeration; an absent or unknown one reads as None."""
        text = self.text(name, required=required)
        if not text:
            return None
        if text in {member.value for member in choices}:
            return choices(text)
        known = ", ".join(member.value for member in choices)
        self.fault(name, f"{text[:40]!a} is not one of {known}")
        return None

    def number(self, name: str, high: int = _MAX_INDEX) -> int:
        """Take a required whole number from 0 to ``high``; a faulty one reads as 0."""
        if not self.has(name):
            self._take(name, required=True)
            return 0
        return self.integer(name, 0, high) or 0

    def quantity(self, name: str) -> int | None:
        """Take an amount of memory, in bytes or with a suffix such as ``Gi``."""
        present, value, path = self._take(name)
        if not present:
            return None
        if isinstance(value, str):
            try:
                return parse_quantity(value)
            except CdiUsageError as error:
                self._fault(path, str(error))
                return None
        return self._number(value, path, 0, MAX_BYTES)

    def pci(self, name: str) -> str:
        """Take a PCI address; it reads in lower case with a four-digit domain."""
        text = self.text(name)
        address = normal_pci(text)
        if text and not address:
            self.fault(name, f"{text[:40]!a} is no PCI address; write it like 0000:17:00.0")
        return address

    def mode(self, name: str) -> int | None:
        """Take permission bits, written as a quoted octal number such as ``"0666"``."""
        text = self.text(name)
        if _MODE.fullmatch(text):
            return int(text, 8)
        if text:
            self.fault(name, f'{text[:40]!a} is no octal mode; write it like "0666"')
        return None

    def path(self, name: str, *, required: bool = False) -> str:
        """Take an absolute path without ``..``; an absent one reads as empty."""
        text = self.text(name, required=required)
        if text and (not text.startswith("/") or ".." in text.split("/") or "\0" in text):
            self.fault(name, f"{text[:80]!a} is not an absolute path without '..'")
            return ""
        return text

    def files(self, name: str, read: Callable[["InventoryReader"], Value]) -> tuple[Value, ...]:
        """Take an array of objects in which a bare path stands for ``{path: that path}``."""

        def element(value: object, path: str) -> Value:
            shaped = {"path": value} if isinstance(value, str) else value
            return read(InventoryReader(shaped, path, self._faults))

        return self.array(name, element)

    def scalars(self, name: str) -> dict[str, Scalar]:
        """Take an object of strings, whole numbers and booleans; an absent one reads as empty."""
        present, value, path = self._take(name)
        if not present:
            return {}
        if not isinstance(value, Mapping):
            self._fault(path, f"is {kind_of(value)}, not an object")
            return {}
        found: dict[str, Scalar] = {}
        for key, inner in cast("Mapping[object, object]", value).items():
            if not self._is_key(key, path):
                continue
            name_ = cast("str", key)
            if isinstance(inner, bool):
                found[name_] = inner
            elif isinstance(inner, (int, float)):
                found[name_] = self._number(inner, join(path, name_), MIN_INT64, MAX_INT64) or 0
            else:
                found[name_] = self._text(inner, join(path, name_))
        return found
