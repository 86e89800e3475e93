"""What to do next. Pure: a situation in, actions and verdicts out, the same for the same.

Owns the order of things: what runs and should not is stopped; each wanted model, the most urgent
first, is looked up, waits, or gets its disk and is brought; then what nobody wants goes, if space is
short, and what is here is pinned and read again. A model that cannot go on says why and takes
nothing from the others. Leaves out doing any of it (``performing.py``) and remembering what came of
it (``core.py``).
"""

from dataclasses import replace

from modelpack.digest import Digest
from modelpack.prefetch import budget
from modelpack.prefetch.actions import (
    Abandon,
    Action,
    Evict,
    Install,
    Plan,
    Resolve,
    Scrub,
    Situation,
    Stop,
    Verdict,
)
from modelpack.prefetch.config import ModelOptions
from modelpack.prefetch.desired import wanted
from modelpack.prefetch.holdings import claims, ledger_of, pins
from modelpack.prefetch.progress import Failure, Progress
from modelpack.prefetch.quantities import show_duration, show_size
from modelpack.prefetch.readiness import asked_reference, is_ready
from modelpack.prefetch.rollout import Choice, choose, short
from modelpack.prefetch.status import Stage
from modelpack.prefetch.windows import is_open, next_opening
from modelpack.reference import Reference, RegistryReference

# Look-ups are small; more at once would be a burst on the registry when a fleet starts.
MAX_RESOLVES = 4
# Less urgent models wait for so long that a more urgent one is looked up, so as not to take its room.
_LOOKUP_PATIENCE = 10.0
# A disk that was full has space again when it has this much more, or a part of what is needed.
_MORE_SPACE = 16 * 2**20
_MORE_SHARE = 20
# Quotas and inodes do not show in what is free, so a try is made after so long all the same.
_SPACE_AGAIN = 6 * 3600.0


def plan(situation: Situation) -> Plan:
    """Return what to do now and where every model stands."""
    return _Planner(situation).run()


class _Planner:
    """Makes one plan; the ledger changes as disk is promised."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._config = situation.config
        self._models = wanted(situation.config)
        self._actions: list[Action] = []
        self._verdicts: dict[str, Verdict] = {}
        self._choices = {model.name: self._choose(model) for model in self._models}
        targets = {name: choice.target for name, choice in self._choices.items()}
        self._targets = targets
        self._claims = claims(situation, targets)
        self._ledger = ledger_of(situation, self._claims)
        self._installs = [task for task in situation.running if isinstance(task, Install)]
        self._resolves = sum(isinstance(task, Resolve) for task in situation.running)
        self._evicting = False
        self._awaited: int | None = None
        """The highest priority among models that are being looked up for the first time."""

    def run(self) -> Plan:
        self._stop_what_should_not_run()
        for model in self._models:
            self._verdicts[model.name] = self._consider(model)
        seen = self._situation.observation
        if seen.trouble is None and self._situation.is_settled:
            self._abandon()
            self._relieve()
            self._actions += pins(self._situation, self._claims)
            self._scrub()
        return Plan(actions=tuple(self._actions), verdicts=self._verdicts)

    def _choose(self, model: ModelOptions) -> Choice:
        progress = self._situation.progress[model.name]
        candidate = progress.candidate
        found = self._situation.resolutions.get((model.name, candidate)) if candidate else None
        return choose(
            model,
            progress,
            node=self._config.identity.name,
            steady=self._situation.steady,
            bounds=self._config.bounds,
            candidate_bytes=found.total_bytes if found else None,
        )

    def _stop_what_should_not_run(self) -> None:
        options = {model.name: model for model in self._models}
        for task in self._installs:
            model = options.get(task.name)
            if (
                model is None
                or self._targets[task.name] != task.digest
                or (task.fetches and not self._is_open(model))
            ):
                self._actions.append(Stop(name=task.name))

    def _consider(self, model: ModelOptions) -> Verdict:
        """Add what is to be done for one model, and say where it stands."""
        situation = self._situation
        progress = situation.progress[model.name]
        choice = self._choices[model.name]
        if situation.observation.trouble is None:
            self._resolve_if_due(model, progress)
        if progress.adopted is not None and choice.target == progress.adopted:
            if is_ready(progress, situation, model.reference):
                return self._ready(progress, choice)
        elif choice.refused:
            return Verdict(stage=Stage.REFUSED, reason=choice.reason)
        if choice.target is None:
            return self._unresolved(model, progress, choice)
        return self._bring(model, progress, choice.target)

    def _resolve_if_due(self, model: ModelOptions, progress: Progress) -> None:
        failure = progress.lookup
        if failure is not None:
            if self._situation.steady < failure.next_steady:
                return
        elif progress.resolved is not None:
            age = self._situation.steady - progress.resolved
            fixed = model.digest is not None and model.digest in {
                progress.adopted,
                progress.candidate,
            }
            if fixed or model.resolve is None or age < model.resolve:
                return
        self._resolve(model.name, asked_reference(model))

    def _resolve(self, name: str, reference: Reference) -> None:
        task = Resolve(name=name, reference=reference)
        if self._resolves < MAX_RESOLVES and task not in self._tasks():
            self._resolves += 1
            self._actions.append(task)

    def _tasks(self) -> list[Action]:
        return [*self._situation.running, *self._actions]

    def _await_lookup(self, model: ModelOptions) -> None:
        """Have less urgent models wait if this one is just being looked up."""
        since = max(
            (
                self._situation.running.get(task, self._situation.steady)
                for task in self._tasks()
                if isinstance(task, Resolve) and task.name == model.name
            ),
            default=None,
        )
        if since is not None and self._situation.steady - since < _LOOKUP_PATIENCE:
            self._awaited = model.priority if self._awaited is None else self._awaited

    def _ready(self, progress: Progress, choice: Choice) -> Verdict:
        failure = progress.lookup
        if failure is None:
            stage = Stage.REFUSED if choice.refused else Stage.READY
            wait = None if choice.wait is None else self._situation.steady + choice.wait
            return Verdict(stage=stage, reason=choice.reason, next_steady=wait)
        stage = Stage.REFUSED if failure.kind == "policy" else Stage.READY
        assert progress.adopted is not None
        reason = f"{failure.reason}; {short(progress.adopted)} stays, {self._again(failure)}"
        return Verdict(stage=stage, reason=reason, next_steady=failure.next_steady)

    def _unresolved(self, model: ModelOptions, progress: Progress, choice: Choice) -> Verdict:
        if progress.lookup is not None:
            return self._failed(progress.lookup)
        self._await_lookup(model)
        return Verdict(
            stage=Stage.PENDING, reason=choice.reason or self._trouble("to be looked up")
        )

    def _trouble(self, otherwise: str) -> str:
        trouble = self._situation.observation.trouble
        return f"waits for the runtime: {trouble}" if trouble is not None else otherwise

    def _failed(self, failure: Failure) -> Verdict:
        stage = {"policy": Stage.REFUSED, "space": Stage.INSUFFICIENT_SPACE}.get(
            failure.kind, Stage.FAILED
        )
        return Verdict(
            stage=stage,
            reason=f"{failure.reason}; {self._again(failure)}",
            next_steady=failure.next_steady,
        )

    def _again(self, failure: Failure) -> str:
        left = failure.next_steady - self._situation.steady
        number = failure.attempts + 1
        return (
            f"try {number} follows in {show_duration(left)}" if left > 0 else f"try {number} is due"
        )

    def _bring(self, model: ModelOptions, progress: Progress, target: Digest) -> Verdict:
        """Bring a version that is to be here, unless something is in the way."""
        situation = self._situation
        if any(task.name == model.name for task in self._installs):
            return Verdict(stage=Stage.PENDING, reason="is being brought")
        found = situation.resolutions.get((model.name, target))
        waiting = self._held_back(progress, target)
        if waiting is not None:
            return waiting
        if found is None:
            if situation.observation.trouble is None:
                self._resolve(model.name, _with_digest(model.reference, target))
                self._await_lookup(model)
            return Verdict(stage=Stage.PENDING, reason=self._trouble("to be looked up"))
        limit = self._config.bounds.model_size
        here = situation.observation.find(target) is not None and progress.damaged != target
        if not here and limit is not None and found.total_bytes > limit:
            sizes = f"{show_size(found.total_bytes)}; bounds.modelSize is {show_size(limit)}"
            return Verdict(stage=Stage.REFUSED, reason=f"{short(target)} has {sizes}")
        if not here and not self._is_open(model):
            opening = next_opening(model.windows, situation.now, self._config.zone)
            left = opening - situation.now
            return Verdict(
                stage=Stage.PENDING,
                reason=f"waits for its window, which opens in {show_duration(left)}",
                next_steady=situation.steady + left,
            )
        if situation.observation.trouble is not None:
            return Verdict(stage=Stage.PENDING, reason=self._trouble(""))
        twin = next((task.name for task in self._installs if task.digest == target), None)
        if twin is not None:
            return Verdict(stage=Stage.PENDING, reason=f"waits for {twin}, the same version")
        if here:
            return self._install(model, target, reserve=0, fetches=False)
        need = budget.needed(found.total_bytes, found.parts, situation.observation.parts_here)
        return self._reserve(model, target, need)

    def _held_back(self, progress: Progress, target: Digest) -> Verdict | None:
        """Return why a version is not tried now, None if it is."""
        failure = progress.failure
        if failure is None or failure.digest != target:
            return None
        if self._situation.steady < failure.next_steady:
            return self._failed(failure)
        patience_ends = failure.next_steady + _SPACE_AGAIN
        if failure.free_bytes is not None and self._situation.steady < patience_ends:
            free = self._situation.observation.free
            more = max(_MORE_SPACE, failure.free_bytes // _MORE_SHARE)
            if free < failure.free_bytes + more:
                reason = f"{failure.reason}; it is tried again when the disk has more space"
                return Verdict(stage=Stage.INSUFFICIENT_SPACE, reason=reason)
        return None

    def _reserve(self, model: ModelOptions, target: Digest, need: int) -> Verdict:
        """Promise disk to a version and bring it, or make room, or say what is short."""
        if not self._situation.is_settled or self._evicting:
            return Verdict(stage=Stage.PENDING, reason="waits for what is being done to the disk")
        if self._awaited is not None and model.priority < self._awaited:
            reason = "waits until more urgent models are looked up"
            return Verdict(stage=Stage.PENDING, reason=reason)
        promised = self._ledger.reservations.get(target, 0)
        extra = max(0, need - promised)
        fit = budget.make_room(self._ledger, extra)
        if not fit.fits:
            idle = self._less_urgent(model, extra)
            if not idle:
                return Verdict(stage=Stage.INSUFFICIENT_SPACE, reason=fit.reason)
            self._actions += [Abandon(digest=digest) for digest in idle]
            self._evicting = True
            return Verdict(stage=Stage.PENDING, reason="what less urgent models have begun goes")
        self._ledger = self._ledger.without(fit.evict)
        if fit.evict:
            self._actions += [Evict(digest=digest) for digest in fit.evict]
            self._evicting = True
        self._promise(target, max(promised, need))
        if fit.evict:
            return Verdict(stage=Stage.PENDING, reason="waits for room to be made")
        return self._install(model, target, reserve=max(promised, need), fetches=True)

    def _promise(self, digest: Digest, size: int) -> None:
        reservations = {**self._ledger.reservations, digest: size}
        self._ledger = replace(self._ledger, reservations=reservations)

    def _less_urgent(self, model: ModelOptions, need: int) -> list[Digest]:
        """Return interrupted installs that must be given up for a more urgent model, if that helps."""
        urgency = {other.name: other.priority for other in self._models}
        running = {task.digest for task in self._installs}
        idle = sorted(
            (urgency.get(one.name, model.priority), str(digest), digest)
            for digest, one in self._situation.reservations.items()
            if digest not in running and urgency.get(one.name, model.priority) < model.priority
        )
        given_up: list[Digest] = []
        ledger = self._ledger
        for _, _, digest in idle:
            given_up.append(digest)
            rest = {key: size for key, size in ledger.reservations.items() if key != digest}
            written = min(ledger.unfinished, ledger.reservations[digest])
            ledger = replace(ledger, reservations=rest, unfinished=ledger.unfinished - written)
            if budget.make_room(ledger, need).fits:
                return given_up
        return []

    def _install(
        self, model: ModelOptions, target: Digest, *, reserve: int, fetches: bool
    ) -> Verdict:
        running = sum(task.fetches for task in self._installs)
        if fetches and running >= self._config.concurrency:
            reason = f"waits for its turn; {running} are being brought"
            return Verdict(stage=Stage.PENDING, reason=reason)
        other = model.reference.digest not in {None, target}
        task = Install(
            name=model.name,
            reference=_with_digest(model.reference, target) if other else model.reference,
            digest=target,
            reserve=reserve,
            fetches=fetches,
        )
        self._installs.append(task)
        self._actions.append(task)
        return Verdict(stage=Stage.PENDING, reason="begins")

    def _is_open(self, model: ModelOptions) -> bool:
        return is_open(model.windows, self._situation.now, self._config.zone)

    def _abandon(self) -> None:
        """Drop what was begun and is not wanted any more."""
        aims = {target for target in self._targets.values() if target is not None}
        busy = {task.digest for task in self._installs}
        busy |= {task.digest for task in self._tasks() if isinstance(task, Abandon)}
        self._actions += [
            Abandon(digest=digest)
            for digest in self._situation.reservations
            if digest not in aims | busy | self._situation.avoid
        ]

    def _relieve(self) -> None:
        if not self._evicting:
            self._actions += [Evict(digest=digest) for digest in budget.relieve(self._ledger)]

    def _scrub(self) -> None:
        """Read again what was not for longest, one model at a time."""
        if any(isinstance(task, Scrub) for task in self._situation.running):
            return
        every = self._config.scrub.every
        busy = {task.name for task in self._installs}
        due: list[tuple[float, str]] = []
        for model in self._models:
            progress = self._situation.progress[model.name]
            if model.name in busy or not is_ready(progress, self._situation, model.reference):
                continue
            age = self._situation.steady - (progress.scrubbed or 0.0)
            if progress.scrub_asked or (every is not None and age >= every):
                due.append((0.0 if progress.scrub_asked else progress.scrubbed or 0.0, model.name))
        if due:
            _, name = min(due)
            digest = self._situation.progress[name].adopted
            assert digest is not None
            self._actions.append(Scrub(name=name, digest=digest))


def _with_digest(reference: Reference, digest: Digest) -> RegistryReference:
    assert isinstance(reference, RegistryReference)
    return reference.with_digest(digest)
