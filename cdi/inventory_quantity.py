"""Amounts of memory as people write them: ``141Gi``, ``80G``, ``16384Mi`` or plain bytes.

Owns the grammar and the exact conversion to and from bytes. Leaves out what the amount is of.

The suffixes are those of Kubernetes quantities: ``k M G T P`` count in thousands, ``Ki Mi Gi Ti Pi``
in 1024s.

>>> parse_quantity("141Gi"), format_quantity(85899345920)
(151397597184, '80Gi')
"""

import re
from fractions import Fraction

from cdi.errors import CdiUsageError

_UNITS = {
    "": 1,
    "k": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "T": 1000**4,
    "P": 1000**5,
    "Ki": 1024,
    "Mi": 1024**2,
    "Gi": 1024**3,
    "Ti": 1024**4,
    "Pi": 1024**5,
}
# Nine digits on each side of the point say more than any memory has, and keep the arithmetic small.
_QUANTITY = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?([kMGTP]|[KMGTP]i)?", re.ASCII)
# An OCI memory limit and a Kubernetes quantity are both signed 64-bit numbers.
MAX_BYTES = 2**63 - 1


def parse_quantity(text: str) -> int:
    """Return the bytes that ``text`` stands for: ``141Gi``, ``1.5Ti``, ``80000M``, ``1024``.

    Raises:
        CdiUsageError: it is no such amount, not a whole number of bytes, or more than 2**63 - 1.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise CdiUsageError(f"{text[:40]!r} is no amount of memory; write it like 141Gi or 80G")
    whole, fraction, unit = found.groups(default="")
    number = Fraction(f"{whole}.{fraction}" if fraction else whole) * _UNITS[unit]
    if number.denominator != 1:
        raise CdiUsageError(f"{text!r} is not a whole number of bytes")
    if number > MAX_BYTES:
        raise CdiUsageError(f"{text!r} is more than any memory")
    return int(number)


def format_quantity(number: int) -> str:
    """Return ``number`` bytes with the largest suffix that keeps it whole: ``141Gi``, ``1000``."""
    for unit in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        if number and number % _UNITS[unit] == 0:
            return f"{number // _UNITS[unit]}{unit}"
    return str(number)
