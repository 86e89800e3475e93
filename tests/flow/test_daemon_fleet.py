"""One simulated node: models come, go wrong, are repaired, and one's trouble is no other's.

Promise 4: what goes wrong is reported, and tried again with growing pauses; it stops nothing else.
"""

import pytest

from modelpack.errors import NetworkError, NotFoundError
from modelpack.prefetch.config import Bounds, Scrub
from modelpack.prefetch.labels import Selector
from modelpack.prefetch.status import Stage
from modelpack.prefetch.windows import Window
from tests.support.fleet import REFERENCE, Clock, model, one_node
from tests.support.memorynode import Registry

HOUR = 3600.0
V1, V2, V3 = {"base": 60, "one": 10}, {"base": 60, "two": 10}, {"base": 60, "three": 10}


@pytest.fixture
def registry():
    found = Registry()
    found.push(REFERENCE, V1)
    return found


def test_a_model_comes_to_an_empty_node(registry):
    sim = one_node(registry)
    assert sim.status.stage == Stage.PENDING
    sim.settle()
    assert sim.visible() == registry.tags[REFERENCE]
    assert sim.node.here[sim.visible()].pinned
    status = sim.status
    assert (status.stage, status.bytes, status.fetched_bytes) == (Stage.READY, 70, 70)
    assert status.digest == str(sim.visible())
    assert status.used_at is None
    assert sim.core.memory.totals.imports == 1
    assert sim.core.memory.reservations == {}
    sim.kill()
    sim.settle()
    assert sim.status.fetched_bytes == 70
    assert set(sim.status.timings) >= {"Resolving", "Downloading"}


def test_nothing_is_done_twice_when_nothing_changes(registry):
    sim = one_node(registry)
    sim.settle()
    sim.node.calls.clear()
    sim.run(HOUR)
    assert {call[0] for call in sim.node.calls} == {"check", "models", "mounted", "resolve"}
    resolves = [call for call in sim.node.calls if call[0] == "resolve"]
    assert len(resolves) == pytest.approx(12, abs=2)


def test_a_model_that_is_too_large_is_refused(registry):
    sim = one_node(registry, bounds=Bounds(model_size=75))
    sim.settle()
    first = sim.visible()
    registry.push(REFERENCE, {"base": 60, "huge": 40})
    sim.run(600)
    assert sim.visible() == first
    assert sim.status.stage == Stage.REFUSED
    assert "bounds.modelSize is 75 B" in sim.status.reason


def test_a_selector_decides_whether_a_node_has_a_model(registry):
    sim = one_node(registry, model(selector=Selector(labels={"gpu": "h100"})))
    sim.settle()
    assert sim.statuses() == ()
    assert sim.visible() is None


@pytest.mark.parametrize("kind", ["space", "network", "policy"])
def test_one_failing_model_never_stops_others(registry, kind):
    other = "registry.example/team/other:v1"
    registry.push(other, {"o": 20})
    broken = "registry.example/team/broken:v1"
    if kind == "policy":
        registry.push(broken, {"b": 5}, signed=False)
    elif kind == "space":
        registry.push(broken, {"b": 5000})
    sim = one_node(registry, model(broken, priority=100), model(), model(other))
    sim.run(HOUR)
    assert sim.visible()
    assert sim.visible(other)
    stage = {"space": Stage.INSUFFICIENT_SPACE, "policy": Stage.REFUSED, "network": Stage.FAILED}
    assert sim.status.stage == stage[kind]
    assert sim.status.reason


def test_a_registry_that_vanishes_is_waited_for_with_growing_pauses(registry):
    sim = one_node(registry)
    registry.is_down = True
    sim.run(HOUR, every=5)
    tries = [call for call in sim.node.calls if call[0] == "resolve"]
    assert 6 <= len(tries) <= 25
    assert sim.status.stage == Stage.FAILED
    assert "does not answer" in sim.status.reason
    assert sim.status.next_attempt is not None
    assert sim.status.attempts == len(tries)
    registry.is_down = False
    sim.run(700)
    assert sim.visible() is not None
    assert sim.status.attempts == 0


def test_a_ready_model_stays_ready_while_the_registry_is_away(registry):
    sim = one_node(registry)
    sim.settle()
    registry.is_down = True
    sim.run(HOUR)
    assert sim.status.stage == Stage.READY
    assert sim.status.digest
    assert "does not answer" in sim.status.reason


def test_an_interrupted_transfer_goes_on_where_it_was(registry):
    sim = one_node(registry)
    sim.node.faults["install"] = NetworkError("reset")
    sim.settle()
    sim.run(60)
    assert sim.core.memory.totals.fetched_bytes == 70
    assert sim.core.memory.totals.failures == {"network": 1}


def test_a_runtime_that_is_away_is_waited_for(registry):
    sim = one_node(registry)
    sim.node.is_down = True
    sim.run(600)
    assert "waits for the runtime" in sim.status.reason
    sim.node.is_down = False
    sim.run(60)
    assert sim.visible() is not None


def test_a_window_holds_transfers_back_and_ends_them(registry):
    clock = Clock(wall=12 * HOUR)
    sim = one_node(registry, model(windows=(Window(start=22 * 60, end=23 * 60),)), clock=clock)
    sim.run(HOUR)
    assert sim.visible() is None
    assert sim.status.stage == Stage.PENDING
    assert "waits for its window, which opens in 8h 59m" in sim.status.reason
    sim.run(9.1 * HOUR, every=600)
    assert sim.visible() is not None


def test_a_damaged_version_is_quarantined_and_repaired(registry):
    sim = one_node(registry, scrub=Scrub(every=24 * HOUR))
    sim.settle()
    digest = sim.visible()
    sim.run(25 * HOUR, every=600)
    assert len([call for call in sim.node.calls if call[0] == "scrub"]) == 1
    sim.node.damaged[digest] = "model.safetensors"
    sim.run(25 * HOUR, every=600)
    totals = sim.core.memory.totals
    assert (totals.damaged, totals.repaired) == (1, 1)
    assert sim.visible() == digest
    assert sim.status.stage == Stage.READY


def test_damage_that_cannot_be_repaired_now_is_not_visible(registry):
    sim = one_node(registry)
    sim.settle()
    sim.node.damaged[sim.visible()] = "a"
    registry.is_down = True
    sim.command("scrub", REFERENCE)
    sim.run(600)
    assert sim.visible() is None
    assert sim.status.digest is None
    assert sim.status.stage == Stage.FAILED
    registry.is_down = False
    sim.run(700)
    assert sim.visible() is not None


def test_a_model_that_others_removed_comes_back(registry):
    sim = one_node(registry)
    sim.settle()
    registry_now = registry.push(REFERENCE, V2)
    sim.command("hold", REFERENCE)
    held = sim.visible()
    del sim.node.here[held]
    sim.run(60)
    assert sim.visible() == held != registry_now


def test_use_is_counted_once_a_model(registry):
    sim = one_node(registry)
    sim.settle()
    sim.node.in_use.add(sim.visible())
    sim.run(60)
    assert sim.status.mounted
    assert sim.status.used_at == pytest.approx(sim.clock.now(), abs=61)
    sim.node.in_use.clear()
    sim.run(60)
    sim.node.in_use.add(sim.visible())
    sim.run(60)
    assert sim.core.memory.totals.used_models == 1


def test_a_bad_look_up_of_an_unknown_model(registry):
    sim = one_node(registry, model("registry.example/none:v1"))
    sim.settle()
    assert sim.status.stage == Stage.FAILED
    with pytest.raises(NotFoundError, match="no model is called 'x'"):
        sim.command("hold", "x")


def test_a_state_that_cannot_be_kept_begins_nothing(registry):
    sim = one_node(registry)
    sim.keeper.is_full = True
    sim.run(60)
    assert sim.visible() is None
    assert sim.core.trouble
    sim.keeper.is_full = False
    sim.run(60)
    assert sim.visible() is not None
