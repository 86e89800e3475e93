"""Sizes, durations and percentages as people write them."""

import pytest

from modelpack.errors import UsageError
from modelpack.prefetch.quantities import (
    MAX_SIZE,
    parse_duration,
    parse_percent,
    parse_rate,
    parse_size,
    show_duration,
    show_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *((0, 0), (7, 7), ("7", 7), ("20Gi", 20 * 2**30), ("20G", 20 * 10**9), ("1.5k", 1500)),
        *(("0.5Ti", 2**39), ("1Pi", 2**50), ("9007199254740991", MAX_SIZE), ("3K", 3000)),
    ],
)
def test_a_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "Gi", "20 Gi", "20GB", "-1", -1, 1.5, True, None, "1e9", "20gi", "9999Pi", 2**53, "1\n"],
)
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "rate"), [("50M", 50 * 10**6), ("1Gi/s", 2**30), (1, 1)])
def test_a_rate(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0", 0, "0.1", "fast", "50Mbit", None])
def test_what_is_no_rate(text):
    with pytest.raises(UsageError, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("1h30m", 5400), ("7d", 604800), ("1w2d", 777600), ("5m", 300)],
)
def test_a_duration(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", 5, "1m1h", "1.5h", "-1h", "1h1h", "99999w", "5 m", None])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "percent"), [("0%", 0), ("90%", 90), ("7.5%", 7.5), ("100%", 100)]
)
def test_a_percentage(text, percent):
    assert parse_percent(text) == percent


@pytest.mark.parametrize("text", ["90", 90, "101%", "-1%", "%", None])
def test_what_is_no_percentage(text):
    with pytest.raises(UsageError, match="is not a percentage"):
        parse_percent(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (3 * 2**40, "3.0 TiB"),
        (2**52, "4096.0 TiB"),
    ],
)
def test_a_size_is_shown(size, text):
    assert show_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1s"), (59.6, "1m"), (61, "1m 1s"), (86400 * 2 + 7200, "2d 2h")]
)
def test_a_duration_is_shown(seconds, text):
    assert show_duration(seconds) == text
