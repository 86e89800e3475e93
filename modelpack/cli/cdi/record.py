"""``modelpack cdi record``: a machine as a directory of small files, to generate from elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from modelpack.cli._output import print_json, print_note
from modelpack.cli.cdi import _source
from modelpack.cli.cdi._source import Source
from modelpack.cli.cdi.specs import JsonOption


def record_command(
    target: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory that is new or empty.")
    ],
    *,
    root: _source.Root = Path("/"),
    driver_root: _source.DriverRoot = "",
    json: JsonOption = False,
) -> None:
    """Record what discovery reads of this machine, for '--root DIR' on any other.

    Attributes of sysfs and procfs, names, links and the numbers of device nodes; no contents of
    libraries or programs. UUIDs and unique ids become numbers.
    """
    from cdi.errors import SpecWriteError
    from cdi.inventory_discover import discover, record_machine

    Source(root=root, driver_root=driver_root).read()  # nothing found: nothing to record
    try:
        record_machine(root, target, driver_root=driver_root or "/")
    except OSError as error:
        where = error.filename or target
        raise SpecWriteError(f"{where} cannot be written: {error.strerror}") from error
    inventory = discover(target, driver_root=driver_root or "/").inventory
    devices = inventory.devices if inventory else ()
    vendors = ", ".join(vendor.value for vendor in inventory.vendors) if inventory else ""
    if json:
        print_json({"root": str(target), "devices": len(devices), "vendors": vendors.split(", ")})
    else:
        count = len(devices)
        print_note(f"{target}: {count} device{'s' * (count != 1)} of {vendors}")
        print_note("note: look through it before you pass it on; the product names are in it")
