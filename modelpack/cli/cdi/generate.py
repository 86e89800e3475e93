"""``modelpack cdi generate`` and ``modelpack cdi inventory``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli._output import print_json, print_note, print_text
from modelpack.cli.cdi import _source
from modelpack.cli.cdi._source import STANDARD_INPUT, Source, say

if TYPE_CHECKING:
    from cdi.spec import Spec

_OUTPUT = "Output"

FormatOption = Annotated[
    _source.Format | None,
    typer.Option(
        "--format",
        help="The form of the output (default: as the output's name ends, else yaml).",
        rich_help_panel=_OUTPUT,
    ),
]


def generate_command(
    *,
    vendor: _source.Vendors = None,
    inventory: _source.InventoryFile = "",
    root: _source.Root = Path("/"),
    driver_root: _source.DriverRoot = "",
    kind: _source.Kind = "",
    name_strategy: _source.Strategies = None,
    no_all: _source.NoAll = False,
    format_: FormatOption = None,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR|-",
            help="Where the specs go: one file, a directory for a file of each kind, or stdout.",
            rich_help_panel=_OUTPUT,
        ),
    ] = STANDARD_INPUT,
    all_kinds: Annotated[
        bool,
        typer.Option(
            "--all-kinds",
            help="Print several kinds: a JSON array, or YAML documents.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
) -> None:
    """Write CDI specs for the devices of an inventory, of this machine, or of a recorded tree.

    The same devices give the same bytes. What a spec leaves out is said on stderr.
    """
    source = Source(vendors=vendor or (), inventory=inventory, root=root, driver_root=driver_root)
    options = _source.options_of(vendor or (), name_strategy, no_all=no_all)
    made = _source.specs_of(source.read(), options, kind)
    if output == STANDARD_INPUT:
        _print(made.specs, format_ or "yaml", all_kinds=all_kinds)
    else:
        _write(made.specs, Path(output), output, format_)
    say(made.notes)


def _print(specs: Sequence["Spec"], form: _source.Format, *, all_kinds: bool) -> None:
    from cdi.emit import to_json_text, to_yaml

    _require_one(specs, "--all-kinds prints them all", allowed=all_kinds)
    if form == "json" and all_kinds:
        print_json([spec.to_json() for spec in specs])
    elif form == "json":
        print_text(to_json_text(specs[0]))
    else:
        print_text("---\n".join(to_yaml(spec) for spec in specs))


def _write(specs: Sequence["Spec"], path: Path, name: str, form: _source.Format | None) -> None:
    from cdi.errors import CdiUsageError
    from cdi.files import spec_file_name, write_spec

    if path.is_dir() or name.endswith("/"):
        targets = {path / spec_file_name(spec, syntax=form or "yaml"): spec for spec in specs}
    else:
        _require_one(specs, "name a directory for a file of each", allowed=False)
        if form and path.suffix in (".yaml", ".json") and path.suffix != f".{form}":
            raise CdiUsageError(f"{path} does not end in .{form}; drop --format or rename it")
        targets = {path: specs[0]}
    for target, spec in targets.items():
        changed = write_spec(spec, target)
        count = len(spec.devices)
        said = "written" if changed else "already current"
        print_note(f"{target}: {spec.kind}, {count} device{'s' * (count != 1)}, {said}")


def _require_one(specs: Sequence["Spec"], advice: str, *, allowed: bool) -> None:
    from cdi.errors import CdiUsageError

    if len(specs) > 1 and not allowed:
        kinds = ", ".join(spec.kind for spec in specs)
        raise CdiUsageError(
            f"there are several kinds, {kinds}; choose one with --kind, or {advice}"
        )


def inventory_command(
    *,
    vendor: _source.Vendors = None,
    root: _source.Root = Path("/"),
    driver_root: _source.DriverRoot = "",
    node: Annotated[
        str,
        typer.Option("--node", help="The node's name in it (default: this machine's, for /)."),
    ] = "",
    format_: Annotated[
        _source.Format,
        typer.Option("--format", help="The form of the output.", rich_help_panel=_OUTPUT),
    ] = "yaml",
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE|-", help="Where it goes.", rich_help_panel=_OUTPUT
        ),
    ] = STANDARD_INPUT,
) -> None:
    """Write an inventory of this machine or of a recorded tree, for 'generate --inventory'."""
    import os
    from dataclasses import replace
    from json import dumps

    from cdi.inventory_load import to_yaml

    found = Source(vendors=vendor or (), root=root, driver_root=driver_root).read()
    name = node or (os.uname().nodename if root == Path("/") else "")
    found = replace(found, node=name)
    if format_ == "json":
        text = dumps(found.to_json(), ensure_ascii=False, indent=2) + "\n"
    else:
        text = to_yaml(found)
    if output == STANDARD_INPUT:
        print_text(text)
    else:
        write_text(text, Path(output))
        count = len(found.devices)
        print_note(f"{output}: {count} device{'s' * (count != 1)}")


def write_text(text: str, path: Path) -> None:
    """Write a result to a file, whole or not at all; a device or a pipe is written to.

    Raises:
        SpecWriteError: the file system refused; an old file is as it was.
    """
    from cdi.errors import SpecWriteError
    from cdi.files import replace_file

    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            replace_file(path.resolve(), text.encode())
    except OSError as error:
        raise SpecWriteError(f"{path} cannot be written: {error.strerror}") from error
