"""Showing what came out of an artifact to people: safe text, tables, counts, marks.

Owns the rule that nothing from an artifact drives the terminal: every character that is not
printable is shown as its escape, and so is what the terminal's encoding lacks. On a terminal tables
fit its width and long lists are cut; in a pipe there is one line for every row, however long.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelpack.cli._output import console, print_note, visible, write

if TYPE_CHECKING:
    from rich.text import Text

Column = tuple[str, Mapping[str, Any]]
"""A heading, and rich's options for the column."""

# Rows of one list on a terminal; a pipe and --json get all.
MAX_ROWS = 40
# A table of more rows is written without fitting it to the terminal: rich takes 0.7 ms for a row.
_MAX_FITTED_ROWS = 500
# One cell of a list on a terminal; an annotation can hold a whole document.
_MAX_CELL = 300
_COUNT_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def is_wide(columns: int) -> bool:
    """Tell whether there is room for so many columns; in a pipe there always is."""
    return not sys.stdout.isatty() or console().width >= columns


def picture_width() -> int:
    """Return how wide pictures may be: the terminal's width, or 80 in a pipe."""
    return console().width if sys.stdout.isatty() else 80


def row_limit(count: int, most: int = MAX_ROWS) -> int:
    """Return how many of ``count`` rows to show: ``most`` on a terminal, all in a pipe."""
    return min(count, most) if sys.stdout.isatty() else count


def styled(text: str, style: str = "") -> "Text":
    """Return safe text in a style of rich's."""
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
    if sys.stdout.isatty() and len(rows) <= _MAX_FITTED_ROWS:
        _print_fitted(columns, rows, headings=headings, indent=indent)
        return
    plain = [
        [visible(cell) if isinstance(cell, str) else cell.plain for cell in row] for row in rows
    ]
    if headings:
        plain.insert(0, [visible(heading) for heading, _ in columns])
    _print_aligned(columns, plain, indent)


def print_list(
    columns: Sequence[Column], rows: Sequence[Sequence["str | Text"]], what: str
) -> None:
    """Print an empty line and a table; on a terminal, cut it and say how many rows are left."""
    limit = row_limit(len(rows))
    print_line()
    print_table(columns, rows[:limit])
    print_rest(len(rows), limit, what)


def print_rest(count: int, limit: int, what: str) -> None:
    """Say how many rows were left out, if any were."""
    if count > limit:
        print_line(styled(f"  and {count - limit:,} more {what} (--json lists all)", "dim"))


def clipped(text: str) -> str:
    """Cut a long text on a terminal; a pipe gets all of it."""
    if len(text) <= _MAX_CELL or not sys.stdout.isatty():
        return text
    return f"{text[:_MAX_CELL]} (and {len(text) - _MAX_CELL:,} more characters)"


def _print_fitted(
    columns: Sequence[Column],
    rows: Sequence[Sequence["str | Text"]],
    *,
    headings: bool,
    indent: int,
) -> None:
    from rich.padding import Padding
    from rich.table import Table

    made = Table(
        box=None, pad_edge=False, show_edge=False, show_header=headings, header_style="bold"
    )
    for heading, options in columns:
        made.add_column(visible(heading), **{"overflow": "fold", **options})
    for row in rows:
        made.add_row(*(styled(cell) if isinstance(cell, str) else cell for cell in row))
    out = console()
    with out.capture() as captured:
        out.print(Padding(made, (0, 0, 0, indent), expand=False))
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _print_aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]], indent: int) -> None:
    from rich.cells import cell_len

    widths = [
        max((cell_len(row[number]) for row in rows), default=0) for number in range(len(columns))
    ]
    lines = []
    for row in rows:
        cells = []
        for cell, width, (_, options) in zip(row, widths, columns, strict=True):
            space = " " * (width - cell_len(cell))
            cells.append(space + cell if options.get("justify") == "right" else cell + space)
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    write("".join(f"{line}\n" for line in lines))


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
