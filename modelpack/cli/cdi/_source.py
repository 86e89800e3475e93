"""Where a command's devices come from: a declared inventory, the machine, or a recorded tree.

Owns the options that say so, and the reading of files and standard input. Leaves out what is done
with the devices.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modelpack.cli._output import print_note

if TYPE_CHECKING:
    from cdi.generate import Generated, GenerateOptions
    from cdi.inventory import Inventory

STANDARD_INPUT = "-"
_SOURCE = "Where the devices come from"
_NAMES = "What they are called"


class VendorName(StrEnum):
    """The vendors, as ``cdi.inventory.Vendor`` has them, which help does not wait for."""

    NVIDIA = "nvidia"
    AMD = "amd"
    INTEL = "intel"
    ASCEND = "ascend"
    CAMBRICON = "cambricon"
    HYGON = "hygon"
    ILUVATAR = "iluvatar"
    BIREN = "biren"
    ENFLAME = "enflame"
    METAX = "metax"
    MTHREADS = "mthreads"
    KUNLUNXIN = "kunlunxin"
    VASTAI = "vastai"


class StrategyName(StrEnum):
    """The name strategies, as ``cdi.generate.NameStrategy`` has them."""

    INDEX = "index"
    UUID = "uuid"
    TYPE_INDEX = "type-index"


Format = Literal["yaml", "json"]

Vendors = Annotated[
    list[VendorName] | None,
    typer.Option(
        "--vendor",
        metavar="VENDOR",
        help=f"Take only this one; repeatable. One of {', '.join(VendorName)}.",
        rich_help_panel=_SOURCE,
    ),
]
InventoryFile = Annotated[
    str,
    typer.Option(
        "--inventory",
        metavar="FILE",
        help="Take the devices from this YAML or JSON file, - for standard input.",
        rich_help_panel=_SOURCE,
    ),
]
Root = Annotated[
    Path,
    typer.Option(
        "--root",
        metavar="DIR",
        help="Look for devices in this tree: a mounted host or a recorded one.",
        rich_help_panel=_SOURCE,
    ),
]
DriverRoot = Annotated[
    str,
    typer.Option(
        "--driver-root",
        metavar="DIR",
        help="Where the driver's files lie below the root, as /run/nvidia/driver.",
        rich_help_panel=_SOURCE,
    ),
]
Kind = Annotated[
    str,
    typer.Option(
        "--kind",
        metavar="VENDOR/CLASS",
        help="Take only this kind; or, for one kind of device, call it this.",
        rich_help_panel=_NAMES,
    ),
]
Strategies = Annotated[
    list[StrategyName] | None,
    typer.Option(
        "--name-strategy",
        metavar="STRATEGY",
        help="How devices are named: index, uuid or type-index; repeat it for several names each "
        "(default: index).",
        rich_help_panel=_NAMES,
    ),
]
NoAll = Annotated[
    bool,
    typer.Option("--no-all", help="Leave out the device 'all'.", rich_help_panel=_NAMES),
]
SpecDirs = Annotated[
    list[Path] | None,
    typer.Option(
        "--spec-dir",
        metavar="DIR",
        help="A spec directory, lowest priority first; repeatable "
        "(default: /etc/cdi and /var/run/cdi).",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The options of a command that say where devices come from."""

    vendors: Sequence[str] = ()
    inventory: str = ""
    root: Path = Path("/")
    driver_root: str = ""

    def read(self) -> "Inventory":
        """Return the inventory, and say on stderr what there is to say about it.

        Raises:
            CdiNotFoundError: the file or tree does not exist, or holds no device.
            InvalidInventoryError: the file is not a valid inventory.
            CdiUsageError: the driver's root is no absolute path.
        """
        self._check_places()
        if self.inventory:
            return self._declared()
        return self._discovered()

    def _check_places(self) -> None:
        from cdi.discovery.tree import Tree
        from cdi.errors import CdiNotFoundError, CdiUsageError

        if not self.root.is_dir():
            raise CdiNotFoundError(f"{self.root}: no such directory")
        if self.driver_root and not self.driver_root.startswith("/"):
            raise CdiUsageError(
                f"--driver-root {self.driver_root!r} is no absolute path; it lies below --root"
            )
        if self.driver_root and not Tree(self.root).exists(self.driver_root):
            raise CdiNotFoundError(f"--driver-root {self.driver_root}: not there below {self.root}")

    def _declared(self) -> "Inventory":
        from cdi.inventory_discover import add_driver_files

        inventory = read_inventory(self.inventory)
        if self.driver_root:
            inventory, notes = add_driver_files(inventory, self.root, self.driver_root)
            say(notes)
        return inventory

    def _discovered(self) -> "Inventory":
        from cdi.errors import CdiNotFoundError
        from cdi.inventory import Vendor
        from cdi.inventory_discover import discover

        vendors = [Vendor(name) for name in self.vendors]
        found = discover(self.root, vendors=vendors, driver_root=self.driver_root or "/")
        if found.inventory is None:
            raise CdiNotFoundError(
                f"no devices found below {self.root}; load the driver, or declare the devices with "
                f"--inventory (looked at {', '.join(found.looked)})"
            )
        say(found.notes)
        return found.inventory


def options_of(
    vendors: Sequence[str], strategies: Sequence[str] | None, *, no_all: bool
) -> "GenerateOptions":
    """Return the options of a generation from those of a command."""
    from cdi.generate import GenerateOptions, NameStrategy
    from cdi.inventory import Vendor

    return GenerateOptions(
        vendors=tuple(Vendor(name) for name in vendors),
        names=tuple(dict.fromkeys(NameStrategy(name) for name in strategies or ("index",))),
        with_all=not no_all,
    )


def specs_of(inventory: "Inventory", options: "GenerateOptions", kind: str) -> "Generated":
    """Return the specs of an inventory: all, those of one kind, or one under another kind.

    Raises:
        CdiNotFoundError: there is none. A kind that is a vendor's own is never given to others.
        CdiUsageError: the kind names several kinds of device.
    """
    from dataclasses import replace

    from cdi.errors import CdiNotFoundError
    from cdi.generate import generate
    from cdi.vendors import MODULES

    made = generate(inventory, options)
    owner = {
        own: vendor for vendor, module in MODULES.items() for own in module.support.kinds.values()
    }.get(kind)
    if owner is not None:
        made = replace(
            made,
            specs=tuple(spec for spec in made.specs if spec.kind == kind),
            notes=tuple(note for note in made.notes if note.vendor is owner),
        )
        if not made.specs:
            there = ", ".join(vendor.value for vendor in inventory.vendors)
            raise CdiNotFoundError(
                f"the inventory has no devices of kind {kind}: it has those of {there}"
            )
    elif kind:
        made = generate(inventory, replace(options, kind=kind))
    if not made.specs:
        wanted = ", ".join(vendor.value for vendor in options.vendors) or "any vendor"
        there = ", ".join(vendor.value for vendor in inventory.vendors)
        why = "; ".join([f"it has those of {there}", *(str(note) for note in made.notes)])
        raise CdiNotFoundError(f"the inventory has no devices of {wanted} to hand out: {why}")
    return made


def read_inventory(name: str) -> "Inventory":
    """Read and check an inventory file, or standard input.

    Raises:
        CdiNotFoundError: there is no such file.
        InvalidInventoryError: it is not a valid inventory.
    """
    from cdi.inventory_load import load_inventory
    from cdi.parse import syntax_of

    data, source = read_input(name)
    syntax = None if name == STANDARD_INPUT else syntax_of(Path(name))
    return load_inventory(data, syntax=syntax, source=source)


def read_input(name: str) -> tuple[bytes, str]:
    """Return the bytes of a file, or of standard input for ``-``, and what to call it.

    Raises:
        CdiNotFoundError: there is no such file.
        CdiError: it cannot be read, or is no regular file.
        InvalidSpecError: it is too large.
    """
    from cdi.errors import InvalidSpecError
    from cdi.files import read_bytes
    from cdi.parse import MAX_SPEC_BYTES, too_large

    if name == STANDARD_INPUT:
        data = sys.stdin.buffer.read(MAX_SPEC_BYTES + 1)
        if len(data) > MAX_SPEC_BYTES:
            raise InvalidSpecError([too_large()], source="standard input")
        return data, "standard input"
    return read_bytes(Path(name)), name


def say(notes: Iterable[object]) -> None:
    """Print notes on stderr, one a line."""
    for note in notes:
        print_note(f"note: {note}")
