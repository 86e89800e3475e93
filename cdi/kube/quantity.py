"""Kubernetes quantities: ``8Gi``, ``500m``, ``1e3``, ``2``.

Owns the whole grammar of ``resource.Quantity`` and exact conversion. Leaves out the narrower form
in which an inventory states memory (:mod:`cdi.inventory_quantity`).

>>> parse_quantity("1.5Gi"), parse_count("2"), parse_count("1k")
(Fraction(1610612736, 1), 2, 1000)
"""

import re
from fractions import Fraction

from cdi.errors import CdiUsageError

MIB = 1024**2
GIB = 1024**3

_SUFFIXES = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{unit: Fraction(1000**power) for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Fraction(1024**power) for power, unit in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(
    r"([+-]?)([0-9]{0,40})(?:\.([0-9]{0,40}))?(?:[eE]([+-]?[0-9]{1,2})|([numkMGTPE]|[KMGTPE]i)?)",
    re.ASCII,
)
# Kubernetes caps a quantity at what a signed 64-bit number holds.
MAX_VALUE = 2**63 - 1


def parse_quantity(value: object) -> Fraction:
    """Return the exact value of a quantity, written as a string or a number.

    Raises:
        CdiUsageError: it is no quantity, or beyond 2**63 - 1.
    """
    text = str(value) if isinstance(value, (str, int, float)) and value is not True else ""
    found = _QUANTITY.fullmatch(text)
    if found is None or not (found[2] or found[3]):
        raise CdiUsageError(f"{str(value)[:40]!a} is no quantity; write it like 2, 8Gi or 500m")
    sign, whole, fraction, exponent, suffix = found.groups(default="")
    number = Fraction(f"{whole or 0}.{fraction or 0}")
    number *= Fraction(10) ** int(exponent) if exponent else _SUFFIXES[suffix]
    if number > MAX_VALUE:
        raise CdiUsageError(f"{text[:40]!a} is larger than any quantity")
    return -number if sign == "-" else number


def parse_count(value: object) -> int:
    """Return a quantity that must be a whole number, zero or more: what extended resources take.

    Raises:
        CdiUsageError: it is no such number.
    """
    number = parse_quantity(value)
    if number.denominator != 1 or number < 0:
        raise CdiUsageError(f"{str(value)[:40]!a} is not a whole number, zero or more")
    return int(number)


def memory_text(number: int) -> str:
    """Return bytes as Kubernetes writes memory: ``24Gi``, ``8000Mi``, or plain bytes."""
    for unit, size in (("Gi", GIB), ("Mi", MIB), ("Ki", 1024)):
        if number and number % size == 0:
            return f"{number // size}{unit}"
    return str(number)
