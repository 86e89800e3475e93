"""How much disk the daemon's models take, whether another fits, and what goes for it. Pure.

Disk is reserved before the first byte of a model is fetched, and the reservation holds until the
model is ready or given up, over crashes too. What several models share counts once. Evicted is only
what nothing protects, what is not wanted first, then what was used longest ago; nothing is evicted
for a model that would not fit even then.

    >>> ledger = Ledger(limit=100, high=90, low=80, free=1000, holdings=())
    >>> make_room(ledger, 60).fits, make_room(ledger, 101).fits
    (True, False)
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True, kw_only=True, slots=True)
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

    @property
    def used(self) -> int:
        """What models that are here take."""
        return _size(self.holdings)

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
        promised = self.pending - self.unfinished
        return min(self.limit - self.committed, self.free - self.min_free - promised)

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
        return Ledger(
            limit=self.limit,
            high=self.high,
            low=self.low,
            free=self.free + sum(gone.values()),
            holdings=rest,
            min_free=self.min_free,
            unfinished=self.unfinished,
            reservations=self.reservations,
            foreign=self.foreign,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """Whether something fits, and what must go first."""

    fits: bool
    evict: tuple[Digest, ...] = ()
    """In the order in which they go; empty if it does not fit."""
    reason: str = ""
    """With figures, if it does not fit."""


def needed(total: int, parts: Collection[Part], here: Collection[Part]) -> int:
    """Return how much disk a model needs besides what is here.

    Without ``parts`` that is all of it. What the parts leave out of ``total`` is added.
    """
    if not parts:
        return total
    known = {part.key for part in here}
    sizes = {part.key: part.bytes for part in parts}
    missing = sum(size for key, size in sizes.items() if key not in known)
    return missing + max(0, total - sum(sizes.values()))


def make_room(ledger: Ledger, need: int) -> Fit:
    """Return what must be evicted so that ``need`` more bytes may be promised.

    Above the high watermark it is more than that, down to the low one, as far as that goes.
    """
    evict = _fewest(ledger, lambda rest: rest.room >= need)
    if evict is None:
        return Fit(fits=False, reason=_shortage(ledger, need))
    if ledger.without(evict).committed + need > ledger.high:
        evict = _down_to(ledger, evict, max(0, ledger.low - need))
    return Fit(fits=True, evict=evict)


def relieve(ledger: Ledger) -> tuple[Digest, ...]:
    """Return what is evicted because the high watermark is passed: what is not wanted any more."""
    if ledger.committed <= ledger.high and ledger.room >= 0:
        return ()
    enough = _fewest(ledger, lambda rest: rest.committed <= ledger.low and rest.room >= 0)
    if enough is not None:
        return enough
    return _down_to(ledger, (), ledger.low)


def _candidates(ledger: Ledger) -> list[Holding]:
    loose = [one for one in ledger.holdings if not one.protected]
    return sorted(loose, key=lambda one: (one.wanted, one.last_use, str(one.digest)))


def _fewest(ledger: Ledger, enough: Callable[[Ledger], bool]) -> tuple[Digest, ...] | None:
    """Return what goes until there is enough, without what turns out not to have helped."""
    if enough(ledger):
        return ()
    candidates = _candidates(ledger)
    if not enough(ledger.without([one.digest for one in candidates])):
        return None
    chosen: list[Digest] = []
    for one in candidates:
        chosen.append(one.digest)
        if enough(ledger.without(chosen)):
            break
    for digest in reversed(chosen[:-1]):
        fewer = [other for other in chosen if other != digest]
        if enough(ledger.without(fewer)):
            chosen = fewer
    return tuple(chosen)


def _down_to(ledger: Ledger, begun: tuple[Digest, ...], target: int) -> tuple[Digest, ...]:
    """Return what has begun to go and, until no more than ``target`` is committed, what else frees."""
    chosen = list(begun)
    rest = ledger.without(chosen)
    for one in _candidates(rest):
        if rest.committed <= target:
            break
        less = rest.without([one.digest])
        if less.committed < rest.committed:
            chosen.append(one.digest)
            rest = less
    return tuple(chosen)


def _shortage(ledger: Ledger, need: int) -> str:
    best = ledger.without([one.digest for one in _candidates(ledger)])
    kept = sum(1 for one in best.holdings)
    figures = (
        f"it needs {show_size(need)} more; {show_size(max(0, best.room))} can be had of the "
        f"budget of {show_size(ledger.limit)}, with {show_size(best.used)} in {kept} models that "
        f"must stay and {show_size(ledger.pending)} promised"
    )
    disk = best.free - ledger.min_free - (ledger.pending - ledger.unfinished)
    if disk <= ledger.limit - best.committed:
        spare = f", {show_size(ledger.min_free)} of which stay free" if ledger.min_free else ""
        figures = (
            f"it needs {show_size(need)} more; the disk has {show_size(ledger.free)} left{spare}, "
            f"and {show_size(max(0, disk))} after all that may be evicted"
        )
    return figures


def _size(holdings: Iterable[Holding]) -> int:
    return sum({part.key: part.bytes for one in holdings for part in one.parts}.values())
