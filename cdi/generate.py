"""From an inventory to CDI specs: one for each kind of device, the same every time.

Owns the names of devices, the device ``all``, the order of everything, and what is said beside the
specs. Leaves out each vendor's edits (:mod:`cdi.vendors`), text (:mod:`cdi.emit`) and files
(:mod:`cdi.cache`).

>>> from cdi.inventory_load import load_inventory
>>> text = "devices: [{vendor: amd, index: 0, card: 1, render: 128}]"
>>> [device.name for device in generate(load_inventory(text)).specs[0].devices]
['0', 'all']
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from cdi.errors import CdiUsageError, Fault
from cdi.inventory import TYPES, Accelerator, Inventory, Partition, Vendor
from cdi.inventory_load import InvalidInventoryError
from cdi.names import device_fault, kind_fault
from cdi.spec import ContainerEdits, Device, Spec
from cdi.validate import require_valid
from cdi.vendors import MODULES
from cdi.vendors.base import Basis, Note, NoteKind, Support, VendorModule, unnumbered
from cdi.version import with_minimum_version

ALL = "all"
# Spec annotations that say what a spec rests on where no official generator confirms it.
BASIS_ANNOTATION = "cdi-support-basis"
UNCERTAIN_ANNOTATION = "cdi-support-uncertain"


class NameStrategy(StrEnum):
    """How devices are named; nvidia-ctk has the same three."""

    INDEX = "index"
    UUID = "uuid"
    TYPE_INDEX = "type-index"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateOptions:
    """What to generate: ``vendors`` (none means all), a kind instead of the vendor's own, names.

    With several name strategies each device appears under each of its names. ``with_all`` adds a
    device ``all``, which stands for all the others.
    """

    vendors: tuple[Vendor, ...] = ()
    kind: str = ""
    names: tuple[NameStrategy, ...] = (NameStrategy.INDEX,)
    with_all: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """Valid specs by vendor and type, and the notes to show beside them."""

    specs: tuple[Spec, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One device to be: an undivided accelerator or a partition, and its path in the inventory."""

    path: str
    device: Accelerator
    partition: Partition | None = None


def generate(inventory: Inventory, options: GenerateOptions | None = None) -> Generated:
    """Return the specs of an inventory's devices, each with the lowest CDI version it can have.

    Deterministic and without any look at the machine. No spec at all means that the inventory has
    no device of the vendors asked for.

    Raises:
        InvalidInventoryError: a device lacks what its name or its nodes need, by path.
        CdiUsageError: the kind is malformed, or is one name for several kinds.
    """
    options = options or GenerateOptions()
    specs: list[Spec] = []
    notes: list[Note] = []
    for vendor, type_ in _types(inventory, options.vendors):
        spec, said = _spec(inventory, vendor, type_, options)
        specs += [] if spec is None else [spec]
        notes += said
    if options.kind:
        specs = [_with_kind(specs, options.kind)] if specs else []
    for spec in specs:
        require_valid(spec, source=spec.kind)
    return Generated(specs=tuple(specs), notes=tuple(dict.fromkeys(notes)))


def _types(inventory: Inventory, vendors: Sequence[Vendor]) -> Iterator[tuple[Vendor, str]]:
    for vendor in inventory.vendors:
        if vendors and vendor not in vendors:
            continue
        present = {device.type for device in inventory.devices if device.vendor is vendor}
        yield from ((vendor, type_) for type_ in TYPES[vendor] if type_ in present)


def _with_kind(specs: Sequence[Spec], kind: str) -> Spec:
    if fault := kind_fault(kind):
        raise CdiUsageError(fault)
    if len(specs) > 1:
        found = ", ".join(spec.kind for spec in specs)
        raise CdiUsageError(f"one kind cannot name {found}; choose one vendor and one type")
    return with_minimum_version(replace(specs[0], kind=kind))


def _spec(
    inventory: Inventory, vendor: Vendor, type_: str, options: GenerateOptions
) -> tuple[Spec | None, list[Note]]:
    module = MODULES[vendor]
    driver = inventory.driver(vendor)
    notes: list[Note] = []
    parts = list(_parts(inventory, vendor, type_))
    named: dict[str, tuple[_Part, ContainerEdits]] = {}
    faults: list[Fault] = []
    for part in parts:
        if part.partition is None:
            edits = module.device_edits(part.device, driver)
        else:
            edits = module.partition_edits(part.device, part.partition, driver)
        if not edits:
            reason = "has no device node that could be told; give its numbers or name its nodes"
            faults.append(Fault(path=part.path, reason=reason))
        for name in _names(module, part, options.names, faults):
            _claim(named, name, part, edits, faults)
    if faults:
        raise InvalidInventoryError(faults)
    if not named:
        return None, [_empty_note(vendor, type_)]
    devices = [Device(name=name, container_edits=edits) for name, (_, edits) in named.items()]
    if options.with_all and ALL not in named:
        devices.append(
            Device(name=ALL, container_edits=_merged(d.container_edits for d in devices))
        )
    whole = [
        device for device in inventory.devices if device.vendor is vendor and device.type == type_
    ]
    common, said = module.common_edits(whole, driver)
    notes += said
    notes += unnumbered(vendor, (common, *(device.container_edits for device in devices)))
    notes += _uncertain(module.support)
    spec = Spec(
        cdi_version="",
        kind=module.support.kinds[type_],
        devices=tuple(devices),
        container_edits=common,
        annotations=_annotations(module.support),
    )
    return with_minimum_version(spec), notes


def _parts(inventory: Inventory, vendor: Vendor, type_: str) -> Iterator[_Part]:
    """Yield the devices in the inventory's order, each divided one as its partitions."""
    for i, device in enumerate(inventory.devices):
        path = f"devices[{i}]"
        if device.vendor is not vendor or device.type != type_:
            continue
        if device.partitions is None:
            yield _Part(path=path, device=device)
        for j, partition in enumerate(device.partitions or ()):
            yield _Part(path=f"{path}.partitions[{j}]", device=device, partition=partition)


def _names(
    module: VendorModule, part: _Part, strategies: Iterable[NameStrategy], faults: list[Fault]
) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for strategy in strategies:
        name = _name(module, part, strategy)
        if not name:
            reason = f"is required by the name strategy {strategy}; use index where there is none"
            faults.append(Fault(path=f"{part.path}.uuid", reason=reason))
        elif fault := device_fault(name):
            faults.append(Fault(path=f"{part.path}.{_field(strategy)}", reason=fault))
        else:
            names[name] = None
    return tuple(names)


def _field(strategy: NameStrategy) -> str:
    return "uuid" if strategy is NameStrategy.UUID else "index"


def _name(module: VendorModule, part: _Part, strategy: NameStrategy) -> str:
    device, partition = part.device, part.partition
    if partition is None:
        match strategy:
            case NameStrategy.UUID:
                return module.uuid(device)
            case NameStrategy.TYPE_INDEX:
                return module.type_name(device)
        return str(device.index)
    if strategy is NameStrategy.UUID:
        return partition.uuid
    name = module.partition_name(device, partition)
    return f"{partition.type}{name}" if strategy is NameStrategy.TYPE_INDEX else name


def _claim(
    named: dict[str, tuple[_Part, ContainerEdits]],
    name: str,
    part: _Part,
    edits: ContainerEdits,
    faults: list[Fault],
) -> None:
    if name in named:
        reason = f"gives the device name {name!r}, which is already that of {named[name][0].path}"
        faults.append(Fault(path=part.path, reason=reason))
    else:
        named[name] = (part, edits)


def _merged(edits: Iterable[ContainerEdits]) -> ContainerEdits:
    """Return the edits of all devices together, each node, mount, hook and variable once."""
    total = ContainerEdits()
    for one in edits:
        total += one
    return replace(
        total,
        env=tuple(dict.fromkeys(total.env)),
        device_nodes=tuple({node.path: node for node in total.device_nodes}.values()),
        hooks=tuple(dict.fromkeys(total.hooks)),
        mounts=tuple({mount.container_path: mount for mount in total.mounts}.values()),
        additional_gids=tuple(dict.fromkeys(total.additional_gids)),
    )


def _annotations(support: Support) -> Mapping[str, str]:
    if not support.uncertain:
        return {}
    return {
        BASIS_ANNOTATION: f"{support.basis}: {support.source}",
        UNCERTAIN_ANNOTATION: "; ".join(support.uncertain),
    }


def _uncertain(support: Support) -> Iterator[Note]:
    for text in support.uncertain:
        yield Note(vendor=support.vendor, kind=NoteKind.UNCERTAIN, text=text)
    if support.basis is Basis.DOCUMENTED:
        text = f"no official generator or recorded machine stands behind this: {support.source}"
        yield Note(vendor=support.vendor, kind=NoteKind.UNCERTAIN, text=text)


def _empty_note(vendor: Vendor, type_: str) -> Note:
    text = (
        f"every {type_} is set up to be divided and none has a partition yet, so there is no spec"
    )
    return Note(vendor=vendor, kind=NoteKind.LEFT_OUT, text=text)
