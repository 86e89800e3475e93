"""The daemon's status, made from what it knows. No I/O, so it may be asked for at any time.

Owns which stage and reason is shown of each model: what runs for it, or else what was decided.

status = take_picture(core, ...)
"""

from modelpack.digest import Digest
from modelpack.prefetch.actions import Install, Scrub, Situation, Verdict
from modelpack.prefetch.config import ModelOptions
from modelpack.prefetch.core import Core
from modelpack.prefetch.holdings import claims, ledger_of
from modelpack.prefetch.memory import Memory
from modelpack.prefetch.progress import Progress
from modelpack.prefetch.readiness import is_ready
from modelpack.prefetch.status import BudgetStatus, ModelStatus, Stage
from modelpack.prefetch.transfer import Snapshot


def model_statuses(core: Core, *, now: float) -> tuple[ModelStatus, ...]:
    """Return the models that the node should have, the most urgent first, then what it still has."""
    memory, situation = core.memory, core.situation()
    wanted = memory.models()
    names = {model.name for model in wanted}
    found = [_wanted(core, situation, model, now) for model in wanted]
    found += [
        _unwanted(memory, progress)
        for name, progress in memory.progress.items()
        if name not in names and progress.versions
    ]
    return tuple(found)


def budget_status(core: Core) -> BudgetStatus:
    """Return how much disk the daemon's models take."""
    situation = core.situation()
    ledger = ledger_of(situation, claims(situation, {}))
    return BudgetStatus(
        limit=ledger.limit,
        used=ledger.used + ledger.unfinished,
        reserved=ledger.pending - ledger.unfinished,
        high=ledger.high,
        low=ledger.low,
    )


def _wanted(core: Core, situation: Situation, model: ModelOptions, now: float) -> ModelStatus:
    memory = core.memory
    progress = memory.progress[model.name]
    ready = is_ready(progress, situation, model.reference)
    verdict = core.plan.verdicts.get(model.name) or Verdict(stage=Stage.PENDING)
    jobs = [job for job in core.jobs if getattr(job.task, "name", None) == model.name]
    running = next((job for job in jobs if isinstance(job.task, Install)), None)
    brought = next((job.task.digest for job in jobs if isinstance(job.task, Install)), None)
    live = running.transfer.snapshot() if running is not None else None
    figures = live or progress.last
    stage, reason = verdict.stage, verdict.reason
    if running is not None and live is not None:
        stage, reason = live.stage, live.trouble
        if running.transfer.is_stopped:
            reason = "is being stopped; what is verified is kept"
    elif any(isinstance(job.task, Scrub) for job in jobs):
        stage, reason = Stage.VERIFYING, "is being read again"
    elif jobs and progress.adopted is None and progress.candidate is None:
        stage, reason = Stage.RESOLVING, ""
    version = progress.version(progress.adopted)
    left = None if verdict.next_steady is None else verdict.next_steady - core.steady
    return ModelStatus(
        name=model.name,
        reference=str(model.reference),
        digest=str(progress.adopted) if ready else None,
        candidate=_candidate(progress, brought),
        stage=stage,
        reason=reason,
        bytes=_bytes(memory, progress, live),
        fetched_bytes=figures.fetched_bytes if figures else 0,
        reused_bytes=figures.reused_bytes if figures else 0,
        timings=figures.timings if figures else {},
        priority=model.priority,
        held=model.hold or progress.held,
        mounted=progress.adopted in memory.observation.mounted,
        ready_at=version.ready_at if version and ready else None,
        used_at=version.used_at if version else None,
        next_attempt=None if left is None or running is not None else now + max(0.0, left),
        attempts=max(
            (one.attempts for one in (progress.failure, progress.lookup) if one), default=0
        ),
    )


def _candidate(progress: Progress, running: Digest | None) -> str | None:
    newer = progress.candidate or running
    return None if newer is None or newer == progress.adopted else str(newer)


def _bytes(memory: Memory, progress: Progress, live: Snapshot | None) -> int:
    version = progress.version(progress.adopted)
    if version is not None:
        return version.bytes
    digest = progress.candidate or progress.adopted
    found = memory.resolutions.get((progress.name, digest)) if digest else None
    return found.total_bytes if found else (live.total_bytes if live else 0)


def _unwanted(memory: Memory, progress: Progress) -> ModelStatus:
    version = progress.version(progress.adopted) or progress.versions[-1]
    return ModelStatus(
        name=progress.name,
        reference=progress.reference,
        stage=Stage.READY,
        reason="not wanted any more; goes when space is needed",
        digest=str(version.digest),
        bytes=version.bytes,
        mounted=version.digest in memory.observation.mounted,
        ready_at=version.ready_at,
        used_at=version.used_at,
        held=progress.held,
    )
