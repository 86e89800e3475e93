"""The values of shares: cards, parts of cards, and the claim that holds the parts.

Owns their JSON form in the ledger and the names of shares. Leaves out edits
(:mod:`cdi.shares.edits`), files (:mod:`cdi.shares.ledger`) and which cards there are
(:mod:`cdi.shares.cards`).

>>> claim_fault("job-7"), claim_fault("../x")[:21]
('', "claim '../x' must con")
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from cdi._reader import ObjectReader
from cdi.errors import CdiError, CdiUsageError
from cdi.inventory import Vendor
from cdi.inventory_reader import InventoryReader
from cdi.names import QualifiedName
from cdi.vendors import MODULES

# The class part of a share's kind, as DRA drivers name the devices of a claim.
CLASS = "claim"
# Each vendor's kinds belong to the driver that hands out parts: k8s.<driver>/claim.
SHARE_VENDORS: Mapping[Vendor, str] = {
    Vendor.NVIDIA: "k8s.hami-core-gpu.project-hami.io",
    Vendor.ASCEND: "k8s.ascend.project-hami.io",
    Vendor.AMD: "k8s.gpu.amd.com",
}
# A Kubernetes UID has 36; a claim is part of file names and paths.
MAX_CLAIM = 128
# HAMi-core keeps a table of 16 devices for a container.
MAX_PARTS = 16
WHOLE = 100

_CLAIM = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


class ShareError(CdiError):
    """A card has not enough left; the same exit status as a full disk."""

    exit_code = 8


def claim_fault(claim: str) -> str:
    """Say why a text is no claim id, or return an empty string when it is one."""
    if len(claim) <= MAX_CLAIM and _CLAIM.fullmatch(claim):
        return ""
    return (
        f"claim {claim[:60]!a} must consist of letters, digits, '.', '_' and '-', start and end "
        f"with a letter or digit, and have at most {MAX_CLAIM} of them"
    )


def vendor_of_kind(kind: str) -> Vendor | None:
    """Return the vendor whose generated specs have this kind, or None."""
    return next((v for v, module in MODULES.items() if kind in module.support.kinds.values()), None)


def share_kind(vendor: Vendor) -> str:
    """Return the CDI kind of a vendor's shares.

    Raises:
        CdiUsageError: there is no known way to share this vendor's devices.
    """
    if vendor not in SHARE_VENDORS:
        known = ", ".join(sorted(SHARE_VENDORS))
        raise CdiUsageError(f"devices of {vendor} cannot be shared; those of {known} can")
    return f"{SHARE_VENDORS[vendor]}/{CLASS}"


def share_device(claim: str, devices: Sequence[str]) -> str:
    """Return the qualified CDI name of a claim's share of some devices.

    Raises:
        CdiUsageError: the claim or a device name is not valid, or the devices cannot be shared.
    """
    if fault := claim_fault(claim):
        raise CdiUsageError(fault)
    vendors = {}
    for device in devices:
        kind = QualifiedName.parse(device).kind
        vendor = vendor_of_kind(kind)
        if vendor is None:
            raise CdiUsageError(f"{device}: {kind} is not a kind of device that can be shared")
        vendors[vendor] = device
    if len(vendors) != 1:
        raise CdiUsageError(f"a claim has devices of one vendor, not {', '.join(vendors.values())}")
    return f"{share_kind(next(iter(vendors)))}={claim}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A device that can be shared.

    ``keys`` identify it: its UUID, its PCI address and its nodes, as far as they are known. Two
    cards with a key in common are one. ``memory`` is in bytes, ``order`` places the card among the
    others of its container, ``number`` is the driver's number of it, ``units`` its compute units
    where cores are handed out as such (AMD), 0 where that is not known.
    """

    vendor: Vendor
    device: str
    keys: frozenset[str]
    memory: int
    order: str = ""
    uuid: str = ""
    number: int = 0
    units: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one claim has of one card: bytes of memory, percent of cores, units of AMD cores.

    ``cores`` 0 means no limit and none reserved.
    """

    device: str
    keys: tuple[str, ...]
    memory: int
    cores: int
    card_memory: int
    uuid: str = ""
    number: int = 0
    units: tuple[int, ...] = ()

    @classmethod
    def read(cls, reader: ObjectReader) -> Self:
        """Read the fields, noting faults in the reader."""
        value = cls(
            device=reader.string("device", required=True),
            keys=reader.strings("keys"),
            memory=reader.integer("memory", 1, 2**63 - 1) or 0,
            cores=reader.integer("cores", 0, WHOLE) or 0,
            card_memory=reader.integer("cardMemory", 0, 2**63 - 1) or 0,
            uuid=reader.string("uuid"),
            number=reader.integer("number", 0, 2**24) or 0,
            units=reader.integers("units", 0, 2**16),
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "device": self.device,
            "keys": list(self.keys),
            "memory": self.memory,
            "cores": self.cores,
            "cardMemory": self.card_memory,
            **({"uuid": self.uuid} if self.uuid else {}),
            "number": self.number,
            **({"units": list(self.units)} if self.units else {}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One claim: its parts in the order in which the container sees them, and its spec file.

    ``hook_path`` is where HAMi is installed on the host. ``leaving`` marks a share whose spec is
    about to be removed.
    """

    claim: str
    vendor: Vendor
    parts: tuple[Part, ...]
    path: str
    hook_path: str
    oversubscribe: bool = False
    leaving: bool = False

    @property
    def name(self) -> str:
        """Return the qualified CDI name of the share."""
        return f"{share_kind(self.vendor)}={self.claim}"

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the devices in the container's order."""
        return tuple(part.device for part in self.parts)

    @classmethod
    def read(cls, reader: InventoryReader) -> Self:
        """Read the fields, noting faults in the reader."""
        vendor = reader.choice("vendor", Vendor, required=True) or Vendor.NVIDIA
        if vendor not in SHARE_VENDORS:
            reader.fault("vendor", f"is {vendor}, whose devices cannot be shared")
        value = cls(
            claim=reader.string("claim", required=True),
            vendor=vendor,
            parts=reader.objects("parts", Part.read, required=True),
            path=reader.string("path", required=True),
            hook_path=reader.string("hookPath", required=True),
            oversubscribe=reader.boolean("oversubscribe"),
            leaving=reader.boolean("leaving"),
        )
        reader.finish()
        return value

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "claim": self.claim,
            "vendor": self.vendor.value,
            "parts": [part.to_json() for part in self.parts],
            "path": self.path,
            "hookPath": self.hook_path,
            **({"oversubscribe": True} if self.oversubscribe else {}),
            **({"leaving": True} if self.leaving else {}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a card has handed out: bytes, percent, and how often each compute unit."""

    memory: int = 0
    cores: int = 0
    units: Mapping[int, int] = field(default_factory=dict)


def usage(keys: Iterable[str], shares: Iterable[Share]) -> Usage:
    """Return what the shares have of the card with one of these keys."""
    wanted = set(keys)
    memory = cores = 0
    units: dict[int, int] = {}
    for share in shares:
        for part in share.parts:
            if wanted.isdisjoint(part.keys):
                continue
            memory += part.memory
            cores += part.cores
            for unit in part.units:
                units[unit] = units.get(unit, 0) + 1
    return Usage(memory=memory, cores=cores, units=units)
