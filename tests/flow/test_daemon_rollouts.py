"""A tag that moves is a deployment to the whole fleet: waves, soaking, holds, rolling back, keeping.

Nodes are simulated, with a clock that the tests turn; see ``tests/support/fleet.py``.
"""

import pytest

from modelpack.digest import Digest
from modelpack.errors import UsageError
from modelpack.prefetch.config import Bounds
from modelpack.prefetch.rollout import position
from modelpack.prefetch.status import Stage
from tests.support.fleet import REFERENCE, Clock, Sim, configuration, model, one_node
from tests.support.memorynode import MemoryNode, Registry

HOUR = 3600.0
V1, V2, V3 = {"base": 60, "one": 10}, {"base": 60, "two": 10}, {"base": 60, "three": 10}


@pytest.fixture
def registry():
    found = Registry()
    found.push(REFERENCE, V1)
    return found


def test_a_tag_that_moves_is_followed_and_the_version_before_stays(registry):
    sim = one_node(registry)
    sim.settle()
    first = sim.visible()
    second = registry.push(REFERENCE, V2)
    sim.run(400)
    assert sim.visible() == second
    assert sim.node.here[first].pinned
    assert sim.status.digest == str(second)


def fleet(registry, count, **options):
    clock = Clock()
    return clock, [
        Sim(
            configuration(model(**options), node=f"node-{number}"),
            MemoryNode(registry),
            clock,
            seed=number,
        )
        for number in range(count)
    ]


def run_fleet(clock, sims, seconds, every=60.0):
    while seconds > 0:
        clock.advance(every)
        seconds -= every
        for sim in sims:
            sim.settle()


def test_a_new_version_comes_in_waves(registry):
    waves = [(10, HOUR), (50, 2 * HOUR)]
    clock, sims = fleet(registry, 40, waves=waves)
    run_fleet(clock, sims, 60)
    assert {sim.visible() for sim in sims} == {registry.tags[REFERENCE]}
    second = registry.push(REFERENCE, V2)

    def adopters():
        return {sim.config.identity.name for sim in sims if sim.visible() == second}

    places = {
        sim.config.identity.name: position(sim.config.identity.name, REFERENCE) for sim in sims
    }
    run_fleet(clock, sims, 400)
    assert adopters() == {name for name, place in places.items() if place < 10}
    run_fleet(clock, sims, HOUR)
    assert adopters() == {name for name, place in places.items() if place < 50}
    waiting = next(sim for sim in sims if places[sim.config.identity.name] >= 50)
    assert waiting.status.stage == Stage.READY
    assert waiting.status.candidate == str(second)
    assert "waits for wave 3 of 3" in waiting.status.reason
    run_fleet(clock, sims, HOUR)
    assert len(adopters()) < 40
    run_fleet(clock, sims, HOUR)
    assert len(adopters()) == 40


def late_node(registry, **options):
    """A node that is in the last wave."""
    name = next(
        f"late-{number}" for number in range(1000) if position(f"late-{number}", REFERENCE) > 90
    )
    sim = one_node(registry, model(waves=[(50, 4 * HOUR)]), node=name, **options)
    sim.settle()
    return sim


def test_a_clock_that_jumps_skips_no_wave(registry):
    sim = late_node(registry)
    first = sim.visible()
    second = registry.push(REFERENCE, V2)
    sim.run(HOUR)
    sim.clock.wall += 30 * 86400
    sim.run(HOUR)
    assert sim.visible() == first
    sim.clock.wall -= 60 * 86400
    sim.run(2 * HOUR + 600)
    assert sim.visible() == second


def test_time_without_a_daemon_does_not_count_as_soaking(registry):
    sim = late_node(registry)
    first = sim.visible()
    second = registry.push(REFERENCE, V2)
    sim.run(HOUR)
    sim.clock.advance(10 * HOUR)
    down = sim.keeper.load().steady
    sim.kill()
    assert sim.core.steady == pytest.approx(down)
    sim.run(HOUR)
    assert sim.visible() == first
    sim.run(3 * HOUR)
    assert sim.visible() == second


def test_a_tag_that_moves_again_begins_its_soaking_anew(registry):
    sim = late_node(registry)
    first = sim.visible()
    registry.push(REFERENCE, V2)
    sim.run(3 * HOUR)
    third = registry.push(REFERENCE, V3)
    sim.run(3 * HOUR)
    assert sim.visible() == first
    sim.run(2 * HOUR)
    assert sim.visible() == third


def test_a_tag_that_is_moved_back_stops_the_rollout(registry):
    sim = late_node(registry)
    first = sim.visible()
    registry.push(REFERENCE, V2)
    sim.run(HOUR)
    registry.push(REFERENCE, V1)
    sim.run(10 * HOUR)
    assert sim.visible() == first
    assert sim.status.candidate is None


def test_a_version_that_the_policy_refuses_never_becomes_a_candidate(registry):
    sim = one_node(registry)
    sim.settle()
    first = sim.visible()
    bad = registry.push(REFERENCE, V2, signed=False)
    sim.run(2 * HOUR)
    assert sim.visible() == first
    assert bad not in sim.node.begun
    assert sim.status.stage == Stage.REFUSED
    assert sim.status.digest == str(first)
    assert "no signature" in sim.status.reason
    registry.unsigned.clear()
    sim.run(2 * HOUR)
    assert sim.visible() == bad


def test_hold_keeps_a_version_until_release(registry):
    sim = one_node(registry)
    sim.settle()
    first = sim.visible()
    assert "is held at sha256:" in sim.command("hold", REFERENCE)
    second = registry.push(REFERENCE, V2)
    sim.kill()
    sim.run(2 * HOUR)
    assert sim.visible() == first
    assert sim.status.held
    sim.command("release", REFERENCE)
    sim.settle()
    assert sim.visible() == second


def test_rollback_never_adopts_again_what_it_turned_away(registry):
    sim = one_node(registry)
    sim.settle()
    first = sim.visible()
    second = registry.push(REFERENCE, V2)
    sim.run(600)
    assert sim.visible() == second
    assert "goes back to" in sim.rollback()
    sim.settle()
    assert sim.visible() == first
    sim.kill()
    sim.run(48 * HOUR, every=600)
    assert sim.visible() == first
    assert "rolled back from" in sim.status.reason
    with pytest.raises(UsageError, match="no earlier version"):
        sim.rollback()
    sim.command("release", REFERENCE)
    sim.run(600)
    assert sim.visible() == second


def test_rollback_soon_after_the_first_version_came_takes_the_name_along(registry):
    sim = one_node(registry)
    sim.settle()
    first = sim.visible()
    registry.push(REFERENCE, V2)
    sim.command("refresh", REFERENCE)
    sim.settle()
    assert sim.visible() == registry.tags[REFERENCE]
    sim.rollback()
    sim.settle()
    assert sim.visible() == first
    assert sim.status.digest == str(first)


def test_a_name_that_others_move_is_moved_back_now_and_then(registry):
    sim = one_node(registry)
    sim.settle()
    first = sim.visible()
    second = registry.push("registry.example/side:v1", V2)
    sim.node.calls.clear()
    for _ in range(60):
        sim.node.install(REFERENCE, second, gate=None, limiter=None, observer=lambda _: None)
        sim.run(30)
    assert sim.status.digest == str(first)
    ours = [call for call in sim.node.calls if call[0] == "install" and call[2] == first]
    assert 3 <= len(ours) <= 7
    sim.run(400)
    assert sim.visible() == first


def test_rollback_fetches_nothing(registry):
    sim = one_node(registry)
    sim.settle()
    registry.push(REFERENCE, V2)
    sim.run(600)
    before = sim.core.memory.totals.fetched_bytes
    sim.rollback()
    sim.settle()
    assert sim.core.memory.totals.fetched_bytes == before


def test_only_so_many_updates_a_day(registry):
    sim = one_node(registry, bounds=Bounds(updates_per_day=2))
    sim.settle()
    seen = [sim.visible()]
    for number in range(6):
        registry.push(REFERENCE, {"base": 60, f"x{number}": 10})
        sim.run(600)
        if sim.visible() != seen[-1]:
            seen.append(sim.visible())
    assert len(seen) == 3
    assert "bounds.updatesPerDay, 2, is reached" in sim.status.reason
    sim.run(25 * HOUR, every=600)
    assert sim.visible() == registry.tags[REFERENCE]


def test_the_last_good_version_stays_until_the_new_one_was_used(registry):
    sim = one_node(registry, model(keep=HOUR), limit=150)
    sim.settle()
    first = sim.visible()
    second = registry.push(REFERENCE, V2)
    sim.run(600)
    assert sim.visible() == second
    other = "registry.example/other:v1"
    registry.push(other, {"o": 75})
    sim.configure(model(keep=HOUR), model(other))
    sim.run(600)
    assert sim.statuses()[1].stage == Stage.INSUFFICIENT_SPACE
    assert first in sim.node.here
    sim.node.in_use.add(second)
    sim.run(60)
    assert first not in sim.node.here
    assert sim.visible(other) is not None


def test_the_last_good_version_may_go_after_a_grace_time(registry):
    sim = one_node(registry, model(keep=HOUR), limit=150)
    sim.settle()
    first = sim.visible()
    registry.push(REFERENCE, V2)
    other = "registry.example/other:v1"
    registry.push(other, {"o": 75})
    sim.run(600)
    sim.configure(model(keep=HOUR), model(other))
    sim.run(1800)
    assert first in sim.node.here
    sim.run(HOUR)
    assert first not in sim.node.here


def test_a_version_that_is_nowhere_any_more_is_given_up_for_the_tag(registry):
    sim = one_node(registry, model(waves=[(0.0001, 100 * HOUR)]))
    sim.settle()
    first = sim.visible()
    second = registry.push(REFERENCE, V2)
    sim.run(600)
    assert sim.visible() == first
    del registry.models[first], sim.node.here[first]
    sim.run(HOUR)
    assert sim.visible() == second


def test_a_lost_state_does_not_skip_a_wave(registry):
    sim = late_node(registry)
    first = sim.visible()
    registry.push(REFERENCE, V2)
    sim.keeper.text = None
    sim.kill()
    sim.run(HOUR)
    assert sim.visible() == first
    assert isinstance(first, Digest)
