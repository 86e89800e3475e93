"""Windows and rates by time of day: open when the clock on the wall says so, across midnight too."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import UsageError
from modelpack.prefetch.windows import (
    Rates,
    Window,
    is_open,
    next_opening,
    parse_time,
    parse_zone,
)

BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = Window(start=8 * 60, end=18 * 60, days=frozenset(range(5)))
NIGHT = Window(start=22 * 60, end=6 * 60)
FRIDAY_NIGHT = Window(start=22 * 60, end=6 * 60, days=frozenset({4}))


def at(text, zone=UTC):
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("window", "moment", "is_in"),
    [
        (OFFICE, "2026-03-02T07:59:59", False),
        (OFFICE, "2026-03-02T08:00:00", True),
        (OFFICE, "2026-03-02T17:59:59", True),
        (OFFICE, "2026-03-02T18:00:00", False),
        (OFFICE, "2026-03-07T12:00:00", False),
        (NIGHT, "2026-03-02T23:00:00", True),
        (NIGHT, "2026-03-02T05:59:59", True),
        (NIGHT, "2026-03-02T06:00:00", False),
        (FRIDAY_NIGHT, "2026-03-06T21:59:59", False),
        (FRIDAY_NIGHT, "2026-03-06T22:00:00", True),
        (FRIDAY_NIGHT, "2026-03-07T05:00:00", True),
        (FRIDAY_NIGHT, "2026-03-07T23:00:00", False),
        (FRIDAY_NIGHT, "2026-03-06T05:00:00", False),
        (Window(start=0, end=24 * 60, days=frozenset({6})), "2026-03-08T23:59:59", True),
    ],
)
def test_a_window_is_open(window, moment, is_in):
    assert window.is_open(at(moment), UTC) is is_in


def test_the_zone_decides():
    assert not OFFICE.is_open(at("2026-07-01T06:30:00", BERLIN), BERLIN)
    assert OFFICE.is_open(at("2026-07-01T06:30:00"), BERLIN)
    assert not OFFICE.is_open(at("2026-01-01T06:30:00"), BERLIN)


def test_when_clocks_change_the_wall_clock_counts():
    early = Window(start=3 * 60, end=4 * 60)
    # 02:00 becomes 03:00 on this night.
    assert early.is_open(at("2026-03-29T01:30:00"), BERLIN)
    assert not early.is_open(at("2026-03-29T02:30:00"), BERLIN)


def test_the_next_opening():
    assert OFFICE.next_opening(at("2026-03-06T19:00:00"), UTC) == at("2026-03-09T08:00:00")
    assert next_opening([OFFICE, NIGHT], at("2026-03-06T19:00:00"), UTC) == at(
        "2026-03-06T22:00:00"
    )


@given(
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(1_700_000_000, 1_800_000_000),
    st.sampled_from([UTC, BERLIN, ZoneInfo("Pacific/Auckland")]),
)
@settings(max_examples=120, deadline=None)
def test_a_window_opens_when_it_says_it_will(start, end, days, now, zone):
    window = Window(start=start, end=end, days=frozenset(days))
    opening = window.next_opening(now, zone)
    assert now < opening <= now + 8 * 86400
    local = datetime.fromtimestamp(opening, zone)
    hour_skipped = local.hour * 60 + local.minute != start
    assert hour_skipped or start == end or window.is_open(opening, zone)


def test_without_windows_it_is_always_open():
    assert is_open((), 0, UTC)


def test_the_first_open_window_decides_the_rate():
    rates = Rates(default=100, timed=((OFFICE, 10), (NIGHT, None), (NIGHT, 5)))
    assert rates.at(at("2026-03-02T12:00:00"), UTC) == 10
    assert rates.at(at("2026-03-02T23:00:00"), UTC) is None
    assert rates.at(at("2026-03-02T20:00:00"), UTC) == 100


@pytest.mark.parametrize(("text", "minutes"), [("00:00", 0), ("08:05", 485), ("24:00", 1440)])
def test_a_time_of_day(text, minutes):
    assert parse_time(text) == minutes


@pytest.mark.parametrize(
    "text", ["8:00", "24:01", "12:60", "ab:cd", "12-00", 480, None, "\u0660\u0661:\u0660\u0660"]
)
def test_what_is_no_time_of_day(text):
    with pytest.raises(UsageError, match="is not a time of day"):
        parse_time(text)


@pytest.mark.parametrize("name", ["Nowhere/Town", "", "../UTC", "/etc/localtime", "a" * 300])
def test_what_is_no_zone(name):
    with pytest.raises(UsageError, match="is not a time zone that this machine knows"):
        parse_zone(name)
