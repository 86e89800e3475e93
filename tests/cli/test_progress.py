"""What is said of a transfer while it runs."""

import pytest

from modelpack.cli import _progress
from modelpack.digest import Digest
from modelpack.events import Hashed, Moved, Planned, Resolved

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
