"""Sizes, durations and percentages as people write them in a configuration.

Owns their spelling: that of Kubernetes for sizes (``20Gi`` is binary, ``20G`` decimal), of Go and
Prometheus for durations (``90s``, ``1h30m``, ``7d``).

    >>> parse_size("20Gi"), parse_duration("1h30m"), parse_percent("90%")
    (21474836480, 5400.0, 90.0)
"""

import re
from decimal import Decimal
from typing import Any

from modelpack.errors import UsageError

# Far beyond any disk; keeps sums of sizes within what JSON readers take exactly.
MAX_SIZE = 2**53 - 1
MAX_DURATION = 10 * 366 * 86400.0

_SIZE = re.compile(r"(?P<number>[0-9]{1,16}(\.[0-9]{1,9})?)(?P<unit>[kKMGTP]|[KMGTP]i)?\Z")
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_UNITS |= {f"{letter}i": 1024**power for power, letter in enumerate("KMGTP", 1)}
_DURATION = re.compile(
    r"(?=.)((?P<w>[0-9]{1,6})w)?((?P<d>[0-9]{1,6})d)?((?P<h>[0-9]{1,9})h)?"
    r"((?P<m>[0-9]{1,9})m)?((?P<s>[0-9]{1,9})s)?\Z"
)
_SECONDS = {"w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}
_PERCENT = re.compile(r"(?P<number>[0-9]{1,3}(\.[0-9]{1,4})?)%\Z")


def parse_size(value: Any) -> int:
    """Return a number of bytes from a number, or from text such as ``20Gi`` or ``1.5T``.

    Raises:
        UsageError: it is no size, or beyond ``MAX_SIZE``.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.match(value) if isinstance(value, str) else None
        size = int(Decimal(match["number"]) * _UNITS[match["unit"] or ""]) if match else -1
    if not 0 <= size <= MAX_SIZE:
        raise UsageError(f"{value!r:.40} is not a size such as 500M, 20Gi or 1.5Ti")
    return size


def parse_rate(value: Any) -> int:
    """Return bytes per second, at least 1, from text such as ``50M``.

    Raises:
        UsageError: it is no rate.
    """
    try:
        rate = parse_size(value.removesuffix("/s") if isinstance(value, str) else value)
    except UsageError:
        rate = 0
    if rate < 1:
        raise UsageError(f"{value!r:.40} is not a rate in bytes per second such as 50M or 1Gi")
    return rate


def parse_duration(value: Any) -> float:
    """Return seconds from text such as ``90s``, ``1h30m`` or ``7d``; at most ten years.

    Raises:
        UsageError: it is no duration; a bare number is none, for lack of a unit.
    """
    match = _DURATION.match(value) if isinstance(value, str) else None
    seconds = -1.0
    if match:
        seconds = float(
            sum(int(match[unit]) * worth for unit, worth in _SECONDS.items() if match[unit])
        )
    if not 0 <= seconds <= MAX_DURATION:
        raise UsageError(f"{value!r:.40} is not a duration such as 90s, 1h30m or 7d")
    return seconds


def parse_percent(value: Any) -> float:
    """Return a percentage from text such as ``90%``.

    Raises:
        UsageError: it is none, or above 100.
    """
    match = _PERCENT.match(value) if isinstance(value, str) else None
    if not match or float(match["number"]) > 100:
        raise UsageError(f"{value!r:.40} is not a percentage such as 90%")
    return float(match["number"])


def show_size(size: int) -> str:
    """Write a number of bytes for a one-line reason.

    >>> show_size(21474836480)
    '20.0 GiB'
    """
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def show_duration(seconds: float) -> str:
    """Write a duration for a one-line reason, in its two largest units.

    >>> show_duration(5400), show_duration(0.4)
    ('1h 30m', '1s')
    """
    rest = max(1, round(seconds))
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, _SECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
