"""``modelpack cdi list``, ``validate``, ``lint`` and ``inject``: specs that are already there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli._output import print_json, print_note, print_text
from modelpack.cli.cdi import _source
from modelpack.cli.cdi._columns import columns
from modelpack.cli.cdi._source import STANDARD_INPUT, read_input
from modelpack.cli.cdi.generate import write_text

if TYPE_CHECKING:
    from cdi.cache import Cache

_FAULTY = 5  # the exit status of bytes that are not what they should be

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def list_command(*, spec_dir: _source.SpecDirs = None, json: JsonOption = False) -> None:
    """List the devices that the spec directories define, and those that are in conflict."""
    cache = load_cache(spec_dir)
    rows = [
        {
            "name": name,
            "spec": str((found.source if found else definitions[0].source).path),
            "conflict": found is None,
        }
        for name, definitions in sorted(cache.definitions.items())
        for found in [cache.device(name)]
    ]
    if json:
        print_json(rows)
    elif rows:
        cells = [
            (str(row["name"]), str(row["spec"]), "conflict" if row["conflict"] else "")
            for row in rows
        ]
        print_text("\n".join(columns([("DEVICE", "SPEC", ""), *cells])))
    else:
        where = " and ".join(str(directory) for directory in cache.directories)
        print_note(f"no devices in {where}")


def load_cache(spec_dirs: list[Path] | None) -> "Cache":
    """Read the spec directories, and say on stderr which files could not be read."""
    from cdi.cache import Cache

    cache = Cache.load(spec_dirs)
    for text in _unread(cache):
        print_note(f"skipped: {text}")
    return cache


@contextmanager
def resolving(spec_dirs: list[Path] | None) -> Iterator["Cache"]:
    """Read the spec directories; an unresolvable device's error says which files were not read.

    Raises:
        UnresolvableError: the block did, and files that might have defined the device are broken.
    """
    from cdi.cache import Cache
    from cdi.errors import UnresolvableError

    cache = Cache.load(spec_dirs)
    unread = [f"skipped {text}" for text in _unread(cache)]
    try:
        yield cache
    except UnresolvableError as error:
        reasons = (*error.reasons, *unread) or ("see: modelpack cdi list",)
        raise UnresolvableError(error.devices, reasons) from error
    for text in unread:
        print_note(text)


def _unread(cache: "Cache") -> list[str]:
    found = ((str(path), str(error)) for path, error in cache.errors.items())
    return [text if text.startswith(path) else f"{path}: {text}" for path, text in found]


def validate_command(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="CDI specs to check, - for standard input."),
    ],
    *,
    json: JsonOption = False,
) -> None:
    """Check CDI specs and print every fault as FILE: PATH: reason; exit 5 if there is one."""
    from cdi.errors import CdiError, InvalidSpecError
    from cdi.parse import examine, syntax_of

    faults: list[dict[str, str]] = []
    unread: list[CdiError] = []
    for file in files:
        name = str(file)
        try:
            data, name = read_input(name)
            _, found = examine(data, syntax=None if name != str(file) else syntax_of(file))
        except InvalidSpecError as error:
            name, found = error.source, error.faults
        except CdiError as error:
            unread.append(error)
            continue
        faults += [{"file": name, "path": f.path, "reason": f.reason} for f in found]
    if json:
        print_json(faults)
    for fault in [] if json else faults:
        print_text(": ".join(part for part in fault.values() if part))
    for other in unread[: None if faults else -1]:
        print_note(f"modelpack: {other}")
    if faults:
        raise typer.Exit(_FAULTY)
    if unread:
        raise unread[-1]
    if not json:
        print_note(f"{len(files)} file{'s' * (len(files) != 1)} checked, no faults")


def lint_command(
    *,
    spec_dir: _source.SpecDirs = None,
    root: Annotated[
        Path,
        typer.Option("--root", metavar="DIR", help="The node's tree, for the paths in the specs."),
    ] = Path("/"),
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 5 for warnings too, not only for errors.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Look for conflicts, ignored files, stale numbers and missing paths; exit 5 for an error.

    Conflicting devices cannot be resolved by any runtime, even where a directory of higher
    priority defines them too.
    """
    from cdi.discovery.tree import NODES_FILE, Tree
    from cdi.errors import CdiNotFoundError
    from cdi.lint import lint

    if not root.is_dir():
        raise CdiNotFoundError(f"{root}: no such directory")
    for directory in spec_dir or ():
        if not directory.is_dir():
            print_note(f"{directory}: no such directory")
    # A recorded tree lists its nodes; every other has them.
    nodes = Tree(root) if (root / NODES_FILE).is_file() else None
    findings = lint(spec_dir, root=root, nodes=nodes)
    if json:
        print_json(
            [
                {
                    "level": found.level,
                    "rule": found.rule,
                    "file": str(found.file),
                    "path": found.path,
                    "reason": found.reason,
                }
                for found in findings
            ]
        )
    else:
        for found in findings:
            print_text(f"{found.level}: {found} [{found.rule}]")
        if not findings:
            print_note("no findings")
    if any(strict or found.level == "error" for found in findings):
        raise typer.Exit(_FAULTY)


def inject_command(
    devices: Annotated[
        list[str], typer.Argument(metavar="DEVICE...", help="Such as nvidia.com/gpu=0.")
    ],
    *,
    spec: Annotated[
        str,
        typer.Option(
            "--spec", metavar="OCI.json", help="The OCI runtime spec, - for standard input."
        ),
    ],
    spec_dir: _source.SpecDirs = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE|-", help="Where the result goes.")
    ] = STANDARD_INPUT,
) -> None:
    """Print an OCI runtime spec with the devices injected as a runtime injects them."""
    from json import dumps, loads

    from cdi.errors import InvalidOciError

    data, source = read_input(spec)
    try:
        document = loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidOciError(f"{source} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidOciError(f"{source} is no OCI runtime spec: it is not a JSON object")
    with resolving(spec_dir) as cache:
        result = cache.inject(document, devices)
    text = dumps(result, ensure_ascii=False, indent=2) + "\n"
    if output == STANDARD_INPUT:
        print_text(text)
    else:
        write_text(text, Path(output))
