"""Make an inventory of a machine: the running one, a mounted one or a recorded tree.

Owns the walk over the vendors and the report of where it looked. Leaves out how each vendor is found
(:mod:`cdi.vendors`).

>>> found = discover(Path("/nonexistent"))
>>> found.inventory is None, found.looked[0]
(True, '/proc/driver/nvidia/gpus')
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cdi.discovery.record import Scrubber, record
from cdi.discovery.tree import Tree
from cdi.errors import Fault
from cdi.inventory import Driver, Inventory, Vendor
from cdi.inventory_load import InvalidInventoryError
from cdi.vendors import MODULES
from cdi.vendors.base import Note
from cdi.vendors.nvidia_driver import find_driver


@dataclass(frozen=True, kw_only=True, slots=True)
class Discovery:
    """What was found: an inventory, or None and the places that were looked at."""

    inventory: Inventory | None
    notes: tuple[Note, ...]
    looked: tuple[str, ...]


def discover(
    root: Path, *, vendors: Iterable[Vendor] = (), driver_root: str = "/", node: str = ""
) -> Discovery:
    """Look for the devices of ``vendors``, or of all, in the tree at ``root``.

    ``driver_root`` is where the driver's user space lies within the tree; ``node`` names the
    machine in the inventory. Reads only; a file that is not there is no error.

    Raises:
        TreeError: the tree's ``dev.nodes`` is malformed.
    """
    tree = Tree(root)
    wanted = tuple(vendors) or tuple(Vendor)
    found = {vendor: MODULES[vendor].discover(tree, driver_root) for vendor in wanted}
    devices = tuple(device for one in found.values() for device in one.devices)
    inventory = None
    if devices:
        drivers = {
            vendor: one.driver
            for vendor, one in found.items()
            if one.devices and one.driver != Driver()
        }
        inventory = Inventory(node=node, drivers=drivers, devices=devices)
    return Discovery(
        inventory=inventory,
        notes=tuple(note for one in found.values() for note in one.notes),
        looked=tuple(place for one in found.values() for place in one.looked),
    )


def record_machine(
    root: Path,
    target: Path,
    *,
    driver_root: str = "/",
    scrub: Callable[[bytes], bytes] | None = None,
) -> None:
    """Copy what discovery looks at in the tree at ``root`` to a new directory.

    The copy is discovered as the machine is, but for what NVML alone knows. It holds attributes of
    sysfs and procfs, names, links and a list of device nodes; UUIDs and unique ids become numbers
    unless ``scrub`` says otherwise.

    Raises:
        CdiUsageError: the target holds something already.
        OSError: the target cannot be written.
    """

    def look(tree: Tree) -> None:
        for module in MODULES.values():
            module.discover(tree, driver_root)

    record(root, target, look, scrub=scrub or Scrubber())


def add_driver_files(
    inventory: Inventory, root: Path, driver_root: str
) -> tuple[Inventory, tuple[Note, ...]]:
    """Return the inventory with the NVIDIA driver's files found at ``driver_root`` of a tree.

    For an inventory that names devices only. Control nodes and a hook that the inventory names
    stay; an inventory without NVIDIA devices stays as it is.

    Raises:
        InvalidInventoryError: the driver found there is not the version the inventory names.
    """
    if Vendor.NVIDIA not in inventory.vendors:
        return inventory, ()
    declared = inventory.driver(Vendor.NVIDIA)
    found, notes = find_driver(Tree(root), driver_root)
    if declared.version and found.version and declared.version != found.version:
        reason = f"is {declared.version}, but the driver under {driver_root} is {found.version}"
        raise InvalidInventoryError((Fault(path="driver.version", reason=reason),))
    driver = replace(
        found,
        version=found.version or declared.version,
        nodes=declared.nodes or found.nodes,
        hook=declared.hook or found.hook,
        links=found.links + declared.links,
    )
    return replace(inventory, drivers={**inventory.drivers, Vendor.NVIDIA: driver}), notes
