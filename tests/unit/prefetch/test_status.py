"""When a node counts as ready."""

import pytest

from modelpack.prefetch.status import RuntimeStatus, Stage
from tests.support.statuses import DIGEST, model, status


@pytest.mark.parametrize(
    ("stage", "members", "ready"),
    [
        (Stage.PENDING, {}, False),
        (Stage.RESOLVING, {}, False),
        (Stage.VERIFYING, {}, False),
        (Stage.DOWNLOADING, {}, False),
        (Stage.IMPORTING, {}, False),
        (Stage.READY, {}, True),
        # a newer version is on its way
        (Stage.DOWNLOADING, {"digest": DIGEST}, True),
        # reported, but nothing waits for it
        (Stage.FAILED, {"attempts": 1}, True),
        (Stage.REFUSED, {"attempts": 1}, True),
        (Stage.INSUFFICIENT_SPACE, {"attempts": 1}, True),
        # looked up again while its registry is away: the node does not come and go
        (Stage.PENDING, {"attempts": 3}, True),
        (Stage.RESOLVING, {"attempts": 3}, True),
        (Stage.VERIFYING, {"attempts": 3}, True),
        # on its way after all
        (Stage.DOWNLOADING, {"attempts": 3}, False),
        (Stage.IMPORTING, {"attempts": 3}, False),
    ],
)
def test_a_model_on_its_first_way_keeps_the_node_from_being_ready(stage, members, ready):
    shown = status(model(), model("code", stage, **members))
    assert shown.unready == (() if ready else (f"code: {stage}",))


def test_a_runtime_that_is_away_and_a_daemon_that_stops():
    away = RuntimeStatus(kind="containerd", reachable=False, reason="no answer")
    assert status(model(), runtime=away).unready == ("runtime: no answer",)
    assert status(model(), stopping=True).unready == ("the daemon is stopping",)
