"""Names of devices: ``vendor/class=device``, parsed, formatted and checked.

Owns the grammar of vendors, classes, devices and kinds. Leaves out pod annotations
(:mod:`cdi.annotations`) and the question whether such a device exists (:mod:`cdi.cache`).

>>> QualifiedName.parse("nvidia.com/gpu=0")
QualifiedName(vendor='nvidia.com', class_='gpu', device='0')
>>> str(QualifiedName(vendor="amd.com", class_="gpu", device="all"))
'amd.com/gpu=all'
"""

import re
from dataclasses import dataclass
from typing import Self

from cdi.errors import CdiUsageError

# The CDI specification, "Kind" and "Device name". A vendor or class starts with a letter, a device
# also with a digit (0.5.0), and all end in a letter or a digit.
VENDOR_PATTERN = r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?"
DEVICE_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?"

_VENDOR = re.compile(VENDOR_PATTERN)
_DEVICE = re.compile(DEVICE_PATTERN)


def vendor_fault(vendor: str) -> str:
    """Say why ``vendor`` is no vendor name, or return an empty string when it is one."""
    return _fault("vendor", vendor, _VENDOR, "letters, digits, '.', '_' or '-', first a letter")


def class_fault(class_: str) -> str:
    """Say why ``class_`` is no class name, or return an empty string when it is one."""
    return _fault("class", class_, _VENDOR, "letters, digits, '.', '_' or '-', first a letter")


def device_fault(device: str) -> str:
    """Say why ``device`` is no device name, or return an empty string when it is one."""
    return _fault("device name", device, _DEVICE, "letters, digits, '.', '_', '-' or ':'")


def kind_fault(kind: str) -> str:
    """Say why ``kind`` is not ``vendor/class``, or return an empty string when it is."""
    vendor, slash, class_ = kind.partition("/")
    if not slash:
        return f"kind {kind!r} is not of the form vendor/class"
    return vendor_fault(vendor) or class_fault(class_)


def split_kind(kind: str) -> tuple[str, str]:
    """Split ``vendor/class`` into its two parts.

    Raises:
        CdiUsageError: it is not a valid kind.
    """
    if fault := kind_fault(kind):
        raise CdiUsageError(fault)
    vendor, _, class_ = kind.partition("/")
    return vendor, class_


def is_qualified(name: str) -> bool:
    """Tell whether ``name`` is a fully qualified device name."""
    return not _qualified_fault(name)


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class QualifiedName:
    """Name one device of one kind: ``vendor/class=device``.

    A value built by :meth:`parse` is valid; one built from parts is as valid as its parts.
    """

    vendor: str
    class_: str
    device: str

    @classmethod
    def parse(cls, name: str) -> Self:
        """Parse ``vendor/class=device``.

        Raises:
            CdiUsageError: a part is missing or breaks the grammar.
        """
        if fault := _qualified_fault(name):
            raise CdiUsageError(fault)
        kind, _, device = name.partition("=")
        vendor, _, class_ = kind.partition("/")
        return cls(vendor=vendor, class_=class_, device=device)

    @property
    def kind(self) -> str:
        """Return ``vendor/class``."""
        return f"{self.vendor}/{self.class_}"

    def __str__(self) -> str:
        return f"{self.kind}={self.device}"


def _qualified_fault(name: str) -> str:
    kind, equals, device = name.partition("=")
    if not equals or "/" not in kind:
        return f"device {name!r} is not fully qualified; write vendor/class=device"
    reason = kind_fault(kind) or device_fault(device)
    return f"invalid device {name!r}: {reason}" if reason else ""


def _fault(what: str, value: str, pattern: re.Pattern[str], rule: str) -> str:
    if not value:
        return f"{what} is empty"
    if pattern.fullmatch(value):
        return ""
    return f"invalid {what} {value!r}: it takes {rule}, and ends in a letter or digit"
