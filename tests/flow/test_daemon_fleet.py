"""A fleet of simulated nodes: what a tag that moves does to it, and what faults and kills do not.

The promises are those of the daemon's design: nothing unverified is visible, a kill at any instant
needs no manual step, the budget holds, one model's trouble is no other's.
"""

import pytest

from modelpack.digest import Digest
from modelpack.errors import NetworkError, NotFoundError, SpaceError, UsageError
from modelpack.prefetch.config import Bounds, Budget, Scrub
from modelpack.prefetch.labels import Selector
from modelpack.prefetch.performing import perform
from modelpack.prefetch.rollout import position
from modelpack.prefetch.status import Stage
from modelpack.prefetch.windows import Window
from tests.support.fleet import REFERENCE, Clock, Sim, configuration, model
from tests.support.memorynode import MemoryNode, Registry

HOUR = 3600.0
V1, V2, V3 = {"base": 60, "one": 10}, {"base": 60, "two": 10}, {"base": 60, "three": 10}


@pytest.fixture
def registry():
    found = Registry()
    found.push(REFERENCE, V1)
    return found


def one_node(registry, *models, disk=10**6, clock=None, **options):
    node = MemoryNode(registry, disk=disk)
    return Sim(configuration(*(models or (model(),)), **options), node, clock or Clock())


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


def test_a_lost_state_does_not_skip_a_wave(registry):
    sim = late_node(registry)
    first = sim.visible()
    registry.push(REFERENCE, V2)
    sim.keeper.text = None
    sim.kill()
    sim.run(HOUR)
    assert sim.visible() == first
    assert isinstance(first, Digest)
