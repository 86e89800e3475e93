"""Kubernetes quantities, against the values that the API's documentation gives them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.errors import CdiUsageError
from cdi.kube.quantity import GIB, MAX_VALUE, memory_text, parse_count, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("2", 2),
        (2, 2),
        ("+2", 2),
        ("-2", -2),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1.5Gi", 3 * GIB // 2),
        ("128974848", 128974848),
        ("129e6", 129_000_000),
        ("129M", 129_000_000),
        ("123Mi", 123 * 1024**2),
        ("1E", 10**18),
        ("1E3", 1000),
        ("1Ei", 2**60),
        ("100m", Fraction(1, 10)),
        ("3u", Fraction(3, 10**6)),
        ("7n", Fraction(7, 10**9)),
        ("1e-3", Fraction(1, 1000)),
    ],
)
def test_quantities(text, value):
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1Gb",
        "1gi",
        "K",
        "1e",
        "1e1000",
        "0x10",
        "1_0",
        "\u0661",
        "1Mi2",
        None,
        True,
        [],
        "9E999",
    ],
)
def test_what_is_no_quantity(text):
    with pytest.raises(CdiUsageError, match="is no quantity"):
        parse_quantity(text)


def test_quantities_end_at_63_bits():
    assert parse_quantity(str(MAX_VALUE)) == MAX_VALUE
    with pytest.raises(CdiUsageError, match="larger than any quantity"):
        parse_quantity(str(MAX_VALUE + 1))


@pytest.mark.parametrize("text", ["1.5", "-1", "100m"])
def test_counts_are_whole_and_not_negative(text):
    with pytest.raises(CdiUsageError, match="not a whole number"):
        parse_count(text)


@given(st.integers(0, MAX_VALUE))
def test_memory_text_is_exact(number):
    assert parse_count(memory_text(number)) == number
