"""What a command prints: data on stdout, prose on stderr, one JSON object with ``--json``."""

import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelpack.errors import ModelpackError, SpaceError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024


def print_json(value: object) -> None:
    """Print exactly one JSON document on stdout."""
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a stdout without UTF-8, or half of a surrogate pair in a name
        text = json.dumps(value)
    _write(text + "\n")


def print_text(text: str) -> None:
    """Print data on stdout."""
    _write(text if text.endswith("\n") else text + "\n")


def _write(text: str) -> None:
    """Write to stdout.

    Raises:
        SpaceError, ModelpackError: it is a file that cannot be written.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        kind = SpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else ModelpackError
        raise kind(f"cannot write to stdout: {error.strerror}") from error


def pinned(reference: str | None, digest: str | None) -> str:
    """Join a reference and the digest it stands for, which it may name already."""
    if reference is None or digest is None:
        return reference or digest or ""
    return reference if reference.endswith(f"@{digest}") else f"{reference}@{digest}"


def count(number: int, noun: str) -> str:
    """Write a number of things: 1 file, 2 files."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
