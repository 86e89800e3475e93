"""What follows from the end of a task: progress, reservations, totals. No I/O.

Owns the transitions. Leaves out when they are saved (``core.py``).
"""

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from modelpack.digest import Digest
from modelpack.prefetch import failures
from modelpack.prefetch.actions import (
    REPEAT_AFTER,
    Abandon,
    Evict,
    Install,
    Observation,
    Pin,
    Resolve,
    Scrub,
    Task,
)
from modelpack.prefetch.config import ModelOptions
from modelpack.prefetch.memory import Memory, baseline
from modelpack.prefetch.node import used_bytes
from modelpack.prefetch.performing import Outcome
from modelpack.prefetch.progress import DAY, Failure, LastTransfer, Progress, Version
from modelpack.prefetch.quantities import show_duration
from modelpack.prefetch.readiness import asked_reference
from modelpack.prefetch.transfer import Snapshot
from modelpack.reference import Reference

_logger = logging.getLogger(__name__)

# A version that could not be removed or abandoned, being in use say, is left alone for as long.
_AVOID_FOR = 60.0
# A scrub that failed is tried again after so long, or at its usual time if that is sooner.
_SCRUB_AGAIN = 3600.0


def observed(
    memory: Memory,
    seen: Observation,
    *,
    busy: AbstractSet[Digest],
    now: float,
    steady: float,
    is_settled: bool,
) -> None:
    """Take a look at the node: what is used, what has gone, and what of ours has landed.

    Only an observation that is newer than all changes (``is_settled``) says what has gone, and
    nothing is concluded of versions that something is being done to (``busy``).
    """
    if seen.trouble is not None:
        if memory.observation.trouble is None:
            _logger.warning("the runtime cannot be relied on: %s", seen.trouble)
        # What was seen before stays, so that the status does not lose what is there.
        memory.observation = replace(memory.observation, trouble=seen.trouble)
        return
    if memory.observation.trouble is not None:
        _logger.info("the runtime answers; %d models are on the node", len(seen.installed))
    memory.observation = seen
    here = {one.digest for one in seen.installed}
    for progress in list(memory.progress.values()):
        updated = progress
        for version in progress.versions:
            if is_settled and version.digest not in here | busy:
                _logger.info(
                    "%s is not on the node any more", version.digest, extra={"model": progress.name}
                )
                # What was quarantined has gone, and is still to be repaired.
                updated = replace(updated.without_version(version.digest), damaged=progress.damaged)
            elif version.digest in seen.mounted:
                if version.used_at is None:
                    _count(memory, used_models=1)
                used = replace(version, used_at=now, used_steady=steady)
                # Each look would be a write; when it was last used matters to the minute.
                if version.used_steady is None or steady - version.used_steady >= 60:
                    updated = updated.with_version(used)
        memory.update(updated)
    if is_settled:
        _land(memory, here - busy, now=now, steady=steady)
        baseline(memory)


def _land(memory: Memory, here: AbstractSet[Digest], *, now: float, steady: float) -> None:
    """End the reservations of versions that are on the node.

    One that nothing is remembered of was made ready just before a daemon was killed. It is ours all
    the same: to adopt, or to evict.
    """
    for digest in memory.reservations.keys() & here:
        reservation = memory.reservations.pop(digest)
        memory.changed = True
        progress = memory.progress.get(reservation.name) or Progress(
            name=reservation.name, reference=reservation.name
        )
        if not any(one.version(digest) for one in memory.progress.values()):
            version = Version(
                digest=digest, bytes=reservation.bytes, ready_at=now, ready_steady=steady
            )
            memory.update(progress.with_version(version))


def ended(
    memory: Memory,
    outcome: Outcome,
    transfer: Snapshot,
    *,
    now: float,
    steady: float,
    jitter: float,
) -> None:
    """Take the end of a task other than a look at the node; ``jitter`` is from 0 to 1."""
    task = outcome.task
    memory.done_lately = {
        other: moment
        for other, moment in memory.done_lately.items()
        if steady - moment < REPEAT_AFTER
    }
    if isinstance(task, Install):
        _remember(memory, task.name, transfer)
        _add_seconds(memory, transfer.timings)
    if outcome.kind:
        _failed(memory, outcome, steady=steady, jitter=jitter)
    elif outcome.stopped:
        return
    elif isinstance(task, Resolve):
        _resolved(memory, task, outcome, steady)
    elif isinstance(task, Install):
        _installed(memory, task, outcome, now=now, steady=steady)
    elif isinstance(task, Evict):
        _evicted(memory, task.digest)
    elif isinstance(task, Abandon):
        memory.reservations.pop(task.digest, None)
        memory.changed = True
    elif isinstance(task, Pin):
        memory.done_lately[task] = steady
        _released(memory, task)
    elif isinstance(task, Scrub):
        _scrubbed(memory, task, outcome, steady)


def _remember(memory: Memory, name: str, transfer: Snapshot) -> None:
    progress = memory.progress.get(name)
    if progress is not None:
        last = LastTransfer(
            fetched_bytes=transfer.fetched_bytes,
            reused_bytes=transfer.reused_bytes,
            timings={stage: round(seconds, 3) for stage, seconds in transfer.timings.items()},
        )
        memory.update(replace(progress, last=last))


def _resolved(memory: Memory, task: Resolve, outcome: Outcome, steady: float) -> None:
    assert outcome.resolution is not None
    model = _model(memory, task.name)
    if model is None:
        return
    progress = memory.progress[task.name]
    digest = outcome.resolution.manifest.digest
    memory.resolutions[task.name, digest] = outcome.resolution
    if task.reference == asked_reference(model):
        progress = replace(progress, resolved=steady, lookup=None)
        if digest == progress.adopted:
            progress = replace(progress, candidate=None)
        elif digest != progress.candidate:
            if progress.adopted is not None:
                _logger.info("a newer version is named: %s", digest, extra={"model": task.name})
            progress = replace(progress, candidate=digest, candidate_seen=steady)
    memory.update(progress)
    _forget_resolutions(memory, progress)


def _forget_resolutions(memory: Memory, progress: Progress) -> None:
    """Keep what was found of the versions that matter: manifests are large."""
    needed = {progress.adopted, progress.candidate}
    for key in [key for key in memory.resolutions if key[0] == progress.name]:
        if key[1] not in needed:
            del memory.resolutions[key]


def _installed(
    memory: Memory, task: Install, outcome: Outcome, *, now: float, steady: float
) -> None:
    result = outcome.result
    assert result is not None
    progress = memory.progress.get(task.name) or Progress(
        name=task.name, reference=str(task.reference)
    )
    known = progress.version(task.digest)
    repaired = progress.damaged == task.digest
    if known is None or repaired:
        known = Version(digest=task.digest, bytes=result.bytes, ready_at=now, ready_steady=steady)
    before = progress.adopted
    if before is not None and before != task.digest:
        recent = [moment for moment in progress.adoptions if steady - moment < DAY]
        progress = replace(progress, previous=before, adoptions=(*recent, steady))
    progress = replace(
        progress.with_version(replace(known, released=False)),
        adopted=task.digest,
        candidate=None if progress.candidate == task.digest else progress.candidate,
        failure=None,
        damaged=None if repaired else progress.damaged,
        scrubbed=steady,
    )
    memory.update(progress)
    # A name is where the last install put it.
    memory.done_lately = {
        other: moment
        for other, moment in memory.done_lately.items()
        if not isinstance(other, Install) or not _is_one_name(other.reference, task.reference)
    }
    memory.done_lately[task] = steady
    _count(
        memory,
        imports=1,
        fetched_bytes=result.fetched_bytes,
        reused_bytes=result.reused_bytes,
        repaired=int(repaired),
    )
    _logger.info(
        "ready; %d bytes fetched, %d reused",
        result.fetched_bytes,
        result.reused_bytes,
        extra={"model": task.name, "digest": str(task.digest), "stage": "Ready"},
    )


def _evicted(memory: Memory, digest: Digest) -> None:
    gone = memory.observation.find(digest)
    rest = [one for one in memory.observation.installed if one.digest != digest]
    if gone is not None:
        freed = used_bytes([*rest, gone]) - used_bytes(rest)
        _count(memory, evictions=1, evicted_bytes=freed)
    for progress in list(memory.progress.values()):
        if progress.version(digest) is not None:
            memory.update(progress.without_version(digest))
            _logger.info("evicted %s", digest, extra={"model": progress.name})


def _released(memory: Memory, pin: Pin) -> None:
    for progress in list(memory.progress.values()):
        version = progress.version(pin.digest)
        if version is not None:
            memory.update(progress.with_version(replace(version, released=not pin.pinned)))


def _scrubbed(memory: Memory, task: Scrub, outcome: Outcome, steady: float) -> None:
    progress = memory.progress.get(task.name)
    if progress is None:
        return
    version = progress.version(task.digest)
    if outcome.damage:
        first = outcome.damage[0]
        _logger.error(
            "%d files are damaged, first %s: %s; the version is fetched again",
            len(outcome.damage),
            first.path,
            first.reason,
            extra={"model": task.name, "digest": str(task.digest)},
        )
        _count(memory, damaged=1)
        # All models that have this version are damaged with it.
        for other in list(memory.progress.values()):
            if task.digest == other.adopted or other.version(task.digest) is not None:
                memory.update(replace(other, damaged=task.digest))
        progress = memory.progress[task.name]
        memory.changes += 1
    if version is not None:
        _count(memory, scrubbed_bytes=version.bytes)
    memory.update(replace(progress, scrubbed=steady, scrub_asked=False))


def _failed(memory: Memory, outcome: Outcome, *, steady: float, jitter: float) -> None:
    task = outcome.task
    counted = memory.totals.failures
    failed = {**counted, outcome.kind: counted.get(outcome.kind, 0) + 1}
    memory.totals = replace(memory.totals, failures=failed)
    if isinstance(task, Resolve | Install):
        _model_failed(memory, task, outcome, steady=steady, jitter=jitter)
        return
    _logger.warning("%s failed: %s", _what(task), outcome.reason)
    if isinstance(task, Evict | Abandon):
        memory.avoid[task.digest] = steady + _AVOID_FOR
    elif isinstance(task, Pin):
        memory.done_lately[task] = steady
    elif isinstance(task, Scrub):
        progress = memory.progress.get(task.name)
        every = memory.config.scrub.every
        if progress is not None:
            later = steady if every is None else min(steady, steady - every + _SCRUB_AGAIN)
            memory.update(replace(progress, scrubbed=later, scrub_asked=False))


def _model_failed(
    memory: Memory, task: Resolve | Install, outcome: Outcome, *, steady: float, jitter: float
) -> None:
    progress = memory.progress.get(task.name)
    if progress is None:
        return
    model = _model(memory, task.name)
    is_lookup = isinstance(task, Resolve) and (
        model is None or task.reference == asked_reference(model)
    )
    digest = task.digest if isinstance(task, Install) else task.reference.digest
    digest = None if is_lookup else digest
    before = progress.lookup if is_lookup else progress.failure
    attempts = before.attempts + 1 if before is not None and before.digest == digest else 1
    retry = memory.config.retry
    wait = failures.delay(
        attempts, first=retry.first, longest=retry.longest, jitter=jitter, kind=outcome.kind
    )
    failure = Failure(
        kind=outcome.kind,
        reason=outcome.reason,
        attempts=attempts,
        next_steady=steady + wait,
        digest=digest,
        free_bytes=outcome.free_bytes if outcome.kind == "space" else None,
    )
    _logger.warning(
        "try %d failed (%s), the next is in %s: %s",
        attempts,
        outcome.kind,
        show_duration(wait),
        outcome.reason,
        extra={"model": task.name, "digest": str(digest) if digest else None},
    )
    if is_lookup:
        progress = replace(progress, lookup=failure)
    else:
        progress = replace(progress, failure=failure)
    if _is_gone_for_good(memory, progress, task, outcome):
        # Neither here nor in the registry: what the tag names is then the first delivery.
        progress = replace(progress, adopted=None)
    memory.update(progress)


def _is_gone_for_good(
    memory: Memory, progress: Progress, task: Resolve | Install, outcome: Outcome
) -> bool:
    asked = task.digest if isinstance(task, Install) else task.reference.digest
    return (
        outcome.kind == "not_found"
        and progress.adopted is not None
        and asked == progress.adopted
        and not progress.held
        and progress.candidate is not None
        and memory.observation.trouble is None
        and memory.observation.find(progress.adopted) is None
    )


def _is_one_name(one: Reference, other: Reference) -> bool:
    return (one.repository_name, one.tag) == (other.repository_name, other.tag)


def _model(memory: Memory, name: str) -> ModelOptions | None:
    return next((model for model in memory.models() if model.name == name), None)


def _what(task: Task) -> str:
    digest = getattr(task, "digest", "")
    return f"{type(task).__name__.lower()} {digest}".rstrip()


def _count(memory: Memory, **added: int) -> None:
    grown = {name: getattr(memory.totals, name) + value for name, value in added.items()}
    memory.totals = replace(memory.totals, **grown)


def _add_seconds(memory: Memory, timings: Mapping[str, float]) -> None:
    seconds = dict(memory.totals.stage_seconds)
    for name, value in timings.items():
        seconds[name] = seconds.get(name, 0.0) + value
    memory.totals = replace(memory.totals, stage_seconds=seconds)
