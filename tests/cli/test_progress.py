"""What is said of a transfer while it runs."""

import pytest

from modelpack.cli import _progress
from modelpack.digest import Digest
from modelpack.events import Finished, Hashed, Moved, Planned, Resolved

MIB = 1024 * 1024
PLAN = Planned(
    total_bytes=600 * MIB, reused_bytes=0, items=(("large", 500 * MIB), ("small", 100 * MIB))
)


@pytest.fixture
def tally(monkeypatch):
    """A tally whose clock stands still, so that a rate is over the shortest span, 0.2 s."""
    monkeypatch.setattr(_progress.time, "monotonic", lambda: 1000.0)
    tally = _progress._Tally()
    tally.take(Resolved(reference="r.example/m:v1", digest=Digest("sha256", "0" * 64)))
    tally.take(PLAN)
    return tally


def test_a_few_bytes_sent_foretell_nothing_while_a_large_file_is_hashed(tally):
    tally.take(Hashed(item="small", size=2048))
    tally.take(Moved(item="small", size=2048))
    tally.take(Hashed(item="large", size=64 * MIB))
    assert tally.describe() == "2.0 KiB of 600.0 MiB, 64.0 MiB hashed"


def test_others_are_sent_while_one_is_hashed(tally):
    tally.take(Hashed(item="small", size=100 * MIB))
    tally.take(Moved(item="small", size=100 * MIB))
    assert tally.describe() == "100.0 MiB of 600.0 MiB, 100.0 MiB hashed, 500.0 MiB/s, 1s left"


def test_all_is_hashed(tally):
    tally.take(Hashed(item="all", size=600 * MIB))
    tally.take(Moved(item="large", size=MIB))
    assert tally.describe() == "1.0 MiB of 600.0 MiB, 5.0 MiB/s, 1m59s left"


def test_nothing_is_hashed_on_pull(tally):
    tally.take(Moved(item="large", size=MIB))
    assert tally.describe() == "1.0 MiB of 600.0 MiB, 5.0 MiB/s, 1m59s left"


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves: ``clock[0]`` is the time."""
    now = [1000.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def test_the_rate_is_that_of_the_last_seconds(clock):
    tally = _progress._Tally()
    for _ in range(1000):  # ten seconds
        tally.take(Moved(item="large", size=MIB))
        clock[0] += 0.01
    assert len(tally._recent) <= 40
    assert tally.rate() == pytest.approx(100 * MIB, rel=0.1)
    clock[0] += 2.0
    assert 0 < tally.rate() < 50 * MIB
    clock[0] += 2.0
    assert tally.rate() == 0.0


def test_small_files_are_counted_and_not_drawn(clock, monkeypatch):
    """Each would be a bar for a millisecond, and drawing it would take longer."""
    drawn = []
    bars = _progress._Bars("pulling")
    monkeypatch.setattr(bars._live, "refresh", lambda: drawn.append(1))
    names = [f"file-{number}" for number in range(10_000)]
    bars(Planned(total_bytes=10_000 * 100, reused_bytes=0, items=[(name, 100) for name in names]))
    for name in names:
        bars(Moved(item=name, size=100))
        bars(Finished(item=name))
        clock[0] += 0.0001
    assert len(drawn) <= 1
    (total,) = bars._live.tasks
    assert total.completed > 850_000


def test_a_file_in_progress_has_a_bar_until_it_is_there(clock):
    bars = _progress._Bars("pulling")
    bars(PLAN)
    bars(Moved(item="large", size=50 * MIB))
    assert [task.description for task in bars._live.tasks] == ["pulling", "large"]
    assert bars._live.tasks[1].fields["state"] == "50.0 MiB of 500.0 MiB"
    clock[0] += 0.01
    bars(Moved(item="small", size=MIB))
    assert len(bars._live.tasks) == 2
    clock[0] += 0.05
    bars(Moved(item="small", size=MIB))
    assert [task.description for task in bars._live.tasks] == ["pulling", "large", "small"]
    bars(Finished(item="large"))
    assert [task.description for task in bars._live.tasks] == ["pulling", "small"]
