"""Kinds of failures, and when the next try is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack import errors
from modelpack.prefetch.failures import KINDS, delay, kind_of
from modelpack.prefetch.node import InUseError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.NetworkError("x"), "network"),
        (errors.TransientError("x"), "network"),
        (errors.AuthError("x"), "auth"),
        (errors.NotFoundError("x"), "not_found"),
        (errors.FormatError("x"), "format"),
        (errors.IntegrityError("x"), "integrity"),
        (errors.ProtocolError("x"), "integrity"),
        (errors.PolicyError("x"), "policy"),
        (errors.SpaceError("x"), "space"),
        (errors.UsageError("x"), "usage"),
        (InUseError("x"), "other"),
        (ValueError("x"), "defect"),
    ],
)
def test_the_kind_of_an_error(error, kind):
    assert kind_of(error) == kind
    assert kind in KINDS


@settings(deadline=None)
@given(st.integers(1, 10_000), st.floats(0, 1), st.sampled_from(KINDS))
def test_a_delay_is_within_bounds(attempts, jitter, kind):
    assert 5 <= delay(attempts, first=10, longest=600, jitter=jitter, kind=kind) <= 600


def test_delays_double():
    found = [delay(number, first=10, longest=100, jitter=1) for number in range(1, 6)]
    assert found == [10, 20, 40, 80, 100]


def test_what_another_try_will_not_change_waits_longer():
    assert delay(1, first=10, longest=600, jitter=1, kind="policy") == 60
