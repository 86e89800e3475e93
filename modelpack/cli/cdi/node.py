"""``modelpack cdi diff`` and ``modelpack cdi refresh``: whether the specs still fit the node."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli._output import print_json, print_note, print_text
from modelpack.cli.cdi import _source
from modelpack.cli.cdi._source import Source, say
from modelpack.cli.cdi.specs import JsonOption, load_cache

if TYPE_CHECKING:
    from cdi.diff import Difference
    from cdi.inventory import Inventory
    from cdi.spec import Spec

_STALE = 1
_DYNAMIC_DIRECTORY = Path("/var/run/cdi")


@dataclass(frozen=True, kw_only=True)
class _Report:
    """One stored spec, or a kind without one, and how it differs from the node."""

    kind: str
    path: str
    differences: tuple["Difference", ...]

    @property
    def is_current(self) -> bool:
        """Tell whether there is a spec and it says what is so."""
        return bool(self.path) and not self.differences

    def to_json(self) -> dict[str, object]:
        """Return the JSON form; a spec that is missing is null."""
        return {
            "kind": self.kind,
            "spec": self.path or None,
            "current": self.is_current,
            "differences": [
                {
                    "kind": d.kind.value,
                    "device": d.device,
                    "subject": d.subject,
                    "stored": d.stored,
                    "current": d.current,
                }
                for d in self.differences
            ],
        }


def diff_command(
    *,
    vendor: _source.Vendors = None,
    inventory: _source.InventoryFile = "",
    root: _source.Root = Path("/"),
    driver_root: _source.DriverRoot = "",
    spec_dir: _source.SpecDirs = None,
    json: JsonOption = False,
) -> None:
    """Show what on this node no longer matches its specs; exit 0 if all is current, 1 if not.

    Device numbers, libraries, the driver's version, devices and partitions are compared with what
    'generate' would write now.
    """
    from cdi.errors import CdiNotFoundError

    source = Source(vendors=vendor or (), inventory=inventory, root=root, driver_root=driver_root)
    cache = load_cache(spec_dir)
    stored = [(loaded.spec, str(loaded.path)) for loaded in reversed(cache.specs)]
    try:
        known: Inventory | None = source.read()
    except CdiNotFoundError:
        if inventory or not stored:
            raise
        known = None
    reports = list(_reports(known, stored, source))
    if not reports:
        raise CdiNotFoundError("no devices of these vendors and no specs of theirs to compare")
    if json:
        print_json(
            {"current": all(r.is_current for r in reports), "specs": [r.to_json() for r in reports]}
        )
    else:
        _print(reports)
    if not all(report.is_current for report in reports):
        raise typer.Exit(_STALE)


def _print(reports: Iterable[_Report]) -> None:
    for report in reports:
        for difference in report.differences:
            print_text(f"{report.path}: {difference}")
        if not report.path:
            print_text(f"{report.kind}: has devices on this node and no spec; run refresh")
        elif report.is_current:
            print_note(f"{report.path}: current")


def _reports(
    known: "Inventory | None", stored: Sequence[tuple["Spec", str]], source: Source
) -> Iterable[_Report]:
    """Yield a report for each kind on the node, and for each spec of a vendor that is gone."""
    from cdi.diff import compare, verify
    from cdi.discovery.tree import Tree
    from cdi.shares.model import vendor_of_kind

    wanted = set(source.vendors)
    seen: set[str] = set()
    for spec in _generated(known, source):
        seen.add(spec.kind)
        found = [(old, path) for old, path in stored if old.kind == spec.kind]
        if not found:
            yield _Report(kind=spec.kind, path="", differences=())
        for old, path in found[:1]:
            current = _like(old, known, source) if known else spec
            differences = compare(old, current or spec)
            yield _Report(kind=spec.kind, path=path, differences=differences)
    for old, path in [] if source.inventory else stored:
        of = vendor_of_kind(old.kind)
        if old.kind not in seen and of is not None and (not wanted or of.value in wanted):
            seen.add(old.kind)
            yield _Report(kind=old.kind, path=path, differences=verify(old, Tree(source.root)))


def _generated(known: "Inventory | None", source: Source) -> tuple["Spec", ...]:
    from cdi.generate import generate

    if known is None:
        return ()
    return generate(known, _source.options_of(source.vendors, None, no_all=False)).specs


def _like(stored: "Spec", known: "Inventory", source: Source) -> "Spec | None":
    """Return today's spec of a stored one's kind, with the names that the stored one uses."""
    from dataclasses import replace

    from cdi.errors import CdiError
    from cdi.generate import ALL, NameStrategy, generate

    names = {device.name for device in stored.devices}
    base = _source.options_of(source.vendors, None, no_all=ALL not in names)
    used: list[NameStrategy] = []
    for strategy in NameStrategy:
        try:
            made = generate(known, replace(base, names=(strategy,), with_all=False)).specs
        except CdiError:  # this inventory has no such names
            continue
        own = {d.name for spec in made if spec.kind == stored.kind for d in spec.devices}
        used += [strategy] if own & names else []
    options = replace(base, names=tuple(used) or base.names)
    made = generate(known, options).specs
    return next((spec for spec in made if spec.kind == stored.kind), None)


def refresh_command(
    *,
    vendor: _source.Vendors = None,
    inventory: _source.InventoryFile = "",
    root: _source.Root = Path("/"),
    driver_root: _source.DriverRoot = "",
    name_strategy: _source.Strategies = None,
    no_all: _source.NoAll = False,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="The spec directory to keep current."),
    ] = _DYNAMIC_DIRECTORY,
    json: JsonOption = False,
) -> None:
    """Write the specs of this node's devices again, only where they differ from the node.

    A spec keeps the names that it has, unless --name-strategy says otherwise. Meant for boot, driver
    upgrades and MIG changes: examples/systemd has the unit.
    """
    from cdi.diff import needs_refresh
    from cdi.errors import CdiError
    from cdi.files import read_spec, spec_file_name, write_spec

    source = Source(vendors=vendor or (), inventory=inventory, root=root, driver_root=driver_root)
    known = source.read()
    options = _source.options_of(vendor or (), name_strategy, no_all=no_all)
    made = _source.specs_of(known, options, "")
    rows: list[dict[str, object]] = []
    for spec in made.specs:
        path = output / spec_file_name(spec)
        stored = None
        try:
            stored = read_spec(path) if path.exists() else None
        except CdiError as error:
            print_note(f"note: {error}; it is written anew")
        wanted = spec
        if stored is not None and name_strategy is None and not no_all:
            wanted = _like(stored, known, source) or spec
        changed = needs_refresh(stored, wanted) and write_spec(wanted, path)
        rows.append({"kind": spec.kind, "spec": str(path), "changed": changed})
    if json:
        print_json(rows)
    else:
        for row in rows:
            print_text(f"{row['spec']}: {'renewed' if row['changed'] else 'current'}")
    say(made.notes if any(row["changed"] for row in rows) else ())
