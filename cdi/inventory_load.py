"""Read an inventory from YAML or JSON, strictly, and write it back.

Owns the whole document: the text, the rules between its parts and the two ways to name drivers.
Leaves out the fields (:mod:`cdi.inventory`) and files: callers read and write them.

>>> text = "devices: [{vendor: amd, index: 0, card: 1, render: 128, memory: 192Gi}]"
>>> load_inventory(text).devices[0].render
128
"""

from collections.abc import Iterable, Mapping

from cdi.emit import yaml_text
from cdi.errors import Fault, InvalidSpecError
from cdi.inventory import Accelerator, Driver, Inventory, PartitionType, Vendor
from cdi.inventory_reader import InventoryReader
from cdi.parse import Syntax, load_value

_PARTITION_TYPES = {
    Vendor.NVIDIA: PartitionType.MIG,
    Vendor.ASCEND: PartitionType.VNPU,
    Vendor.CAMBRICON: PartitionType.MIM,
}


class InvalidInventoryError(InvalidSpecError):
    """A document is not a valid inventory; ``faults`` holds all that was found, by path."""


def load_inventory(
    data: bytes | str, *, syntax: Syntax | None = None, source: str = ""
) -> Inventory:
    """Read an inventory from YAML or JSON text; a normal return proves that it is valid.

    ``syntax`` is ``json`` or ``yaml``; without one, text that starts with a brace is JSON.
    ``source`` names the file in the error.

    Raises:
        InvalidInventoryError: the text is malformed or breaks a rule; it holds every fault found.
    """
    value, faults = load_value(data, syntax=syntax)
    if not faults:
        try:
            return inventory_from_json(value)
        except InvalidInventoryError as error:
            faults = list(error.faults)
    raise InvalidInventoryError(faults, source=source)


def to_yaml(inventory: Inventory) -> str:
    """Return the inventory as one YAML document; the same inventory gives the same text."""
    return yaml_text(inventory.to_json())


def inventory_from_json(value: object) -> Inventory:
    """Build an inventory from its JSON form.

    A normal return proves known fields, right types, numbers in range, and devices that are told
    apart by vendor, type and index, by UUID and by PCI address.

    Raises:
        InvalidInventoryError: it breaks a rule; it holds every fault.
    """
    faults: list[Fault] = []
    reader = InventoryReader(value, "", faults)
    node = reader.string("node")
    single = reader.record("driver", Driver.read)
    several = reader.record_map("drivers", Driver.read)
    devices = reader.records("devices", Accelerator.read, required=True)
    if not devices and reader.has("devices") and not any(f.path == "devices" for f in faults):
        reader.fault("devices", "is empty; an inventory names at least one device")
    reader.finish()
    if not faults:
        _check_devices(devices, faults)
    drivers = _drivers(devices, single, several, faults)
    if faults:
        raise InvalidInventoryError(faults)
    return Inventory(node=node, drivers=drivers, devices=devices)


def _drivers(
    devices: Iterable[Accelerator],
    single: Driver | None,
    several: Mapping[str, tuple[Driver, str]],
    faults: list[Fault],
) -> dict[Vendor, Driver]:
    vendors = {device.vendor for device in devices}
    drivers: dict[Vendor, Driver] = {}
    for name, (driver, path) in several.items():
        if name in {vendor.value for vendor in Vendor}:
            drivers[Vendor(name)] = driver
        else:
            known = ", ".join(vendor.value for vendor in Vendor)
            faults.append(Fault(path=path, reason=f"is not a vendor; they are {known}"))
    if single is None:
        return drivers
    if several:
        faults.append(Fault(path="driver", reason="stands beside drivers; write one of the two"))
    elif len(vendors) > 1:
        named = ", ".join(sorted(vendors))
        reason = f"is ambiguous for devices of {named}; write drivers with a field for each"
        faults.append(Fault(path="driver", reason=reason))
    else:
        drivers = dict.fromkeys(vendors, single)
    return drivers


def _check_devices(devices: tuple[Accelerator, ...], faults: list[Fault]) -> None:
    """Note devices and partitions that cannot be told apart, and partitions of the wrong vendor."""
    seen: dict[object, str] = {}

    def once(key: object, path: str, what: str) -> None:
        if key in seen:
            faults.append(Fault(path=path, reason=f"{what} is already that of {seen[key]}"))
        seen.setdefault(key, path.rpartition(".")[0])

    for i, device in enumerate(devices):
        path = f"devices[{i}]"
        once((device.vendor, device.type, device.index), f"{path}.index", f"{device.index}")
        if device.uuid:
            once((device.vendor, device.uuid), f"{path}.uuid", device.uuid)
        if device.pci and device.type != "imex-channel":
            once((device.pci, device.render), f"{path}.pci", device.pci)
        wanted = _PARTITION_TYPES.get(device.vendor)
        for j, part in enumerate(device.partitions or ()):
            part_path = f"{path}.partitions[{j}]"
            once((i, "partition", part.index), f"{part_path}.index", f"{part.index}")
            if part.uuid:
                once((device.vendor, part.uuid), f"{part_path}.uuid", part.uuid)
            if part.type is not wanted:
                has = f"has {wanted.value}" if wanted else "has no partitions"
                reason = f"is {part.type.value}, but {device.vendor} {has}"
                faults.append(Fault(path=f"{part_path}.type", reason=reason))
