"""How much disk the daemon's models take, whether another fits, and what goes for it. Pure.

Disk is reserved before the first byte of a model is fetched, and the reservation holds until the
model is ready or given up, over crashes too. What several models share counts once. Evicted is only
what nothing protects, what is not wanted first, then what was used longest ago; nothing is evicted
for a model that would not fit even then.

    >>> ledger = Ledger(limit=100, high=90, low=80, free=1000, holdings=())
    >>> make_room(ledger, 60).fits, make_room(ledger, 101).fits
    (True, False)
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from modelpack.digest import Digest
from modelpack.prefetch.node import Part
from modelpack.prefetch.quantities import show_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """A version on the node that counts against the budget."""

    digest: Digest
    parts: tuple[Part, ...]
    wanted: bool
    """Whether it is of a model that the node should have, though perhaps an older version."""
    protected: bool
    """Mounted, pinned by an operator, desired, or a last good version: never evicted."""
    last_use: float
    """When it was last mounted, or else made ready."""


@dataclass(frozen=True, kw_only=True)  # without slots, for what is computed once
class Ledger:
    """The disk at one moment."""

    limit: int
    high: int
    low: int
    free: int
    """What the file system has left."""
    holdings: tuple[Holding, ...]
    min_free: int = 0
    unfinished: int = 0
    """What interrupted and running installs have written."""
    reservations: Mapping[Digest, int] = field(default_factory=dict)
    foreign: frozenset[str] = frozenset()
    """Keys of parts that models of others have too: evicting ours does not free them."""

    @cached_property
    def used(self) -> int:
        """What models that are here take."""
        return _size(self.holdings)

    @cached_property
    def candidates(self) -> tuple[Holding, ...]:
        """What may be evicted, in the order in which it goes."""
        loose = [one for one in self.holdings if not one.protected]
        return tuple(sorted(loose, key=lambda one: (one.wanted, one.last_use, str(one.digest))))

    @cached_property
    def loose(self) -> "Freed":
        """What evicting all of that would free."""
        kept = {part.key for one in self.holdings if one.protected for part in one.parts}
        sizes = {
            part.key: part.bytes
            for one in self.candidates
            for part in one.parts
            if part.key not in kept
        }
        shared = sum(size for key, size in sizes.items() if key in self.foreign)
        return Freed(budget=sum(sizes.values()), disk=sum(sizes.values()) - shared)

    @property
    def pending(self) -> int:
        """What installs have written or may still write."""
        return max(self.unfinished, sum(self.reservations.values()))

    @property
    def committed(self) -> int:
        """What is used, and what is promised."""
        return self.used + self.pending

    @property
    def room(self) -> int:
        """How much more may be promised; negative when there is too much already."""
        return min(self.budget_room, self.disk_room)

    @property
    def budget_room(self) -> int:
        """How much more the budget allows."""
        return self.limit - self.committed

    @property
    def disk_room(self) -> int:
        """How much more the file system can take."""
        return self.free - self.min_free - (self.pending - self.unfinished)

    def without(self, evicted: Collection[Digest]) -> "Ledger":
        """Return the ledger as it would be without some versions."""
        rest = tuple(one for one in self.holdings if one.digest not in evicted)
        kept = {part.key for one in rest for part in one.parts} | self.foreign
        gone = {
            part.key: part.bytes
            for one in self.holdings
            if one.digest in evicted
            for part in one.parts
            if part.key not in kept
        }
        return replace(self, free=self.free + sum(gone.values()), holdings=rest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Freed:
    """What evictions free, or must free."""

    budget: int = 0
    disk: int = 0
    """Less than of the budget where others have parts, too, which stay."""

    def covers(self, other: "Freed") -> bool:
        """Tell whether it is enough."""
        return self.budget >= other.budget and self.disk >= other.disk


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """Whether something fits, and what must go first."""

    fits: bool
    evict: tuple[Digest, ...] = ()
    """In the order in which they go; empty if it does not fit."""
    reason: str = ""
    """With figures, if it does not fit."""


def needed(total: int, parts: Collection[Part], here: Collection[str]) -> int:
    """Return how much disk a model needs besides the parts whose keys are ``here``.

    Without ``parts`` that is all of it. What the parts leave out of ``total`` is added.
    """
    if not parts:
        return total
    sizes = {part.key: part.bytes for part in parts}
    missing = sum(size for key, size in sizes.items() if key not in here)
    return missing + max(0, total - sum(sizes.values()))


def make_room(ledger: Ledger, need: int) -> Fit:
    """Return what must be evicted so that ``need`` more bytes may be promised.

    Above the high watermark it is more than that, down to the low one, as far as that goes.
    """
    tally = _Tally(ledger)
    missing = Freed(budget=need - ledger.budget_room, disk=need - ledger.disk_room)
    if not tally.evict_until(missing):
        return Fit(fits=False, reason=_shortage(ledger, need))
    if ledger.committed - tally.freed.budget + need > ledger.high:
        tally.evict_more(Freed(budget=ledger.committed + need - ledger.low, disk=missing.disk))
    return Fit(fits=True, evict=tuple(one.digest for one in tally.evicted))


def relieve(ledger: Ledger) -> tuple[Digest, ...]:
    """Return what is evicted because the high watermark is passed: what is not wanted any more."""
    if ledger.committed <= ledger.high and ledger.room >= 0:
        return ()
    tally = _Tally(ledger)
    surplus = Freed(
        budget=max(ledger.committed - ledger.low, -ledger.budget_room), disk=-ledger.disk_room
    )
    if not tally.evict_until(surplus):
        tally.evict_more(surplus)
    return tuple(one.digest for one in tally.evicted)


class _Tally:
    """Counts what evicting some holdings frees, one by one: a part goes with its last holder."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.evicted: list[Holding] = []
        self.freed = Freed()

    @cached_property
    def _holders(self) -> Counter[str]:
        return Counter(part.key for one in self._ledger.holdings for part in set(one.parts))

    def evict_until(self, enough: Freed) -> bool:
        """Evict in order until that much is freed, and spare what did not help; or evict nothing."""
        if self.freed.covers(enough):
            return True
        if not self._ledger.loose.covers(enough):
            return False
        for one in self._ledger.candidates:
            self._evict(one)
            if self.freed.covers(enough):
                break
        for one in self.evicted[-2::-1]:
            self._spare(one)
            if not self.freed.covers(enough):
                self._evict(one)
        self.evicted.sort(key=self._ledger.candidates.index)
        return True

    def evict_more(self, enough: Freed) -> None:
        """Go on until that much is freed, or nothing more can be."""
        for one in self._ledger.candidates:
            if self.freed.covers(enough):
                return
            if one not in self.evicted:
                freed = self.freed
                self._evict(one)
                if self.freed == freed:
                    self._spare(one)

    def _evict(self, one: Holding) -> None:
        self.evicted.append(one)
        for part in set(one.parts):
            self._holders[part.key] -= 1
            if not self._holders[part.key]:
                self._count(part, part.bytes)

    def _spare(self, one: Holding) -> None:
        self.evicted.remove(one)
        for part in set(one.parts):
            if not self._holders[part.key]:
                self._count(part, -part.bytes)
            self._holders[part.key] += 1

    def _count(self, part: Part, size: int) -> None:
        disk = 0 if part.key in self._ledger.foreign else size
        self.freed = Freed(budget=self.freed.budget + size, disk=self.freed.disk + disk)


def _shortage(ledger: Ledger, need: int) -> str:
    kept = sum(one.protected for one in ledger.holdings)
    stays = ledger.used - ledger.loose.budget
    best = ledger.budget_room + ledger.loose.budget
    disk = ledger.disk_room + ledger.loose.disk
    if disk <= best:
        spare = f", {show_size(ledger.min_free)} of which stay free" if ledger.min_free else ""
        return (
            f"it needs {show_size(need)} more; the disk has {show_size(ledger.free)} left{spare}, "
            f"and {show_size(max(0, disk))} after all that may be evicted"
        )
    return (
        f"it needs {show_size(need)} more; {show_size(max(0, best))} can be had of the budget of "
        f"{show_size(ledger.limit)}, with {show_size(stays)} in {kept} models that must stay and "
        f"{show_size(ledger.pending)} promised"
    )


def _size(holdings: Iterable[Holding]) -> int:
    return sum({part.key: part.bytes for one in holdings for part in one.parts}.values())
