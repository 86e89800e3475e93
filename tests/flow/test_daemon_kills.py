"""A daemon that is killed between any two steps goes on by itself, and keeps its promises meanwhile.

Promise 2: kill -9 or power loss at any instant needs no manual step. Every scenario is run once for
each step at which it can be killed: each call of the node, each piece that arrives, before and after
each write of the state.
"""

import pytest

from modelpack.prefetch.config import Budget
from tests.support.fleet import REFERENCE, Clock, MemoryKeeper, Sim, configuration, model
from tests.support.memorynode import CrashError, MemoryNode, Registry

V1, V2 = {"base": 60, "one": 10}, {"base": 60, "two": 10}
OTHER = "registry.example/other:v1"
# More than any scenario has; the loop ends when a run was not killed any more.
MAX_STEPS = 400


def first_delivery(sim, registry):
    del sim, registry


def upgrade(sim, registry):
    registry.push(REFERENCE, V2)
    sim.clock.advance(400)


def replacement(sim, registry):
    """Room has to be made for the model that is wanted now."""
    registry.push(OTHER, {"o": 120})
    sim.configure(model(OTHER), budget=Budget(limit=150, high=150, low=150))


def rollback(sim, registry):
    upgrade(sim, registry)
    sim.settle()
    sim.rollback()


def repair(sim, registry):
    del registry
    sim.node.damaged[sim.visible()] = "model.safetensors"
    sim.command("scrub", REFERENCE)


def change_of_mind(sim, registry):
    """What was begun is not wanted any more when the daemon is back."""
    registry.push(OTHER, {"o": 20})
    sim.configure(model(OTHER))


SCENARIOS = {
    "first": (None, first_delivery),
    "upgrade": (first_delivery, upgrade),
    "replacement": (first_delivery, replacement),
    "rollback": (first_delivery, rollback),
    "repair": (first_delivery, repair),
    "change-of-mind": (None, change_of_mind),
}


def build(scenario):
    registry = Registry()
    registry.push(REFERENCE, V1)
    sim = Sim(configuration(model()), MemoryNode(registry), Clock())
    before, change = SCENARIOS[scenario]
    if before is not None:
        sim.settle()
    change(sim, registry)
    return sim


def expected(scenario):
    sim = build(scenario)
    sim.settle()
    sim.run(400)
    return outcome(sim)


def outcome(sim):
    """What must be the same with and without a kill."""
    return (
        sim.visible(),
        sim.visible(OTHER),
        sim.core.memory.progress[sim.config.models[0].name].turned_away,
        sim.core.memory.progress[sim.config.models[0].name].held,
        sorted(
            (str(digest), one.pinned, sorted(one.names)) for digest, one in sim.node.here.items()
        ),
    )


def assert_clean(sim):
    assert sim.node.begun == {}
    assert sim.core.memory.reservations == {}
    assert sim.keeper.load().reservations == {}


@pytest.mark.parametrize("where", ["node", "state"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_at_any_step_needs_no_manual_step(scenario, where):
    wanted = expected(scenario)
    for step in range(1, MAX_STEPS):
        sim = build(scenario)
        place = sim.node if where == "node" else sim.keeper
        place.crash_at = step
        try:
            sim.settle()
        except CrashError:
            sim.check()
            sim.kill()
        else:
            place.crash_at = None
            assert step > 3
            return
        sim.settle()
        sim.run(400)
        assert outcome(sim) == wanted, f"killed at step {step}"
        assert_clean(sim)
    pytest.fail("the scenario never ends")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_kills_are_no_worse_than_one(scenario):
    wanted = expected(scenario)
    for first in range(1, 30, 4):
        sim = build(scenario)
        for second in (first, 3, 7):
            sim.survive(lambda sim=sim, second=second: setattr(sim.node, "crash_at", second))
        sim.node.crash_at = None
        sim.settle()
        sim.run(400)
        assert outcome(sim) == wanted
        assert_clean(sim)


def test_disk_is_promised_durably_before_a_byte_arrives():
    registry = Registry()
    registry.push(REFERENCE, V1)
    sim = Sim(configuration(model()), MemoryNode(registry), Clock())
    promised = []
    original = sim.node._step

    def step(name):
        if name == "piece":
            promised.append(sim.keeper.load().reservations)
        original(name)

    sim.node._step = step
    sim.settle()
    digest = registry.tags[REFERENCE]
    assert promised
    assert all(one[digest].bytes == 70 for one in promised)


def test_what_was_fetched_before_a_kill_is_not_fetched_again():
    registry = Registry()
    registry.push(REFERENCE, {"a": 100})
    sim = Sim(configuration(model()), MemoryNode(registry), Clock())
    original = sim.node._step
    pieces = []

    def step(name):
        if name == "piece":
            pieces.append(name)
            if len(pieces) == 3:
                raise CrashError(name)
        original(name)

    sim.node._step = step
    with pytest.raises(CrashError):
        sim.settle()
    sim.kill()
    sim.settle()
    assert sim.visible() == registry.tags[REFERENCE]
    assert len(pieces) == 4


def test_a_state_that_was_lost_costs_no_download():
    registry = Registry()
    registry.push(REFERENCE, V1)
    sim = Sim(configuration(model()), MemoryNode(registry), Clock())
    sim.settle()
    sim.keeper = MemoryKeeper()
    sim.kill()
    sim.settle()
    assert sim.status.digest == str(registry.tags[REFERENCE])
    assert sim.core.memory.totals.fetched_bytes == 0
