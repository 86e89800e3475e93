"""A status comes back from its JSON as it was; anything else is refused by name."""

import copy
import json

import pytest
from hypothesis import given, settings

from modelpack.errors import FormatError
from modelpack.prefetch.statusjson import parse_status
from tests.support.statuses import model, status, statuses

GOOD = status(model()).to_json()


@given(statuses())
@settings(max_examples=60, deadline=None)
def test_every_status_comes_back(value):
    assert parse_status(json.loads(json.dumps(value.to_json()))) == value


def test_what_a_newer_daemon_adds_is_ignored():
    newer = copy.deepcopy(GOOD) | {"more": 1}
    newer["models"][0]["more"] = {"a": []}
    assert parse_status(newer) == parse_status(GOOD)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), [], "status is not an object"),
        (("models",), {}, "models is not a list"),
        (("models", 0), 1, "models is not an object"),
        (("models", 0, "stage"), "Flying", "stage 'Flying' is unknown"),
        (("models", 0, "bytes"), "1", "bytes is not a number"),
        (("models", 0, "bytes"), True, "bytes is not a number"),
        (("models", 0, "bytes"), float("nan"), "bytes is not a number"),
        (("models", 0, "held"), 1, "held is neither true nor false"),
        (("models", 0, "digest"), 5, "digest is not a text"),
        (("models", 0, "timings"), {"Resolving": None}, "Resolving is not a number"),
        (("node",), None, "node is not a text"),
        (("budget",), None, "budget is not an object"),
        (("runtime", "reachable"), "yes", "reachable is neither"),
    ],
    ids=lambda value: ".".join(map(str, value)) or "all" if isinstance(value, tuple) else "",
)
def test_what_is_no_status_is_refused(path, value, message):
    changed = {"top": copy.deepcopy(GOOD)}
    inner = changed
    steps = ("top", *path)
    for step in steps[:-1]:
        inner = inner[step]
    inner[steps[-1]] = value
    with pytest.raises(FormatError, match=message):
        parse_status(changed["top"])


@pytest.mark.parametrize("name", ["models", "node", "now", "budget", "totals", "stopping"])
def test_every_member_is_needed(name):
    less = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(FormatError, match=name):
        parse_status(less)
