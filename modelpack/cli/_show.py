"""Showing what came out of an artifact to people: safe text, tables, counts, marks.

Owns the rule that nothing from an artifact drives the terminal: every character that is not
printable is shown as its escape, and so is what the terminal's encoding lacks. On a terminal tables
fit its width; in a pipe they are as wide as they need to be, one line a row.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelpack.cli._output import console, print_note, print_text

if TYPE_CHECKING:
    from rich.text import Text

Column = tuple[str, Mapping[str, Any]]
"""A heading, and rich's options for the column."""

# Rows of one list on a terminal; a pipe and --json get all.
MAX_ROWS = 40
_UNLIMITED_WIDTH = 100_000
_COUNT_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def visible(text: str) -> str:
    """Return text with every unprintable or unencodable character written as an escape."""
    shown = "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )
    encoding = sys.stdout.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def has_unicode() -> bool:
    """Tell whether stdout can take block characters and arrows."""
    return (sys.stdout.encoding or "").lower().replace("-", "").replace("_", "") == "utf8"


def is_wide(columns: int) -> bool:
    """Tell whether there is room for so many columns; in a pipe there always is."""
    return not sys.stdout.isatty() or console().width >= columns


def width() -> int:
    """Return how wide pictures may be: the terminal's width, or 80 in a pipe."""
    return console().width if sys.stdout.isatty() else 80


def row_limit(count: int, most: int = MAX_ROWS) -> int:
    """Return how many of ``count`` rows to show: ``most`` on a terminal, all in a pipe."""
    return min(count, most) if sys.stdout.isatty() else count


def styled(text: str, style: str = "") -> "Text":
    """Return one line of safe text in a style of rich's."""
    from rich.text import Text

    return Text(visible(text), style=style)


def print_line(*parts: "str | Text") -> None:
    """Print one line made of texts, each made safe unless it is styled already."""
    from rich.text import Text

    line = Text.assemble(*(styled(part) if isinstance(part, str) else part for part in parts))
    console().print(line)


def print_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence["str | Text"]],
    *,
    headings: bool = True,
    indent: int = 0,
) -> None:
    """Print rows; strings are made safe."""
    from rich.padding import Padding
    from rich.table import Table

    made = Table(
        box=None, pad_edge=False, show_edge=False, show_header=headings, header_style="bold"
    )
    for heading, options in columns:
        made.add_column(heading, **{"overflow": "fold", **options})
    for row in rows:
        made.add_row(*(styled(cell) if isinstance(cell, str) else cell for cell in row))
    out = console()
    if not sys.stdout.isatty():
        out.width = _UNLIMITED_WIDTH
    with out.capture() as captured:
        out.print(Padding(made, (0, 0, 0, indent), expand=False))
    print_text("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_rest(count: int, limit: int, what: str) -> None:
    """Say how many rows were left out, if any were."""
    if count > limit:
        print_line(styled(f"  and {count - limit:,} more {what} (--json lists all)", "dim"))


def print_warnings(warnings: Sequence[str]) -> None:
    """Print warnings on stderr."""
    for warning in warnings:
        print_note(f"modelpack: warning: {visible(warning)}")


def human_count(count: int) -> str:
    """Write a count of parameters as model cards do: 22.7M, 8B, 671B."""
    for size, unit in _COUNT_UNITS:
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + unit
    return str(count)


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: 1 file, 2 files."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
