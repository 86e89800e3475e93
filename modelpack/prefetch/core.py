"""The daemon without its threads: what it knows, what it starts next, what follows from outcomes.

Owns the state between two decisions and keeping it durable: disk is promised in the state file
before an install begins, and an outcome is in it before anything is built on that. Leaves out doing
tasks (``performing.py``), time passing and threads (``daemon.py``), and the files of the
configuration (``reloading.py``). Not thread-safe: the daemon has one lock for it.

    core = Core(store, config, clock=clock, jitter=random.random)
    for job in core.advance():
        core.finish(job, perform(job.task, tools, job.transfer))
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from modelpack.errors import ModelpackError
from modelpack.prefetch import outcomes
from modelpack.prefetch.actions import (
    Abandon,
    Evict,
    Install,
    Observe,
    Pin,
    Plan,
    Scrub,
    Situation,
    Stop,
    Task,
)
from modelpack.prefetch.config import DaemonConfig
from modelpack.prefetch.memory import Memory
from modelpack.prefetch.performing import Outcome
from modelpack.prefetch.planning import plan
from modelpack.prefetch.progress import Progress, Reservation, State
from modelpack.prefetch.status import Stage
from modelpack.prefetch.transfer import Transfer

_logger = logging.getLogger(__name__)

# How often the node is looked at when nothing was changed: what is mounted, pinned, or was removed
# by others, and how full the disk is. A mount shorter than this may not be seen.
OBSERVE_EVERY = 5.0
# The steady time that a crash may take back; it delays what waits, and never hastens it.
SAVE_EVERY = 60.0
# Failures that a new configuration or policy may have put right.
_MAY_HAVE_CHANGED = frozenset({"policy", "usage", "auth", "space"})


class Clock(Protocol):
    """Both clocks."""

    def now(self) -> float:
        """Return seconds since the epoch; it may jump."""

    def monotonic(self) -> float:
        """Return seconds since some moment; it never jumps."""


class Keeper(Protocol):
    """Where the state is kept; ``state.Store`` is one."""

    def load(self) -> State:
        """Return what was saved last."""

    def save(self, state: State) -> None:
        """Keep a state durably; raises ModelpackError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A task that runs."""

    task: Task
    transfer: Transfer
    begun: float
    """In steady time."""
    changes: int
    """How many changes had been made when it began: an observation is as old as that."""


class Core:
    """One daemon's decisions; see the module."""

    def __init__(
        self,
        keeper: Keeper,
        config: DaemonConfig,
        *,
        clock: Clock,
        jitter: Callable[[], float],
    ) -> None:
        """Begin with what was kept; ``jitter`` returns numbers from 0 to 1."""
        self._keeper = keeper
        self._clock = clock
        self._jitter = jitter
        state = keeper.load()
        self._steady_at_start = state.steady
        self._started = clock.monotonic()
        self._saved_at = state.steady
        self._observed_at: float | None = None
        self._observed_changes = -1
        self._plan = Plan(actions=(), verdicts={})
        self.jobs: list[Job] = []
        self.trouble = ""
        """Why the state cannot be saved, empty if it can."""
        self.memory = Memory(
            config=config,
            progress=dict(state.models),
            reservations=dict(state.reservations),
        )
        self.configure(config)

    @property
    def steady(self) -> float:
        """Seconds that daemons have run on this node."""
        return self._steady_at_start + self._clock.monotonic() - self._started

    @property
    def plan(self) -> Plan:
        """What was decided last."""
        return self._plan

    def configure(self, config: DaemonConfig) -> None:
        """Put a configuration in force."""
        memory = self.memory
        memory.config = config
        for model in memory.models():
            reference = str(
                model.reference.with_digest(model.digest) if model.digest else model.reference
            )
            known = memory.progress.get(model.name)
            if known is None:
                memory.update(Progress(name=model.name, reference=reference))
            elif known.reference != reference:
                memory.update(
                    replace(known, reference=reference, resolved=None, failure=None, lookup=None)
                )
        wanted = {model.name for model in memory.models()}
        for key in [key for key in memory.resolutions if key[0] not in wanted]:
            del memory.resolutions[key]
        names = {model.name for model in config.models}
        for name in [name for name, one in memory.progress.items() if name not in names]:
            if memory.progress[name].is_forgettable:
                del memory.progress[name]
                memory.changed = True

    def try_refused_again(self) -> None:
        """Forget refusals and what was wrong with the call: what refused may have changed."""
        for progress in list(self.memory.progress.values()):
            failures = (progress.failure, progress.lookup)
            if any(one is not None and one.kind in _MAY_HAVE_CHANGED for one in failures):
                self.memory.update(replace(progress, failure=None, lookup=None, resolved=None))

    def advance(self) -> list[Job]:
        """Decide, and return what must be started; it counts as running from then on.

        What runs and should not is told to stop.
        """
        self._plan = plan(self.situation())
        started = [self._start(Observe())] if self._must_observe() else []
        for action in self._plan.actions:
            if isinstance(action, Stop):
                self.stop_transfers(action.name)
            elif action not in [job.task for job in self.jobs] and (
                not isinstance(action, Install) or self._reserve(action)
            ):
                started.append(self._start(action))
        if self.memory.changed or self.steady - self._saved_at >= SAVE_EVERY:
            self.save()
        return started

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Take the outcome of a job."""
        self.jobs.remove(job)
        memory = self.memory
        if isinstance(outcome.task, Install | Evict | Abandon | Pin):
            memory.changes += 1
        if outcome.observation is not None:
            self._observed_at = self._clock.monotonic()
            self._observed_changes = job.changes
            outcomes.observed(
                memory,
                outcome.observation,
                busy={
                    job.task.digest
                    for job in self.jobs
                    if isinstance(job.task, Install | Evict | Abandon | Scrub)
                },
                now=self._clock.now(),
                steady=self.steady,
                is_settled=self._is_settled(),
            )
        else:
            outcomes.ended(
                memory,
                outcome,
                job.transfer.snapshot(),
                now=self._clock.now(),
                steady=self.steady,
                jitter=self._jitter(),
            )
        if memory.changed:
            self.save()

    def stop_transfers(self, name: str | None = None) -> None:
        """Tell what fetches or reads to stop: of one model, or all."""
        for job in self.jobs:
            if name is None or getattr(job.task, "name", None) == name:
                job.transfer.stop()

    def save(self) -> bool:
        """Keep the state; tell whether that went well. If not it is tried again."""
        state = State(
            steady=self.steady,
            models=dict(self.memory.progress),
            reservations=dict(self.memory.reservations),
        )
        try:
            self._keeper.save(state)
        except ModelpackError as error:
            if not self.trouble:
                _logger.warning("the state cannot be kept, so nothing new is begun: %s", error)
            self.trouble = str(error)
            self.memory.changed = True
            return False
        self.trouble = ""
        self.memory.changed = False
        self._saved_at = state.steady
        return True

    def situation(self) -> Situation:
        """Return what a decision would be made from now."""
        memory, steady = self.memory, self.steady
        memory.avoid = {digest: until for digest, until in memory.avoid.items() if until > steady}
        return Situation(
            config=memory.config,
            progress=memory.progress,
            observation=memory.observation,
            now=self._clock.now(),
            steady=steady,
            is_settled=self._is_settled(),
            resolutions=memory.resolutions,
            reservations=memory.reservations,
            running={job.task: job.begun for job in self.jobs},
            avoid=frozenset(memory.avoid),
            done_lately=memory.done_lately,
        )

    def _is_settled(self) -> bool:
        removing = any(isinstance(job.task, Evict | Abandon) for job in self.jobs)
        return self._observed_changes == self.memory.changes and not removing

    def _must_observe(self) -> bool:
        if any(isinstance(job.task, Observe) for job in self.jobs):
            return False
        if self._observed_at is None or self._observed_changes != self.memory.changes:
            return True
        return self._clock.monotonic() - self._observed_at >= OBSERVE_EVERY

    def _start(self, task: Task) -> Job:
        stage = Stage.VERIFYING if not isinstance(task, Install) else Stage.RESOLVING
        job = Job(
            task=task,
            transfer=Transfer(self._clock.monotonic, stage),
            begun=self.steady,
            changes=self.memory.changes,
        )
        self.jobs.append(job)
        return job

    def _reserve(self, task: Install) -> bool:
        """Promise disk to an install, durably; tell whether that went well."""
        if not task.fetches:
            return True
        before = self.memory.reservations.get(task.digest)
        self.memory.reservations[task.digest] = Reservation(name=task.name, bytes=task.reserve)
        if self.save():
            return True
        if before is None:
            del self.memory.reservations[task.digest]
        else:
            self.memory.reservations[task.digest] = before
        return False
