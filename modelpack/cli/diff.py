"""``modelpack diff A B``."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli import _show as show
from modelpack.cli._output import has_unicode, human_bytes, print_json
from modelpack.cli._progress import progress
from modelpack.cli.inspect import shape_text

if TYPE_CHECKING:
    from rich.text import Text

    from modelpack.diffing import Difference
    from modelpack.diffing.report import FileChange, TensorChange, TensorChanges, Version

_RIGHT = {"justify": "right", "no_wrap": True}
_FIXED = {"no_wrap": True}
_MARKS = {
    "added": ("+", "green"),
    "removed": ("-", "red"),
    "changed": ("~", "yellow"),
    "renamed": (">", "cyan"),
}
_REUSED, _FETCHED = "green", "yellow"
# From so many columns on there is room for more.
_WIDE = 100
# Rows of one file's tensors on a terminal.
_MAX_TENSOR_ROWS = 12


def diff_command(
    first: Annotated[
        str,
        typer.Argument(metavar="A", help="The version that is there.", parser=options.subject),
    ],
    second: Annotated[
        str,
        typer.Argument(metavar="B", help="The version to compare with it.", parser=options.subject),
    ],
    *,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare two versions: files, tensors, and what a pull of B fetches where A is.

    Each is a reference, a pulled directory or any model directory. No weights are fetched: chunk
    hashes and tensor headers decide.
    """
    from modelpack.api import diff
    from modelpack.connect import names_directory

    connection = options.connection_options(
        plain_http=plain_http, ca_file=ca_file, insecure=insecure
    )
    hashes = names_directory(first) or names_directory(second)
    with progress("hashing", quiet=quiet or json or not hashes) as observer:
        found = diff(first, second, connection=connection, observer=observer)
    show.print_warnings(found.warnings)
    if json:
        print_json(found.to_json())
        return
    _print_sides(found)
    _print_files(found)
    for change in found.files:
        if change.tensors is not None:
            _print_tensors(change, change.tensors)
    _print_pull(found)


def _print_sides(found: "Difference") -> None:
    def row(label: str, version: "Version") -> list["str | Text"]:
        digest = version.digest[:19] if version.digest else "no digest"
        return [
            show.styled(label, "bold"),
            version.name,
            digest,
            show.plural(len(version.numbers), "file"),
            human_bytes(version.bytes),
        ]

    show.print_table(
        [("", _FIXED), ("", {}), ("", _FIXED), ("", _RIGHT), ("", _RIGHT)],
        [row("A", found.a), row("B", found.b)],
        headings=False,
    )


def _print_files(found: "Difference") -> None:
    if found.identical:
        show.print_line(f"identical: {show.plural(found.unchanged, 'file')}")
        return
    cells = _bar_width()
    limit = show.row_limit(len(found.files))
    rows = [_file_row(change, cells) for change in found.files[:limit]]
    show.print_line()
    show.print_table(
        [
            ("", _FIXED),
            ("FILE", {}),
            ("SIZE", _RIGHT),
            ("REUSED/FETCHED", {"no_wrap": True, "min_width": cells}),
            ("FETCHED", _RIGHT),
            ("REUSED", _RIGHT),
        ],
        rows,
    )
    show.print_rest(len(found.files), limit, "changes")
    if found.unchanged:
        show.print_line(show.styled(f"= {show.plural(found.unchanged, 'file')} unchanged", "dim"))


def _file_row(change: "FileChange", cells: int) -> "list[str | Text]":
    row: list[str | Text] = [
        show.styled(*_MARKS[change.kind]),
        _describe(change),
        human_bytes(change.file.size),
    ]
    if change.after is None:
        return [*row, "", "", ""]
    return [
        *row,
        bar(change.reused_bytes, change.fetched_bytes, cells),
        human_bytes(change.fetched_bytes),
        human_bytes(change.reused_bytes),
    ]


def _describe(change: "FileChange") -> str:
    before, after = change.before, change.after
    text = change.path
    if change.kind == "renamed" and before:
        text = f"{before.path} {_arrow()} {text}"
    if before and after and before.mode != after.mode:
        text += f" (mode {before.mode:04o} {_arrow()} {after.mode:04o})"
    return text


def _print_tensors(change: "FileChange", tensors: "TensorChanges") -> None:
    counts = {
        "changed": len(tensors.changed),
        "added": len(tensors.added),
        "removed": len(tensors.removed),
        "undecided": len(tensors.undecided),
        "unchanged": tensors.unchanged,
    }
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    show.print_line()
    show.print_line(show.styled("Tensors of ", "bold"), show.styled(change.path, "bold"))
    show.print_line(f"  {told or 'none'}")
    rows: list[list[str | Text]] = [
        [show.styled(*_MARKS["changed"]), *_changed_tensor(each)]
        for each in sorted(tensors.changed, key=lambda item: -item.changed_bytes)
    ]
    for kind, group in (("added", tensors.added), ("removed", tensors.removed)):
        rows += [
            [
                show.styled(*_MARKS[kind]),
                tensor.name,
                f"{tensor.dtype} {shape_text(tensor.shape)}",
                human_bytes(tensor.length),
            ]
            for tensor in group
        ]
    limit = show.row_limit(len(rows), _MAX_TENSOR_ROWS)
    if rows:
        show.print_table(
            [("", _FIXED), ("", {}), ("", {}), ("", _RIGHT)],
            rows[:limit],
            headings=False,
            indent=2,
        )
    show.print_rest(len(rows), limit, "tensors")
    if tensors.undecided:
        show.print_line(
            f"  {show.plural(len(tensors.undecided), 'small tensor')} share chunks with a change "
            "and were not read"
        )


def _changed_tensor(change: "TensorChange") -> tuple[str, str, str]:
    old, new = change.before, change.after
    kind = new.dtype if new.dtype == old.dtype else f"{old.dtype} {_arrow()} {new.dtype}"
    if new.shape != old.shape:
        kind += f" {shape_text(old.shape)} {_arrow()} {shape_text(new.shape)}"
    elif show.is_wide(_WIDE):  # elsewhere the name needs the room
        kind += f" {shape_text(new.shape)}"
    size = human_bytes(new.length)
    if change.changed_bytes < new.length:
        size = f"{human_bytes(change.changed_bytes)} of {size}"
    return new.name, kind, size


def _print_pull(found: "Difference") -> None:
    pull = found.pull
    share = pull.reused_bytes / pull.bytes if pull.bytes else 1.0
    show.print_line()
    show.print_line(show.styled("Pull of B where A is", "bold"))
    show.print_line(
        "  ", bar(pull.reused_bytes, pull.chunk_bytes, min(60, show.picture_width() - 4))
    )
    full, light = _glyphs()
    show.print_line(
        "  ",
        show.styled(f"{full} {human_bytes(pull.reused_bytes)} reused", _REUSED),
        f" ({_percent(share)} of B)   ",
        show.styled(f"{light} {human_bytes(pull.fetched_bytes)} fetched", _FETCHED),
    )
    details = [
        f"{human_bytes(pull.chunk_bytes)} chunks ({show.plural(pull.requests, 'request')})",
        f"{human_bytes(pull.index_bytes)} index",
    ]
    if pull.bridged_bytes:
        details.append(f"{human_bytes(pull.bridged_bytes)} between chunks")
    show.print_line(show.styled(f"  to fetch: {' + '.join(details)}", "dim"))


def bar(reused: int, fetched: int, cells: int) -> "Text":
    """Draw reused against fetched bytes; whatever is not nothing gets at least one cell."""
    from rich.text import Text

    full, light = _glyphs()
    total = reused + fetched
    filled = cells if not total else round(cells * reused / total)
    filled = min(max(filled, 1 if reused else 0), cells - (1 if fetched else 0))
    return Text.assemble((full * filled, _REUSED), (light * (cells - filled), _FETCHED))


def _glyphs() -> tuple[str, str]:
    """Return what a reused and a fetched cell look like."""
    return ("\N{FULL BLOCK}", "\N{LIGHT SHADE}") if has_unicode() else ("#", ".")


def _percent(share: float) -> str:
    """Write a share so that only all of it is 100 % and only nothing is 0 %."""
    if 0 < share < 0.001:
        return "under 0.1%"
    return f"{min(share * 100, 99.9) if share < 1 else 100:.1f}%"


def _bar_width() -> int:
    return 28 if show.is_wide(_WIDE) else 14


def _arrow() -> str:
    return "\N{RIGHTWARDS ARROW}" if has_unicode() else "->"
