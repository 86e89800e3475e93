"""Handing out shares, taking them back, and keeping specs and ledger in step.

Owns the order of the steps, which makes a crash harmless, and the sums. Leaves out the ledger's file
(:mod:`cdi.shares.ledger`), what a share contains (:mod:`cdi.shares.edits`) and cards
(:mod:`cdi.shares.cards`).

Adding: (1) under the lock, (2) finish what a crash interrupted, (3) check the sums, (4) write the
ledger, (5) make the host's directories, (6) write the spec. Removing: (4) mark the share in the
ledger, (5) remove the spec, (6) the directories, (7) write the ledger without it.

>>> ShareStore(state=Path("/var/lib/modelpack/cdi"), spec_dir=Path("/var/run/cdi")).hook_path
'/usr/local'
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cdi.cache import Cache
from cdi.errors import CdiError, CdiNotFoundError, CdiUsageError, SpecWriteError
from cdi.files import remove_spec, spec_file_name, write_spec
from cdi.inventory import Vendor
from cdi.inventory_quantity import format_quantity
from cdi.shares.edits import (
    MIB,
    common_directories,
    hook_files,
    own_directory,
    pick_units,
    require_possible,
    share_edits,
)
from cdi.shares.ledger import Ledger, locked, read_ledger, write_ledger
from cdi.shares.model import (
    MAX_PARTS,
    WHOLE,
    Card,
    Part,
    Share,
    ShareError,
    claim_fault,
    share_kind,
    usage,
)
from cdi.spec import ContainerEdits, Device, Spec
from cdi.version import with_minimum_version

HOOK_PATH = "/usr/local"


@dataclass(frozen=True, kw_only=True, slots=True)
class Amount:
    """What is asked of one card: bytes of memory, and a percentage of cores, 0 for no limit."""

    memory: int
    cores: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Granted:
    """A share and whether it is new; ``notes`` say what its containers will miss."""

    share: Share
    is_new: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareStore:
    """The shares of one node.

    ``state`` holds the ledger, ``spec_dir`` gets the specs, ``hook_path`` is the directory in
    which HAMi is installed on the host.
    """

    state: Path
    spec_dir: Path
    hook_path: str = field(default=HOOK_PATH)

    def add(
        self,
        claim: str,
        cards: Sequence[Card],
        amounts: Sequence[Amount],
        cache: Cache,
        *,
        oversubscribe: bool = False,
    ) -> Granted:
        """Hand a claim its parts of cards and write its spec; idempotent.

        A normal return proves that the spec is in place, and that no card has handed out more
        memory or cores than it has, unless ``oversubscribe``.

        Raises:
            CdiUsageError: an amount is not possible, or the claim is there with other parts.
            ShareError: a card has not enough left; nothing has changed.
            LedgerError, InvalidLedgerError, SpecWriteError: as the files are.
        """
        self._check(claim, cards, amounts)
        vendor = cards[0].vendor
        with locked(self.state) as file:
            ledger, _ = self._settled(file, cache, other_than=claim)
            found = ledger.find(claim)
            others = ledger.without(claim).shares
            parts = [
                _part(card, amount, others, oversubscribe=oversubscribe)
                for card, amount in zip(cards, amounts, strict=True)
            ]
            share = Share(
                claim=claim,
                vendor=vendor,
                parts=tuple(parts),
                path=str(self.spec_dir / _file_name(vendor, claim)),
                hook_path=self.hook_path,
                oversubscribe=oversubscribe,
            )
            if found is not None:
                if not _same(found, share):
                    raise CdiUsageError(
                        f"claim {claim} has other parts already; remove it first with --remove"
                    )
                share = found
            else:
                write_ledger(ledger.with_share(share), file)
            try:
                _make_directories(share, fresh=found is None)
                write_spec(build_spec(share, cache), Path(share.path))
            except CdiError:
                if found is None:
                    write_ledger(ledger, file)
                raise
        return Granted(share=share, is_new=found is None, notes=_notes(share))

    def remove(self, claim: str, cache: Cache) -> Share:
        """Take a claim's share back: its spec goes, then its entry in the ledger.

        Raises:
            CdiNotFoundError: there is no such claim.
            LedgerError, InvalidLedgerError, SpecWriteError: as the files are; the share is then
                still counted.
        """
        if fault := claim_fault(claim):
            raise CdiUsageError(fault)
        with locked(self.state) as file:
            ledger, _ = self._settled(file, cache, other_than=claim)
            share = ledger.find(claim)
            if share is None:
                raise CdiNotFoundError(f"no claim {claim} in {file}; --list shows those there are")
            write_ledger(ledger.leaving(share), file)
            _drop(share)
            write_ledger(ledger.without(claim), file)
        return share

    def remembered(self) -> Mapping[str, int]:
        """Return the memory of the cards in the ledger, by their keys.

        Raises:
            InvalidLedgerError: the file is not a ledger.
        """
        with locked(self.state) as file:
            ledger = read_ledger(file)
        return {
            key: part.card_memory
            for share in ledger.shares
            for part in share.parts
            for key in part.keys
        }

    def list(self, cache: Cache) -> tuple[tuple[Share, ...], tuple[str, ...]]:
        """Return all shares, after finishing what a crash or a reboot interrupted; with notes.

        Raises:
            LedgerError, InvalidLedgerError, SpecWriteError: as the files are.
        """
        with locked(self.state) as file:
            ledger, notes = self._settled(file, cache)
        return ledger.shares, notes

    def _check(self, claim: str, cards: Sequence[Card], amounts: Sequence[Amount]) -> None:
        if fault := claim_fault(claim):
            raise CdiUsageError(fault)
        if not 1 <= len(cards) <= MAX_PARTS:
            raise CdiUsageError(f"a claim has 1 to {MAX_PARTS} devices, not {len(cards)}")
        for card, amount in zip(cards, amounts, strict=True):
            if amount.memory <= 0 or amount.memory % MIB:
                text = format_quantity(amount.memory)
                raise CdiUsageError(f"{card.device}: memory {text} is no whole number of MiB")
            if not 0 <= amount.cores <= WHOLE:
                raise CdiUsageError(f"{card.device}: cores {amount.cores} is not 0 to {WHOLE}")
        require_possible(
            cards[0].vendor,
            cards,
            [amount.memory for amount in amounts],
            [amount.cores for amount in amounts],
        )

    def _settled(
        self, file: Path, cache: Cache, other_than: str = ""
    ) -> tuple[Ledger, tuple[str, ...]]:
        """Finish removals, and write specs that are missing or were made of older device specs.

        Returns the ledger, and what could not be done for claims ``other_than`` the one at hand.
        """
        ledger = read_ledger(file)
        notes: list[str] = []
        for share in ledger.shares:
            try:
                if share.leaving:
                    _drop(share)
                    ledger = ledger.without(share.claim)
                    write_ledger(ledger, file)
                elif share.claim != other_than:
                    _make_directories(share, fresh=False)
                    write_spec(build_spec(share, cache), Path(share.path))
            except CdiError as error:
                notes.append(f"{share.name}: {share.path} could not be renewed: {error}")
        return ledger, tuple(notes)


def _drop(share: Share) -> None:
    """Remove a share's spec and its own directory."""
    remove_spec(Path(share.path))
    if own := own_directory(share):
        shutil.rmtree(own, ignore_errors=True)


def _file_name(vendor: Vendor, claim: str) -> str:
    spec = Spec(cdi_version="", kind=share_kind(vendor), devices=())
    return spec_file_name(spec, transient_id=claim)


def build_spec(share: Share, cache: Cache) -> Spec:
    """Return a share's spec: the devices' own edits, in the container's order, and then HAMi's.

    Raises:
        UnresolvableError: the spec directories no longer define a device.
    """
    edits = _once(cache.edits(share.devices) + share_edits(share))
    device = Device(name=share.claim, container_edits=edits)
    spec = Spec(cdi_version="", kind=share_kind(share.vendor), devices=(device,))
    return with_minimum_version(spec)


def _once(edits: ContainerEdits) -> ContainerEdits:
    """Return the edits with each node, mount, variable, hook and group once, the last one counting."""
    variables = {text.partition("=")[0]: text for text in edits.env}
    return replace(
        edits,
        env=tuple(variables.values()),
        device_nodes=tuple({node.path: node for node in edits.device_nodes}.values()),
        hooks=tuple(dict.fromkeys(edits.hooks)),
        mounts=tuple({mount.container_path: mount for mount in edits.mounts}.values()),
        additional_gids=tuple(dict.fromkeys(edits.additional_gids)),
    )


def _part(card: Card, amount: Amount, others: Sequence[Share], *, oversubscribe: bool) -> Part:
    """Return a card's part, or refuse when the card has not enough left."""
    used = usage(card.keys, others)
    if not oversubscribe:
        left = max(card.memory - used.memory, 0)
        if amount.memory > left:
            raise ShareError(
                f"{card.device} has {format_quantity(left)} of {format_quantity(card.memory)} memory left, less "
                f"than {format_quantity(amount.memory)}; remove a claim, or give --oversubscribe"
            )
        if amount.cores and used.cores + amount.cores > WHOLE:
            raise ShareError(
                f"{card.device} has {max(WHOLE - used.cores, 0)} percent of its cores left, less "
                f"than {amount.cores}; remove a claim, or give --oversubscribe"
            )
    units = pick_units(card, amount.cores, dict(used.units), oversubscribe=oversubscribe)
    if units is None:
        raise ShareError(f"{card.device} has no compute units left for {amount.cores} percent")
    return Part(
        device=card.device,
        keys=tuple(sorted(card.keys)),
        memory=amount.memory,
        cores=amount.cores,
        card_memory=card.memory,
        uuid=card.uuid,
        number=card.number,
        units=units,
    )


def _same(one: Share, other: Share) -> bool:
    """Tell whether two shares hand out the same parts; AMD units may lie elsewhere."""
    return [(set(p.keys), p.memory, p.cores) for p in one.parts] == [
        (set(p.keys), p.memory, p.cores) for p in other.parts
    ]


def _make_directories(share: Share, *, fresh: bool) -> None:
    """Make the host directories that the share mounts; a fresh claim starts with an empty one."""
    own = own_directory(share)
    try:
        if own and fresh and os.path.lexists(own):
            shutil.rmtree(own)
        for directory in (*common_directories(share), *([own] if own else [])):
            if not os.path.isdir(directory):
                os.makedirs(directory, exist_ok=True)
                os.chmod(directory, 0o777)  # noqa: S103 - containers of any user write there
    except OSError as error:
        raise SpecWriteError(
            f"{error.filename} cannot be made for {share.name}: {error.strerror}; run as root, or "
            "name another --hook-path"
        ) from error


def _notes(share: Share) -> tuple[str, ...]:
    missing = [path for path in hook_files(share) if not os.path.lexists(path)]
    if not missing:
        return ()
    text = (
        f"{', '.join(missing)} not on this node: containers with {share.name} do not start until "
        "HAMi is installed there"
    )
    return (text,)


def card_usage(shares: Sequence[Share]) -> Mapping[str, tuple[int, int, int]]:
    """Return what each card has handed out, by device name: memory, cores, and the card's memory."""
    found: dict[str, tuple[int, int, int]] = {}
    for share in shares:
        for part in share.parts:
            used = usage(part.keys, shares)
            found[part.device] = (used.memory, used.cores, part.card_memory)
    return dict(sorted(found.items()))
