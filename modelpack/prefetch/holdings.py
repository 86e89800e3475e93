"""Which versions on the node are ours, what protects each, and the budget's ledger made of that. Pure.

Owns promise 3's second half, that nothing mounted, pinned, desired or last good is ever evicted, and
keeping the runtime's garbage collection away from just those.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from modelpack.digest import Digest
from modelpack.prefetch.actions import REPEAT_AFTER, Evict, Install, Pin, Scrub, Situation
from modelpack.prefetch.budget import Holding, Ledger
from modelpack.prefetch.config import ModelOptions
from modelpack.prefetch.desired import kept, wanted
from modelpack.prefetch.progress import Version
from modelpack.prefetch.rollout import keeps_previous


@dataclass(kw_only=True, slots=True)
class _Claim:
    """What all models together have to do with one version."""

    versions: list[Version] = field(default_factory=list)
    wanted: bool = False
    desired: bool = False


def claims(situation: Situation, targets: Mapping[str, Digest | None]) -> dict[Digest, _Claim]:
    """Return every version that was brought, or is to be here, with who has to do with it.

    ``targets`` is what each wanted model should be.
    """
    options = {model.name: model for model in wanted(situation.config)}
    pinned = kept(situation.config)
    found: dict[Digest, _Claim] = {}
    for name, progress in situation.progress.items():
        model = options.get(name)
        for version in progress.versions:
            claim = found.setdefault(version.digest, _Claim())
            claim.versions.append(version)
            claim.wanted |= model is not None
            claim.desired |= name in pinned
        if model is None:
            continue
        for digest in _desired(model, situation, targets.get(name)):
            found.setdefault(digest, _Claim()).desired = True
    return found


def ledger_of(situation: Situation, claimed: Mapping[Digest, _Claim]) -> Ledger:
    """Return what counts against the budget, and what of it may go."""
    seen = situation.observation
    budget = situation.config.budget
    busy = {
        task.digest for task in situation.running if isinstance(task, Install | Scrub | Pin | Evict)
    }
    ours = [one for one in seen.installed if one.digest in claimed]
    holdings = []
    for one in ours:
        claim = claimed[one.digest]
        uses = [version.used_steady or version.ready_steady for version in claim.versions]
        by_operator = one.pinned and any(version.released for version in claim.versions)
        holdings.append(
            Holding(
                digest=one.digest,
                parts=one.parts,
                wanted=claim.wanted,
                protected=claim.desired
                or by_operator
                or one.digest in seen.mounted
                or one.digest in busy
                or one.digest in situation.avoid,
                last_use=max(uses, default=0.0),
            )
        )
    return Ledger(
        limit=budget.limit,
        high=budget.high,
        low=budget.low,
        free=seen.free,
        min_free=budget.min_free,
        holdings=tuple(holdings),
        unfinished=seen.unfinished,
        reservations={digest: one.bytes for digest, one in situation.reservations.items()},
        foreign=frozenset(
            part.key for one in seen.installed if one.digest not in claimed for part in one.parts
        ),
    )


def pins(situation: Situation, claimed: Mapping[Digest, _Claim]) -> Iterator[Pin]:
    """Yield the pins that must change: desired versions have one, others are left to the runtime."""
    for one in situation.observation.installed:
        claim = claimed.get(one.digest)
        if claim is None or not claim.versions or one.pinned == claim.desired:
            continue
        if not claim.desired and any(version.released for version in claim.versions):
            continue  # pinned by somebody else since
        pin = Pin(digest=one.digest, pinned=claim.desired)
        last = situation.done_lately.get(pin)
        if last is None or situation.steady - last >= REPEAT_AFTER:
            yield pin


def _desired(model: ModelOptions, situation: Situation, target: Digest | None) -> Iterator[Digest]:
    progress = situation.progress[model.name]
    if progress.adopted is not None:
        yield progress.adopted
    if target is not None:
        yield target
    if progress.previous is not None and keeps_previous(model, progress, situation.steady):
        yield progress.previous
