"""The budget: what fits, what goes, and that nothing goes that is protected or need not."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.prefetch.budget import Holding, Ledger, make_room, needed, relieve
from modelpack.prefetch.node import Part


def digest(name):
    return Digest.of(str(name).encode())


def holding(name, *sizes, wanted=False, protected=False, last_use=0.0, shared=()):
    parts = [Part(key=f"{name}-{number}", bytes=size) for number, size in enumerate(sizes)]
    return Holding(
        digest=digest(name),
        parts=(*parts, *shared),
        wanted=wanted,
        protected=protected,
        last_use=last_use,
    )


def ledger(*holdings, limit=100, high=100, low=100, free=10**6, **more):
    return Ledger(limit=limit, high=high, low=low, free=free, holdings=holdings, **more)


BASE = Part(key="base", bytes=40)


def test_what_is_shared_counts_once():
    both = ledger(holding("a", 10, shared=(BASE,)), holding("b", 20, shared=(BASE,)))
    assert both.used == 70
    assert both.without([digest("a")]).used == 60
    assert both.without([digest("a"), digest("b")]).used == 0


def test_what_others_have_too_is_not_freed():
    mine = ledger(holding("a", 10, shared=(BASE,)), foreign=frozenset({"base"}), free=5)
    assert mine.without([digest("a")]).free == 15


def test_a_reservation_counts_until_it_is_written():
    promised = ledger(
        holding("a", 30, protected=True), reservations={digest("b"): 50}, unfinished=20
    )
    assert promised.committed == 80
    assert promised.room == 20
    assert not make_room(promised, 21).fits


def test_the_disk_bounds_too():
    tight = ledger(holding("a", 30), free=20, min_free=5)
    assert tight.room == 15
    assert ledger(free=20, reservations={digest("b"): 15}).room == 5
    assert ledger(free=20, reservations={digest("b"): 15}, unfinished=15).room == 20


def test_what_is_not_wanted_goes_before_older_versions_of_what_is():
    found = make_room(
        ledger(
            holding("old", 50, wanted=True, last_use=1),
            holding("unwanted", 50, last_use=9),
        ),
        50,
    )
    assert found.evict == (digest("unwanted"),)


def test_what_was_used_longest_ago_goes_first():
    found = make_room(ledger(holding("a", 50, last_use=2), holding("b", 50, last_use=1)), 30)
    assert found.evict == (digest("b"),)


def test_what_would_not_help_is_spared():
    found = make_room(ledger(holding("a", 10, last_use=1), holding("b", 90, last_use=2)), 80)
    assert found.evict == (digest("b"),)


def test_what_does_not_fit_frees_nothing_and_says_why():
    kept = holding("kept", 60, protected=True)
    found = make_room(ledger(kept, holding("loose", 20)), 50)
    assert (found.fits, found.evict) == (False, ())
    assert found.reason == (
        "it needs 50 B more; 40 B can be had of the budget of 100 B, with 60 B in 1 models that "
        "must stay and 0 B promised"
    )


def test_a_disk_that_is_full_of_other_things():
    found = make_room(ledger(holding("loose", 20), free=10, min_free=5), 50)
    assert found.reason == (
        "it needs 50 B more; the disk has 10 B left, 5 B of which stay free, and 25 B after all "
        "that may be evicted"
    )


def test_below_the_high_watermark_nothing_goes():
    assert relieve(ledger(holding("a", 90), high=90, low=10)) == ()


def test_above_it_the_oldest_go_down_to_the_low_one():
    found = relieve(
        ledger(
            *(holding(number, 10, last_use=number) for number in range(10)),
            limit=200,
            high=90,
            low=75,
        )
    )
    assert found == tuple(digest(number) for number in range(3))


def test_what_is_protected_stays_above_every_watermark():
    kept = [holding(number, 10, protected=True) for number in range(9)]
    assert relieve(ledger(*kept, holding("loose", 5), high=50, low=10)) == (digest("loose"),)


@pytest.mark.parametrize(
    ("total", "parts", "here", "need"),
    [
        (100, (), (), 100),
        (100, (), (BASE,), 100),
        (100, (BASE, Part(key="x", bytes=60)), (), 100),
        (100, (BASE, Part(key="x", bytes=60)), (BASE,), 60),
        (100, (BASE, BASE), (), 100),
        (30, (BASE,), (), 40),
    ],
    ids=["all", "unknown-parts", "nothing-here", "shared", "repeated", "rounded"],
)
def test_what_is_needed_besides_what_is_here(total, parts, here, need):
    assert needed(total, parts, {part.key for part in here}) == need


@st.composite
def ledgers(draw):
    keys = draw(st.lists(st.integers(1, 60), min_size=1, max_size=8))
    parts = [Part(key=str(number), bytes=size) for number, size in enumerate(keys)]
    holdings = tuple(
        Holding(
            digest=digest(number),
            parts=tuple(draw(st.lists(st.sampled_from(parts), max_size=4, unique=True))),
            wanted=draw(st.booleans()),
            protected=draw(st.booleans()),
            last_use=draw(st.integers(0, 5)),
        )
        for number in range(draw(st.integers(0, 7)))
    )
    limit = draw(st.integers(1, 400))
    high = draw(st.integers(0, limit))
    reserved = draw(st.dictionaries(st.integers(90, 93).map(digest), st.integers(0, 90)))
    return Ledger(
        limit=limit,
        high=high,
        low=draw(st.integers(0, high)),
        free=draw(st.integers(0, 300)),
        min_free=draw(st.integers(0, 30)),
        holdings=holdings,
        reservations=reserved,
        unfinished=draw(st.integers(0, 90)),
        foreign=frozenset(draw(st.lists(st.sampled_from([part.key for part in parts])))),
    )


def loose(ledger):
    return {one.digest for one in ledger.holdings if not one.protected}


@given(ledgers(), st.integers(1, 300))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_budget_is_never_exceeded_and_nothing_protected_goes(before, need):
    found = make_room(before, need)
    assert set(found.evict) <= loose(before)
    assert len(set(found.evict)) == len(found.evict)
    after = before.without(found.evict)
    if found.fits:
        assert after.committed + need <= before.limit
        assert after.room >= need
    else:
        assert found.evict == ()
        assert before.without(loose(before)).room < need


@given(ledgers(), st.integers(1, 300))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_goes_needlessly(before, need):
    found = make_room(before, need)
    if before.room >= need and before.committed + need <= before.high:
        assert found.evict == ()
    for spared in found.evict:
        rest = before.without([one for one in found.evict if one != spared])
        enough = rest.room >= need
        assert not enough or rest.committed + need > max(before.low, 0)


@given(ledgers())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_relief_takes_only_what_may_go_and_ends(before):
    found = relieve(before)
    assert set(found) <= loose(before)
    if before.committed <= before.high and before.room >= 0:
        assert found == ()
    again = relieve(before.without(found))
    assert set(again) <= loose(before) - set(found)
    assert not again or before.without([*found, *again]).committed < before.without(found).committed
