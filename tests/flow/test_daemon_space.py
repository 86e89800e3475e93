"""A disk that has not room for everything: what goes, what stays, who comes first.

Promise 3: the budget is never exceeded, and nothing mounted is ever evicted.
"""

import pytest

from modelpack.errors import SpaceError
from modelpack.prefetch.config import Budget
from modelpack.prefetch.performing import perform
from modelpack.prefetch.status import Stage
from tests.support.fleet import REFERENCE, model, one_node
from tests.support.memorynode import Registry

HOUR = 3600.0
V1, V2, V3 = {"base": 60, "one": 10}, {"base": 60, "two": 10}, {"base": 60, "three": 10}


@pytest.fixture
def registry():
    found = Registry()
    found.push(REFERENCE, V1)
    return found


def test_what_does_not_fit_says_by_how_much_and_frees_nothing(registry):
    old = "registry.example/team/old:v1"
    registry.push(old, {"o": 50})
    sim = one_node(registry, model(old), limit=100)
    sim.settle()
    huge = "registry.example/team/huge:v1"
    registry.push(huge, {"h": 101})
    sim.configure(model(huge))
    sim.run(HOUR)
    assert sim.statuses()[0].stage == Stage.INSUFFICIENT_SPACE
    assert "needs 101 B more" in sim.statuses()[0].reason
    assert "100 B" in sim.statuses()[0].reason
    assert sim.visible(old) is not None
    assert not [call for call in sim.node.calls if call[0] == "install" and call[1] == huge]


def test_what_is_not_wanted_goes_first_and_only_when_needed(registry):
    names = [f"registry.example/team/m{number}:v1" for number in range(3)]
    for number, name in enumerate(names):
        registry.push(name, {f"p{number}": 40})
    sim = one_node(registry, model(names[0]), model(names[1]), limit=100)
    sim.settle()
    sim.configure(model(names[1]))
    sim.run(HOUR)
    assert sim.visible(names[0]) is not None
    sim.configure(model(names[1]), model(names[2]))
    sim.settle()
    assert sim.visible(names[0]) is None
    assert sim.visible(names[1]) is not None
    assert sim.visible(names[2]) is not None
    assert sim.core.memory.totals.evictions == 1
    assert sim.core.memory.totals.evicted_bytes == 40


def test_what_is_mounted_stays_and_the_newcomer_waits(registry):
    first, second = "registry.example/a:v1", "registry.example/b:v1"
    registry.push(first, {"a": 60})
    registry.push(second, {"b": 60})
    sim = one_node(registry, model(first), limit=100)
    sim.settle()
    sim.node.in_use.add(sim.visible(first))
    sim.configure(model(second))
    sim.run(HOUR)
    assert sim.visible(first) is not None
    assert sim.statuses()[0].stage == Stage.INSUFFICIENT_SPACE
    sim.node.in_use.clear()
    sim.run(60)
    assert sim.visible(first) is None
    assert sim.visible(second) is not None


def test_what_an_operator_pinned_is_not_evicted(registry):
    first, second = "registry.example/a:v1", "registry.example/b:v1"
    registry.push(first, {"a": 60})
    registry.push(second, {"b": 60})
    sim = one_node(registry, model(first), limit=100)
    sim.settle()
    sim.configure(models=())
    sim.settle()
    digest = sim.visible(first)
    assert not sim.node.here[digest].pinned
    sim.node.here[digest].pinned = True
    sim.configure(model(second))
    sim.run(600)
    assert sim.visible(first) == digest
    sim.node.here[digest].pinned = False
    sim.run(600)
    assert sim.visible(second) is not None


def test_above_the_high_watermark_what_is_not_wanted_goes_down_to_the_low_one(registry):
    names = [f"registry.example/m{number}:v1" for number in range(10)]
    for number, name in enumerate(names):
        registry.push(name, {f"p{number}": 9})
    sim = one_node(registry, *map(model, names), limit=100)
    sim.settle()
    for name in names:  # the first was used longest ago
        sim.node.in_use = {sim.visible(name)}
        sim.run(60, every=10)
    sim.node.in_use = set()
    sim.configure(model(names[9]), budget=Budget(limit=100, high=80, low=50))
    sim.run(60)
    assert [sim.visible(name) is not None for name in names] == [False] * 5 + [True] * 5


def test_a_full_disk_is_no_tight_loop(registry):
    sim = one_node(registry, disk=1000)
    sim.node.faults["install"] = SpaceError("the disk is full")
    sim.run(5 * HOUR, every=60)
    installs = [call for call in sim.node.calls if call[0] == "install"]
    assert len(installs) == 1
    assert sim.status.stage == Stage.INSUFFICIENT_SPACE
    assert "when the disk has more space" in sim.status.reason
    sim.node.disk += 10**9
    sim.run(600)
    assert sim.visible() is not None


def test_a_disk_that_others_fill_is_insufficient_space(registry):
    sim = one_node(registry, disk=50)
    sim.run(HOUR)
    assert sim.status.stage == Stage.INSUFFICIENT_SPACE
    assert "the disk has 50 B left" in sim.status.reason
    assert not [call for call in sim.node.calls if call[0] == "install"]
    sim.node.disk = 500
    sim.run(60)
    assert sim.visible() is not None


def test_models_that_others_brought_are_not_ours_to_evict(registry):
    foreign = registry.push("registry.example/foreign:v1", {"f": 500})
    sim = one_node(registry, limit=100)
    sim.node.install(
        "registry.example/foreign:v1", foreign, gate=None, limiter=None, observer=lambda _: None
    )
    sim.check = lambda: None  # the budget is for ours
    sim.run(HOUR)
    assert foreign in sim.node.here
    assert sim.visible() is not None
    assert sim.budget().used == 70


def test_a_more_urgent_model_that_is_looked_up_later_gets_its_room(registry):
    urgent = "registry.example/urgent:v1"
    registry.push(urgent, {"u": 80})
    sim = one_node(registry, model(), model(urgent, priority=5), limit=100)
    late = []
    # The look-up of the urgent one takes a while, in which the other is ready to begin.
    for _ in range(20):
        for job in sim.core.advance():
            if getattr(job.task, "name", "") == urgent and not late:
                late.append(job)
                continue
            sim.core.finish(job, perform(job.task, sim.tools(), job.transfer))
        sim.clock.advance(0.1)
    assert sim.visible() is None
    assert sim.statuses()[1].reason == "waits until more urgent models are looked up"
    sim.core.finish(late[0], perform(late[0].task, sim.tools(), late[0].transfer))
    sim.settle()
    assert sim.visible(urgent) is not None
    assert sim.statuses()[1].stage == Stage.INSUFFICIENT_SPACE


def test_a_look_up_that_hangs_does_not_hold_less_urgent_models_for_long(registry):
    urgent = "registry.example/urgent:v1"
    sim = one_node(registry, model(), model(urgent, priority=5))
    for _ in range(40):
        for job in sim.core.advance():
            if getattr(job.task, "name", "") != urgent:
                sim.core.finish(job, perform(job.task, sim.tools(), job.transfer))
        sim.clock.advance(0.5)
    assert sim.visible() is not None


def test_a_more_urgent_model_takes_the_place_of_what_only_began(registry):
    urgent = "registry.example/urgent:v1"
    registry.push(urgent, {"u": 80})
    sim = one_node(registry, limit=100)
    registry_down_after(sim, pieces=2)
    assert sim.node.begun
    sim.configure(model(), model(urgent, priority=5))
    registry.is_down = False
    sim.settle()
    assert sim.visible(urgent) is not None
    sim.run(60)
    assert sim.statuses()[1].stage == Stage.INSUFFICIENT_SPACE


def registry_down_after(sim, pieces):
    """Have the registry vanish in the middle of the transfer that comes next."""
    original = sim.node._step

    def step(name):
        nonlocal pieces
        if name == "piece":
            pieces -= 1
            sim.node.registry.is_down = pieces <= 0
        original(name)

    sim.node._step = step
    sim.settle()
    sim.node._step = original


def test_what_vanishes_before_it_gets_a_second_name_is_not_fetched_unpromised(registry):
    """It was here when the plan was made, so nothing was promised to it."""
    second = "registry.example/team/second:v1"
    registry.push(second, V1)
    sim = one_node(registry, model(REFERENCE), limit=100)
    sim.settle()
    usual, unpromised = sim.node.install, []

    def install(reference, digest, **options):
        if not options["fetches"]:
            sim.node.here.clear()
            before = sim.node.used()
            try:
                return usual(reference, digest, **options)
            finally:
                unpromised.append(sim.node.used() - before)
        return usual(reference, digest, **options)

    sim.node.install = install
    sim.configure(model(REFERENCE), model(second))
    sim.step()
    sim.step()
    assert unpromised == [0]
    sim.node.install = usual
    sim.settle()
    assert sim.visible(REFERENCE) == sim.visible(second) is not None
    assert not any(status.reason for status in sim.statuses())
