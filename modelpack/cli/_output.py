"""What a command prints: data on stdout, prose on stderr, one JSON object with ``--json``."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024


def print_json(value: object) -> None:
    """Print exactly one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Print data on stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def print_note(text: str) -> None:
    """Print prose on stderr."""
    sys.stderr.write(text + "\n")


def console(*, stderr: bool = False) -> "Console":
    """Return a rich console that honours NO_COLOR and plain pipes."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=not sys.stdout.isatty())


def table(
    columns: Sequence[tuple[str, Mapping[str, Any]]], rows: Sequence[Sequence[str]]
) -> "Table":
    """Return a plain table: (heading, rich column options) pairs, and rows of text."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, show_edge=False)
    for heading, options in columns:
        made.add_column(heading, **options)
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def human_bytes(size: float) -> str:
    """Write a number of bytes for people, in binary units."""
    value = float(size)
    for unit in _UNITS:
        if abs(value) < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def is_interactive() -> bool:
    """Tell whether live progress can be drawn on stderr."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
