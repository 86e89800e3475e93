"""Which card a CDI device name stands for, and how much memory it has.

Owns the match between the devices of the spec directories and those of an inventory: a device is
the one that puts the same nodes into a container. Leaves out where the inventory comes from.

>>> from cdi.cache import Cache
>>> find_cards(["nvidia.com/gpu=0"], Cache.load(()), None, card_memory=None)
Traceback (most recent call last):
cdi.errors.UnresolvableError: unresolvable CDI devices nvidia.com/gpu=0
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from cdi.cache import Cache
from cdi.discovery.tree import natural
from cdi.errors import CdiUsageError, UnresolvableError
from cdi.inventory import Accelerator, Inventory, Vendor
from cdi.names import QualifiedName
from cdi.shares.model import Card, share_kind, vendor_of_kind
from cdi.spec import ContainerEdits
from cdi.vendors import MODULES

# A free field of an inventory's device: how many compute units an AMD GPU has.
UNITS_ATTRIBUTE = "computeUnits"
_LAST_NUMBER = re.compile(r"([0-9]+)$")

_Nodes = frozenset[str]


def find_cards(
    devices: Sequence[str],
    cache: Cache,
    inventory: Inventory | None,
    *,
    card_memory: int | None,
    remembered: Mapping[str, int] | None = None,
) -> tuple[Card, ...]:
    """Return the card of each device, in the order in which a container sees them.

    That order is the driver's: by PCI address where all are known, else by node. ``card_memory``
    in bytes stands for an inventory that does not say how much memory a card has, and
    ``remembered``, by the cards' keys, for both.

    Raises:
        UnresolvableError: the spec directories do not define a device, or not without conflict.
        CdiUsageError: a device cannot be shared, is named twice, or its memory is not known.
    """
    missing = [name for name in devices if cache.device(name) is None]
    if missing:
        cache.edits(missing)  # raises, and says why
    known = {} if inventory is None else _by_nodes(inventory)
    cards = [_card(name, cache, known, card_memory, remembered or {}) for name in devices]
    _require_apart(cards)
    if len({card.vendor for card in cards}) > 1:
        names = ", ".join(card.device for card in cards)
        raise CdiUsageError(f"a claim has devices of one vendor, not {names}")
    return tuple(_ordered(cards))


def _by_nodes(inventory: Inventory) -> dict[_Nodes, tuple[Accelerator, bool]]:
    """Return the inventory's devices by their nodes, and whether each is a partition."""
    found: dict[_Nodes, tuple[Accelerator, bool]] = {}
    for device in inventory.devices:
        module = MODULES[device.vendor]
        driver = inventory.driver(device.vendor)
        if device.partitions is None:
            found[_nodes(module.device_edits(device, driver))] = (device, False)
        for part in device.partitions or ():
            found[_nodes(module.partition_edits(device, part, driver))] = (device, True)
    return found


def _nodes(edits: ContainerEdits) -> _Nodes:
    return frozenset(node.host_path or node.path for node in edits.device_nodes)


def _card(
    name: str,
    cache: Cache,
    known: dict[_Nodes, tuple[Accelerator, bool]],
    card_memory: int | None,
    remembered: Mapping[str, int],
) -> Card:
    qualified = QualifiedName.parse(name)
    if qualified.device == "all":
        raise CdiUsageError(f"{name} stands for several cards; name each one with its own --device")
    found = cache.device(name)
    if found is None:
        raise UnresolvableError([name])
    nodes = _nodes(found.device.container_edits)
    device, divided = known.get(nodes, (None, False))
    vendor = device.vendor if device else vendor_of_kind(qualified.kind)
    if vendor is None:
        raise CdiUsageError(f"{name}: {qualified.kind} is not a kind of device that can be shared")
    share_kind(vendor)
    if divided:
        raise CdiUsageError(f"{name} is a partition of a card already, and cannot be shared")
    own = [path for path in nodes if path not in _SHARED_NODES]
    keys = {f"nodes {' '.join(sorted(own))}"}  # sorts before the other keys
    uuid = pci = ""
    units: object = 0
    if device is not None:
        uuid, pci = MODULES[vendor].uuid(device), device.pci
        units = device.attributes.get(UNITS_ATTRIBUTE, 0)
        keys |= {f"uuid {uuid}"} if uuid else set()
        # The compute partitions of an AMD card have its address in common.
        keys |= {f"pci {pci}"} if pci and vendor is not Vendor.AMD else set()
    memory = card_memory or (device.memory if device else None)
    memory = memory or next((remembered[key] for key in sorted(keys) if key in remembered), None)
    if not memory:
        raise CdiUsageError(
            f"{name}: how much memory the card has is not known; name an inventory that says so "
            "with --inventory, or give --card-memory"
        )
    return Card(
        vendor=vendor,
        device=name,
        keys=frozenset(keys),
        memory=memory,
        order=pci,
        uuid=uuid,
        number=_number(found.device.container_edits, qualified),
        units=units if isinstance(units, int) and not isinstance(units, bool) else 0,
    )


# Nodes that a vendor's devices carry though all of them share it; they identify no card.
_SHARED_NODES = frozenset({"/dev/kfd"})


def _number(edits: ContainerEdits, name: QualifiedName) -> int:
    """Return the driver's number of a device: the one its first node ends with."""
    path = edits.device_nodes[0].host_path or edits.device_nodes[0].path
    found = _LAST_NUMBER.search(path) or _LAST_NUMBER.search(name.device)
    return int(found[1]) if found else 0


def _require_apart(cards: Iterable[Card]) -> None:
    seen: dict[str, str] = {}
    for card in cards:
        for key in card.keys:
            if key in seen:
                raise CdiUsageError(f"{seen[key]} and {card.device} are one card; name it once")
            seen[key] = card.device


def _ordered(cards: list[Card]) -> list[Card]:
    by_pci = all(card.order for card in cards)
    return sorted(cards, key=lambda card: (card.order if by_pci else "", natural(min(card.keys))))
