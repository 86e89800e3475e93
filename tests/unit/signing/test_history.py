from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.errors import FormatError, ModelpackError
from modelpack.signing import history
from modelpack.signing.history import Accepted

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def version(number, name=None, days=None):
    return Accepted(
        digest=Digest.of(str(number).encode()),
        version=name,
        created=None if days is None else DAY + timedelta(days=days),
    )


@pytest.mark.parametrize(
    ("accepted", "candidate", "said"),
    [
        ([], version(1), None),
        ([version(1)], version(1), None),
        ([version(1)], version(2), None),
        ([version(1), version(2)], version(1), "which has replaced it"),
        ([version(1), version(2)], version(1, "9", 9), "which has replaced it"),
        ([version(1, "1.10")], version(2, "1.9"), "version 1.9 is older than 1.10"),
        ([version(1, "1.10")], version(2, "1.11"), None),
        ([version(1, "v2")], version(2, "2.0.0", -5), None),
        ([version(1, "2.0+cu12")], version(2, "1.9+cu12"), "older than 2.0"),
        ([version(1, "2.0", 5)], version(2, "2.1", 1), None),
        ([version(1, "2.0-rc1")], version(2, "1.0"), None),
        ([version(1, "2.0-rc1", 5)], version(2, "1.0", 4), "its date"),
        ([version(1, None, 5)], version(2, None, 4), "its date"),
        ([version(1, None, 5)], version(2, None, 6), None),
        ([version(1, None, 5)], version(2), None),
        ([version(1, "9" * 400)], version(2, "1"), None),
    ],
)
def test_rollback(accepted, candidate, said):
    reason = history.rollback(accepted, candidate)
    if said is None:
        assert reason is None
    else:
        assert said in reason


def test_recording_keeps_each_digest_once_and_the_newest_last():
    accepted = ()
    for number in (1, 2, 3, 2):
        accepted = history.record(accepted, version(number))
    assert accepted == (version(1), version(3), version(2))
    for number in range(history.MAX_ACCEPTED + 10):
        accepted = history.record(accepted, version(number))
    assert len(accepted) == history.MAX_ACCEPTED
    assert accepted[-1] == version(history.MAX_ACCEPTED + 9)


def test_the_file_survives_a_round_trip():
    accepted = (version(1, "1.0", 3), version(2))
    assert history.parse_history(history.encode_history(accepted)) == accepted


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b'{"accepted": {}}',
        b'{"accepted": [{}]}',
        b'{"accepted": [{"digest": "x"}]}',
        b'{"accepted": [], "other": 1}',
        b" " * (history.MAX_HISTORY_BYTES + 1),
        history.encode_history([version(1, None, 1)]).replace(b"2026", b"20x6"),
    ],
    ids=lambda raw: raw[:40].decode(),
)
def test_a_broken_file_is_not_an_empty_one(raw):
    with pytest.raises(FormatError):
        history.parse_history(raw)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T00:00:00Z", DAY),
        ("2026-01-01T02:00:00+02:00", DAY),
        ("2026-01-01T00:00:00.123456789Z", DAY.replace(microsecond=123456)),
        ("2026-01-01T00:00:00", None),
        ("2026-01-01", None),
        ("yesterday", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("", None),
        (5, None),
        (None, None),
    ],
)
def test_times(text, expected):
    assert history.parse_time(text) == expected


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_give_a_history_or_an_error_of_ours(raw):
    try:
        history.parse_history(raw)
    except ModelpackError:
        return


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=45))
def test_any_text_gives_a_time_or_none(text):
    parsed = history.parse_time(text)
    assert parsed is None or parsed.tzinfo is UTC
