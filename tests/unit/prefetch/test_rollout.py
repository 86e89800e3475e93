"""Which version a node may have: waves by hash, soaking, holds and bounds."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.prefetch.config import Bounds, Rollout, Wave
from modelpack.prefetch.progress import DAY, Progress, Version
from modelpack.prefetch.rollout import choose, keeps_previous, position, turn
from tests.support.fleet import REFERENCE, model

OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
HAS_OLD = Progress(name=REFERENCE, reference=REFERENCE, adopted=OLD)
SEES_NEW = replace(HAS_OLD, candidate=NEW, candidate_seen=1000.0)
HOUR = 3600.0
WAVES = Rollout(waves=(Wave(percent=10, soak=HOUR), Wave(percent=50, soak=2 * HOUR)))


def pick(progress, *, options=None, steady=1000.0, bounds=None, node="n", size=None):
    return choose(
        options or model(),
        progress,
        node=node,
        steady=steady,
        bounds=bounds or Bounds(),
        candidate_bytes=size,
    )


def node_at(low, high):
    return next(
        f"node-{number}"
        for number in range(10_000)
        if low <= position(f"node-{number}", REFERENCE) < high
    )


def test_positions_are_what_they_have_always_been():
    """Nodes of different versions of modelpack must agree, so these figures may never change."""
    assert position("node-1", "model") == pytest.approx(43.346435)
    assert position("worker-3", REFERENCE) == pytest.approx(54.234508)
    assert position("ab", "c") != position("a", "bc")


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, unique=True, max_size=20), st.text())
@settings(max_examples=80, deadline=None)
def test_a_position_is_a_percentage(nodes, name):
    assert all(0 <= position(node, name) < 100 for node in nodes)


def test_positions_spread_over_a_fleet_and_over_models():
    places = [position(f"node-{number}", "m") for number in range(2000)]
    for percent in (5, 25, 50, 90):
        assert sum(place < percent for place in places) / 20 == pytest.approx(percent, abs=3)
    first = {n for n in range(2000) if position(f"node-{n}", "m") < 10}
    other = {n for n in range(2000) if position(f"node-{n}", "other") < 10}
    assert len(first & other) < 60


@pytest.mark.parametrize(
    ("low", "high", "number", "wait"),
    [(0, 10, 1, 0), (10, 50, 2, HOUR), (50, 100, 3, 3 * HOUR)],
)
def test_the_turn_of_a_node(low, high, number, wait):
    mine = turn(WAVES, node_at(low, high), REFERENCE)
    assert (mine.number, mine.count, mine.wait) == (number, 3, wait)


def test_a_last_wave_for_everybody_needs_no_other():
    waves = Rollout(waves=(Wave(percent=10, soak=HOUR), Wave(percent=100, soak=0)))
    assert turn(waves, node_at(90, 100), REFERENCE).count == 2
    assert turn(Rollout(), "n", "m").wait == 0


def test_nothing_is_named_yet():
    assert pick(Progress(name="a", reference="a")).target is None
    assert pick(HAS_OLD).target == OLD


def test_a_first_version_waits_for_no_wave():
    first = Progress(name="a", reference="a", candidate=NEW)
    assert pick(first, options=model(waves=[(0.001, HOUR)])).target == NEW


def test_a_node_of_a_later_wave_waits_for_the_soaking_of_earlier_ones():
    options = model(waves=[(10, HOUR), (50, 2 * HOUR)])
    node = node_at(50, 100)
    early = pick(SEES_NEW, options=options, node=node, steady=1000 + 3 * HOUR - 1)
    assert early.target == OLD
    assert early.wait == pytest.approx(1)
    assert early.reason.endswith("waits for wave 3 of 3, in 1s")
    assert pick(SEES_NEW, options=options, node=node, steady=1000 + 3 * HOUR).target == NEW


def test_a_clock_behind_the_first_sight_waits_all_of_it():
    options = model(waves=[(0.001, HOUR)])
    assert pick(SEES_NEW, options=options, steady=0.0).wait == HOUR


@pytest.mark.parametrize(
    ("progress", "options", "words"),
    [
        (replace(SEES_NEW, held=True), model(), "held by request"),
        (SEES_NEW, model(hold=True), "held by the configuration"),
        (replace(SEES_NEW, turned_away=frozenset({NEW})), model(), "was rolled back from"),
    ],
    ids=["asked", "configured", "rolled-back"],
)
def test_what_keeps_a_node_with_its_version(progress, options, words):
    found = pick(progress, options=options)
    assert (found.target, found.refused) == (OLD, False)
    assert words in found.reason


def test_a_candidate_that_is_too_large_is_refused_even_first():
    bounds = Bounds(model_size=100)
    assert pick(SEES_NEW, bounds=bounds, size=101).refused
    assert pick(SEES_NEW, bounds=bounds, size=101).target == OLD
    assert pick(replace(SEES_NEW, adopted=None), bounds=bounds, size=101).target is None
    assert pick(SEES_NEW, bounds=bounds, size=100).target == NEW


def test_updates_of_the_last_day_are_bounded():
    busy = replace(SEES_NEW, adoptions=(100.0, 500.0, 900.0))
    found = pick(busy, bounds=Bounds(updates_per_day=3))
    assert found.target == OLD
    assert found.wait == pytest.approx(100 + DAY - 1000)
    assert pick(busy, bounds=Bounds(updates_per_day=4)).target == NEW
    assert pick(busy, bounds=Bounds(updates_per_day=3), steady=101 + DAY).target == NEW
    assert pick(SEES_NEW, bounds=Bounds(updates_per_day=0)).target == OLD


def version(digest, *, used=None, ready=0.0):
    return Version(digest=digest, bytes=1, ready_at=0, ready_steady=ready, used_steady=used)


BOTH = Progress(
    name="a", reference="a", adopted=NEW, previous=OLD, versions=(version(OLD), version(NEW))
)


@pytest.mark.parametrize(
    ("progress", "steady", "stays"),
    [
        (BOTH, 10, True),
        (BOTH, HOUR, False),
        (BOTH.with_version(version(NEW, used=5.0)), 10, False),
        (replace(BOTH, damaged=NEW), 10 * HOUR, True),
        (BOTH.without_version(NEW), 10 * HOUR, True),
        (replace(BOTH, turned_away=frozenset({OLD})), 10, False),
        (replace(BOTH, previous=None), 10, False),
    ],
    ids=["fresh", "grace-over", "used", "damaged", "not-here", "turned-away", "none"],
)
def test_the_version_before_stays_until_the_new_one_has_proved_itself(progress, steady, stays):
    assert keeps_previous(model(keep=HOUR), progress, steady) is stays
