"""Which version of a model this node may have now: waves, soaking, holds, bounds. Pure.

A tag that moves is a deployment to the whole fleet, so a node that has a version takes another only
when its wave has come. No coordinator is asked. A hash of the node's and the model's names places
each node between 0 and 100, the same for ever; a wave takes the nodes below its percentage. Each
node counts the soaking of all earlier waves from when it first saw the candidate itself, verified.

What that gives: nodes that look the tag up every five minutes agree within five minutes. What it
does not give: nobody tells a later wave that an earlier one was unhappy. Somebody has to look, and
hold or roll back, or move the tag back, while the soaking lasts; a tag that moves begins it anew.
A node that was down, or could not reach the registry, saw the candidate later and adopts it later,
never earlier. The count is in steady time (``progress.py``), so no clock that jumps skips a wave.
A node that has no version yet takes what the reference names at once: its pods would wait.

    >>> from modelpack.prefetch.config import Rollout, Wave
    >>> turn(Rollout(waves=(Wave(percent=100, soak=60),)), "node", "model")
    Turn(number=1, count=1, wait=0.0)
"""

import hashlib
from dataclasses import dataclass

from modelpack.digest import Digest
from modelpack.prefetch.config import Bounds, ModelOptions, Rollout
from modelpack.prefetch.progress import DAY, Progress
from modelpack.prefetch.quantities import show_duration, show_size

_SHOWN_DIGITS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """When a node's wave is."""

    number: int
    """From 1."""
    count: int
    wait: float
    """Seconds that earlier waves soak."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which version the node should have, and why not the newest."""

    target: Digest | None
    reason: str = ""
    refused: bool = False
    """Whether a bound turned the candidate down, which waiting will not change."""
    wait: float | None = None
    """Seconds until the candidate's turn comes, if it is that which it waits for."""


def position(node: str, model: str) -> float:
    """Return where a node stands in a model's rollouts, from 0 to below 100."""
    names = f"{len(node)}:{node}{model}".encode()
    number = int.from_bytes(hashlib.sha256(names).digest()[:8], "big")
    return 100.0 * number / 2**64


def turn(rollout: Rollout, node: str, model: str) -> Turn:
    """Return the wave that a node is in."""
    place = position(node, model)
    waited = 0.0
    everybody = bool(rollout.waves) and rollout.waves[-1].percent >= 100
    count = max(1, len(rollout.waves) + (not everybody))
    for number, wave in enumerate(rollout.waves, 1):
        if place < wave.percent:
            return Turn(number=number, count=count, wait=waited)
        waited += wave.soak
    return Turn(number=count, count=count, wait=waited)


def choose(
    model: ModelOptions,
    progress: Progress,
    *,
    node: str,
    steady: float,
    bounds: Bounds,
    candidate_bytes: int | None = None,
) -> Choice:
    """Return which version the node should have now.

    ``candidate_bytes`` is the candidate's size, if it is known.
    """
    current, candidate = progress.adopted, progress.candidate
    if candidate is None or candidate == current:
        return Choice(target=current)
    shown = short(candidate)
    if candidate in progress.turned_away:
        return Choice(
            target=current, reason=f"{shown} was rolled back from; release the model to take it"
        )
    limit = bounds.model_size
    if limit is not None and candidate_bytes is not None and candidate_bytes > limit:
        sizes = f"{show_size(candidate_bytes)}; bounds.modelSize is {show_size(limit)}"
        return Choice(target=current, refused=True, reason=f"{shown} has {sizes}")
    if current is None:
        return Choice(target=candidate)
    if model.hold or progress.held:
        by = "the configuration" if model.hold else "request"
        return Choice(target=current, reason=f"held by {by}; {shown} waits")
    wait = _updates_wait(progress, steady, bounds)
    if wait is not None:
        return Choice(
            target=current,
            wait=wait,
            reason=f"{shown} waits: bounds.updatesPerDay, {bounds.updates_per_day}, is reached",
        )
    mine = turn(model.rollout, node, model.name)
    left = mine.wait - max(0.0, steady - progress.candidate_seen)
    if left > 0:
        return Choice(
            target=current,
            wait=left,
            reason=f"{shown} waits for wave {mine.number} of {mine.count}, "
            f"in {show_duration(left)}",
        )
    return Choice(target=candidate)


def keeps_previous(model: ModelOptions, progress: Progress, steady: float) -> bool:
    """Tell whether the version before must stay: the new one has not proved itself yet.

    It has when it is on the node and was mounted, or a time has passed since it was made ready.
    """
    if progress.previous is None or progress.previous in progress.turned_away:
        return False
    present = progress.version(progress.adopted)
    if present is None or progress.damaged == progress.adopted:
        return True
    if present.used_steady is not None:
        return False
    return steady - present.ready_steady < model.rollout.keep_previous


def short(digest: Digest) -> str:
    """Return the beginning of a digest, enough to tell versions apart in a line of text."""
    text = str(digest)
    return text[: text.index(":") + 1 + _SHOWN_DIGITS]


def _updates_wait(progress: Progress, steady: float, bounds: Bounds) -> float | None:
    """Return how long until another update is within bounds, None if it is."""
    recent = [moment for moment in progress.adoptions if steady - moment < DAY]
    if len(recent) < bounds.updates_per_day:
        return None
    if not recent:  # none is ever allowed
        return DAY
    oldest = sorted(recent)[len(recent) - bounds.updates_per_day]
    return max(0.0, oldest + DAY - steady)
