"""The daemon's files: whole after any crash, one daemon for each, damage set aside and never fatal."""

import contextlib
import json
import logging
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.errors import FormatError, SpaceError, UsageError
from modelpack.prefetch.progress import Failure, LastTransfer, Progress, Reservation, State, Version
from modelpack.prefetch.state import Store
from modelpack.stores import files

DIGEST = Digest.of(b"1")
PROGRESS = Progress(
    name="a",
    reference="registry.example/a:v1",
    adopted=DIGEST,
    previous=Digest.of(b"0"),
    versions=(
        Version(
            digest=DIGEST,
            bytes=7,
            ready_at=1.5,
            ready_steady=2.5,
            used_at=3.5,
            used_steady=4.5,
            released=True,
        ),
    ),
    candidate=Digest.of(b"2"),
    candidate_seen=9.25,
    turned_away=frozenset({Digest.of(b"3"), Digest.of(b"4")}),
    held=True,
    adoptions=(1.0, 2.0),
    failure=Failure(
        kind="space", reason="full", attempts=3, next_steady=8.0, digest=DIGEST, free_bytes=5
    ),
    lookup=Failure(kind="network", reason="down", attempts=1, next_steady=8.0),
    resolved=4.0,
    scrubbed=5.0,
    scrub_asked=True,
    damaged=DIGEST,
    last=LastTransfer(fetched_bytes=5, reused_bytes=2, timings={"Resolving": 0.125}),
)
STATE = State(
    steady=12.5,
    models={"a": PROGRESS, "b": Progress(name="b", reference="b")},
    reservations={DIGEST: Reservation(name="a", bytes=100)},
)


def test_what_is_saved_is_loaded(tmp_path):
    with Store(tmp_path) as store:
        assert store.load() == State()
        store.save(STATE)
        assert store.load() == STATE
    with Store(tmp_path) as again:
        assert again.load() == STATE
        assert again.warnings == []


def test_only_root_reads_it(tmp_path):
    with Store(tmp_path) as store:
        store.save(STATE)
        assert store.path.stat().st_mode & 0o777 == 0o700
        assert (store.path / "state.json").stat().st_mode & 0o777 == 0o600


def test_a_store_is_one_daemons(tmp_path):
    with Store(tmp_path), pytest.raises(UsageError, match="another modelpack daemon runs"):
        Store(tmp_path)
    Store(tmp_path).close()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"version": 1}',
        b'{"version": 2, "value": {}}',
        b'{"version": 1, "value": {"steady": "x", "models": [], "reservations": {}}}',
        b'{"version": 1, "value": {"steady": 1, "models": [{}], "reservations": {}}}',
        b'{"version": 1, "value": {"steady": 1, "models": [], "reservations": {"x": {}}}}',
        b"[" * 100_000,
    ],
    ids=range(11),
)
def test_a_damaged_file_is_set_aside_and_the_one_before_is_used(tmp_path, raw, caplog):
    with Store(tmp_path) as store:
        store.save(STATE)
        store.save(State(steady=99))
        (store.path / "state.json").write_bytes(raw)
        with caplog.at_level(logging.WARNING):
            assert store.load() == STATE
        assert "is damaged" in store.warnings[0]
        assert store.warnings[0] in caplog.text
        assert (store.path / "state.json.damaged-0").read_bytes() == raw
        store.save(State(steady=100))
        assert store.load() == State(steady=100)


def test_when_both_are_damaged_it_begins_anew(tmp_path):
    with Store(tmp_path) as store:
        store.save(STATE)
        store.save(STATE)
        for name in ("state.json", "state.before.json"):
            (store.path / name).write_text("x")
        assert store.load() == State()
        assert [warning.split()[-1] for warning in store.warnings] == [
            *("state.json.damaged-0", "state.before.json.damaged-0", "hand"),
        ]


def test_files_that_were_set_aside_do_not_pile_up(tmp_path):
    with Store(tmp_path) as store:
        for _ in range(20):
            (store.path / "state.json").write_text("x")
            store.load()
        assert len(list(store.path.glob("*.damaged-*"))) == 8


def test_a_full_disk_leaves_what_was_kept(tmp_path, monkeypatch):
    with Store(tmp_path) as store:
        store.save(STATE)

        def full(fd):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SpaceError, match="No space left"):
            store.save(State())
        monkeypatch.undo()
        assert store.load() == STATE
        assert [path.name for path in store.path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("call", ["fsync", "replace", "link", "unlink"])
def test_a_crash_at_any_call_leaves_one_whole_state(tmp_path, monkeypatch, call):
    """Simulated by an exception that no handler knows, at each of the calls that matter."""

    class CrashError(BaseException):
        pass

    with Store(tmp_path) as store:
        store.save(STATE)
        newer = State(steady=77)

        def crash(*_arguments, **_options):
            raise CrashError

        monkeypatch.setattr(os, call, crash)
        with contextlib.suppress(CrashError):
            store.save(newer)
        monkeypatch.undo()
    with Store(tmp_path) as store:
        assert store.load() in (STATE, newer)
        assert store.warnings == []


def test_what_a_kill_left_is_removed(tmp_path):
    with Store(tmp_path) as store:
        leftover = files.temporary_beside(store.path / "state.json")
        leftover.write_text("half")
    with Store(tmp_path):
        assert not leftover.exists()


def test_the_configuration_is_kept_too(tmp_path):
    with Store(tmp_path) as store:
        assert store.load_configuration() is None
        store.save_configuration({"files": {}})
        assert store.load_configuration() == {"files": {}}
        (store.path / "configuration.json").write_text("x")
        assert store.load_configuration() is None
        assert store.warnings


def test_a_store_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="cannot use the store") as caught:
        Store(tmp_path / "file")
    assert "\n" not in str(caught.value)


digests = st.integers(0, 5).map(lambda number: Digest.of(bytes([number])))
times = st.floats(0, 1e9)
versions = st.builds(
    Version,
    digest=digests,
    bytes=st.integers(0, 2**50),
    ready_at=times,
    ready_steady=times,
    used_at=st.none() | times,
    used_steady=st.none() | times,
    released=st.booleans(),
)
failures = st.none() | st.builds(
    Failure,
    kind=st.sampled_from(["network", "space"]),
    reason=st.text(),
    attempts=st.integers(1, 99),
    next_steady=times,
    digest=st.none() | digests,
    free_bytes=st.none() | st.integers(0, 2**50),
)
progresses = st.builds(
    Progress,
    name=st.text(),
    reference=st.text(),
    adopted=st.none() | digests,
    previous=st.none() | digests,
    versions=st.lists(versions, max_size=3).map(tuple),
    candidate=st.none() | digests,
    candidate_seen=times,
    turned_away=st.frozensets(digests),
    held=st.booleans(),
    adoptions=st.lists(times, max_size=3).map(tuple),
    failure=failures,
    lookup=failures,
    resolved=st.none() | times,
    scrubbed=st.none() | times,
    scrub_asked=st.booleans(),
    damaged=st.none() | digests,
    last=st.none()
    | st.builds(
        LastTransfer,
        fetched_bytes=st.integers(0, 2**50),
        reused_bytes=st.integers(0, 2**50),
        timings=st.dictionaries(st.sampled_from(["Resolving", "Importing"]), st.just(1.5)),
    ),
)


@given(progresses)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_progress_survives_json(progress):
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


GOOD = PROGRESS.to_json()


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", [[], "x", 7.5, {"a": 1}], ids=repr)
def test_progress_of_another_form_is_refused_or_read(name, value):
    document = {**GOOD, name: value}
    with contextlib.suppress(FormatError):
        Progress.from_json(document)


@pytest.mark.parametrize("name", GOOD)
def test_progress_without_a_member_is_refused(name):
    with pytest.raises(FormatError):
        Progress.from_json({other: value for other, value in GOOD.items() if other != name})
