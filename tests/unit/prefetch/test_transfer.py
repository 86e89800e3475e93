"""A transfer as it is seen from outside: stages, figures, stopping."""

import pytest

from modelpack.digest import Digest
from modelpack.events import Moved, Planned, Resolved, Retried, Warned
from modelpack.prefetch.status import Stage
from modelpack.prefetch.transfer import StoppedError, Transfer


class Time:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


def test_events_make_stages_and_times(time):
    transfer = Transfer(time)
    time.now = 1
    transfer.enter(Stage.VERIFYING)
    time.now = 3
    transfer.observe(Planned(total_bytes=10, reused_bytes=4, items=()))
    time.now = 7
    transfer.observe(Moved(item="a", size=4, reused=True))
    assert transfer.snapshot().stage == Stage.DOWNLOADING
    transfer.observe(Moved(item="a", size=6))
    time.now = 8
    found = transfer.snapshot()
    assert found.stage == Stage.IMPORTING
    assert (found.total_bytes, found.fetched_bytes, found.reused_bytes) == (10, 6, 4)
    assert found.timings == {"Resolving": 1, "Verifying": 2, "Downloading": 4, "Importing": 1}


def test_trouble_is_shown_until_bytes_move_again(time):
    transfer = Transfer(time)
    transfer.observe(Planned(total_bytes=10, reused_bytes=0, items=()))
    transfer.observe(Retried(what="blob", reason="503", delay=1))
    assert transfer.snapshot().trouble == "blob: 503"
    transfer.observe(Moved(item="a", size=1))
    assert transfer.snapshot().trouble == ""


def test_a_plan_that_is_made_again_begins_again(time):
    transfer = Transfer(time)
    transfer.observe(Planned(total_bytes=10, reused_bytes=0, items=()))
    transfer.observe(Moved(item="a", size=5))
    transfer.observe(Planned(total_bytes=10, reused_bytes=5, items=()))
    assert transfer.snapshot().fetched_bytes == 0


def test_stopping_ends_it_at_the_next_event(time):
    transfer = Transfer(time)
    transfer.observe(Resolved(reference="a", digest=Digest.of(b"")))
    transfer.stop()
    assert transfer.is_stopped
    with pytest.raises(StoppedError, match="what is verified is kept"):
        transfer.observe(Moved(item="a", size=1))
    with pytest.raises(StoppedError):
        transfer.check()


def test_warnings_are_kept_within_bounds(time):
    transfer = Transfer(time)
    for number in range(100):
        transfer.observe(Warned(message=str(number)))
    assert transfer.warnings == [str(number) for number in range(20)]
