"""Columns of text that are whole wherever they go: a name cut off in a pipe is another name.

Owns the padding. Leaves out colours and wrapping, which a terminal does by itself.

>>> columns([("A", "N"), ("bcd", "1")], right=(1,))
['A    N', 'bcd  1']
"""

from collections.abc import Collection, Sequence

_GAP = "  "


def columns(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """Return the rows, headings among them, as lines; ``right`` are columns of numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
