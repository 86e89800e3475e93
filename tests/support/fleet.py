"""Nodes of a fleet, simulated: the daemon's core over a node in memory, with a clock that tests turn.

Everything happens in the calling thread, one task after another, so a test decides what happens when
and can end the daemon between any two steps. ``Sim`` checks the promises after each.

    fleet_clock = Clock()
    sim = Sim(config(models=[...]), MemoryNode(registry), fleet_clock)
    sim.settle()
"""

import json
import random
from dataclasses import replace
from pathlib import Path

from modelpack.errors import SpaceError
from modelpack.prefetch import commands
from modelpack.prefetch.config import (
    Bounds,
    Budget,
    DaemonConfig,
    Identity,
    ModelOptions,
    Retry,
    Rollout,
    RuntimeOptions,
    Scrub,
    Wave,
)
from modelpack.prefetch.core import Core
from modelpack.prefetch.performing import Tools, perform
from modelpack.prefetch.picture import budget_status, model_statuses
from modelpack.prefetch.progress import State
from modelpack.ratelimit import RateLimiter
from modelpack.reference import parse_reference
from tests.support.memorynode import CrashError, MemoryNode

REFERENCE = "registry.example/team/model:v1"


class Clock:
    """Both clocks; the wall one may be set, the other only goes on."""

    def __init__(self, wall=1_800_000_000.0):
        self.wall = wall
        self.ticks = 100.0

    def now(self):
        return self.wall

    def monotonic(self):
        return self.ticks

    def advance(self, seconds):
        self.wall += seconds
        self.ticks += seconds


class MemoryKeeper:
    """A store whose text survives; a save may fail, or be the last thing before a crash."""

    def __init__(self):
        self.text = None
        self.is_full = False
        self.crash_at = None
        self.saves = 0

    def load(self):
        return State() if self.text is None else State.from_json(json.loads(self.text))

    def save(self, state):
        self._crash()
        if self.is_full:
            raise SpaceError("cannot write the state: No space left on device")
        self.saves += 1
        self.text = json.dumps(state.to_json())
        self._crash()

    def _crash(self):
        if self.crash_at is not None:
            self.crash_at -= 1
            if self.crash_at <= 0:
                self.crash_at = None
                raise CrashError("save")


def model(reference=REFERENCE, *, waves=(), keep=86400.0, **options):
    """Return a model's options; ``waves`` are pairs of percentage and seconds."""
    rollout = Rollout(
        waves=tuple(Wave(percent=percent, soak=soak) for percent, soak in waves),
        keep_previous=keep,
    )
    return ModelOptions(
        **{
            "name": reference,
            "reference": parse_reference(reference),
            "rollout": rollout,
            **options,
        }
    )


def configuration(*models, node="n0", limit=1000, high=None, low=None, **options):
    """Return a configuration with small round figures."""
    budget = Budget(
        limit=limit,
        high=limit if high is None else high,
        low=limit if low is None else low,
    )
    return DaemonConfig(
        **{
            "store": Path("/nowhere"),
            "budget": budget,
            "identity": Identity(name=node),
            "runtime": RuntimeOptions(kind="memory"),
            "models": models,
            "scrub": Scrub(every=None),
            "retry": Retry(first=10, longest=600),
            "bounds": Bounds(),
            **options,
        }
    )


class Sim:
    """One node and its daemon."""

    def __init__(self, config, node, clock, *, keeper=None, seed=0):
        self.config = config
        self.node = node
        self.clock = clock
        self.keeper = keeper or MemoryKeeper()
        self.random = random.Random(seed)
        self.is_full_of_others = False
        self.start()

    def start(self):
        """Begin a daemon with what the last one kept."""
        self.core = Core(self.keeper, self.config, clock=self.clock, jitter=self.random.random)

    def kill(self):
        """End the daemon without any warning, and start another."""
        self.start()

    def configure(self, *models, **changes):
        """Put another configuration in force."""
        if models or "models" in changes:
            changes["models"] = changes.get("models", models)
        self.config = replace(self.config, **changes)
        self.core.configure(self.config)
        self.core.try_refused_again()

    def tools(self):
        return Tools(
            node=self.node,
            open_gate=lambda: _Gate(self.node.registry),
            limiter=RateLimiter(None),
            scrub_limiter=RateLimiter(None),
        )

    def step(self):
        """Come round once; tell whether anything but looking was done."""
        jobs = self.core.advance()
        self.random.shuffle(jobs)
        for job in jobs:
            outcome = perform(job.task, self.tools(), job.transfer)
            self.check()
            self.core.finish(job, outcome)
        return any(type(job.task).__name__ != "Observe" for job in jobs)

    def settle(self, rounds=200):
        """Come round until nothing is left to do now."""
        quiet = 0
        for _ in range(rounds):
            quiet = 0 if self.step() else quiet + 1
            if quiet >= 3:
                return
            self.clock.advance(0.01)
        raise AssertionError(f"still busy after {rounds} rounds: {self.node.calls[-10:]}")

    def run(self, seconds, *, every=30.0):
        """Let time pass, coming round every so often."""
        while seconds > 0:
            self.clock.advance(min(every, seconds))
            seconds -= every
            self.settle()

    def survive(self, crash):
        """Run until settled, with one crash that ``crash`` has set; tell whether it came."""
        crash()
        try:
            self.settle()
        except CrashError:
            self.check()
            self.kill()
            return True
        return False

    def check(self):
        """Assert what must hold at any instant."""
        used = self.node.used()
        assert used <= self.config.budget.limit, f"{used} bytes, over budget"
        visible = {digest for digest, one in self.node.here.items() if one.names}
        assert not visible & self.node.registry.unsigned, "an unverified model is visible"
        assert self.node.in_use <= self.node.here.keys(), "a mounted model was removed"

    @property
    def status(self):
        """What is shown of the only model, or of the first."""
        return self.statuses()[0]

    def statuses(self):
        return model_statuses(self.core, now=self.clock.now())

    def budget(self):
        return budget_status(self.core)

    def visible(self, reference=REFERENCE):
        """Return the digest that a pod would mount under a reference, None if there is none."""
        found = [digest for digest, one in self.node.here.items() if reference in one.names]
        assert len(found) <= 1
        return found[0] if found else None

    def command(self, name, *arguments, **more):
        """Ask what root may ask, durably."""
        said = getattr(commands, name)(self.core.memory, *arguments, **more)
        if not self.core.save():
            raise SpaceError(self.core.trouble)
        return said

    def rollback(self, name=REFERENCE):
        return self.command("rollback", name, steady=self.core.steady)


class _Gate:
    def __init__(self, registry):
        self._registry = registry

    def __call__(self, reference, manifest):
        self._registry.gate(reference, manifest)

    def taken(self):
        pass


def one_node(registry, *models, disk=10**6, clock=None, **options):
    """Return a node that should have some models, or the usual one."""
    node = MemoryNode(registry, disk=disk)
    return Sim(configuration(*(models or (model(),)), **options), node, clock or Clock())
