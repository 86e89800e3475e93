"""Selectors over labels mean what they mean in Kubernetes."""

import pytest

from modelpack.errors import UsageError
from modelpack.prefetch.labels import Expression, Selector, check_key, parse_labels_file

NODE = {"gpu": "h100", "zone": "a", "empty": ""}


def test_an_empty_selector_takes_every_node():
    assert Selector().matches({})


@pytest.mark.parametrize(
    ("labels", "is_taken"),
    [({"gpu": "h100"}, True), ({"gpu": "l4"}, False), ({"gpu": "h100", "rack": "1"}, False)],
)
def test_labels_must_all_match(labels, is_taken):
    assert Selector(labels=labels).matches(NODE) is is_taken


@pytest.mark.parametrize(
    ("key", "operator", "values", "is_taken"),
    [
        ("gpu", "In", {"h100", "l4"}, True),
        ("gpu", "In", {"l4"}, False),
        ("rack", "In", {"1"}, False),
        ("gpu", "NotIn", {"l4"}, True),
        ("gpu", "NotIn", {"h100"}, False),
        ("rack", "NotIn", {"1"}, True),
        ("empty", "Exists", (), True),
        ("rack", "Exists", (), False),
        ("rack", "DoesNotExist", (), True),
        ("empty", "DoesNotExist", (), False),
    ],
)
def test_an_expression(key, operator, values, is_taken):
    expression = Expression(key=key, operator=operator, values=frozenset(values))
    assert expression.matches(NODE) is is_taken


@pytest.mark.parametrize(
    ("raw", "labels"),
    [
        (b"", {}),
        (b'a="b"\n\nexample.com/c="d"', {"a": "b", "example.com/c": "d"}),
        (b"a=b\n", {"a": "b"}),
        (b'a=""\n', {"a": ""}),
    ],
)
def test_a_file_of_the_downward_api(raw, labels):
    assert parse_labels_file(raw, "labels") == labels


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a", "line 1: 'a' is not key="),
        (b'a="b\n', "line 1"),
        (b'a="b"\n-="c"', "line 2: '-' is not a label's key"),
        (b'a="b c"', "line 1: 'b c' is not a label's value"),
        (b"\xff", "labels is not UTF-8 text"),
    ],
)
def test_what_is_no_such_file(raw, message):
    with pytest.raises(UsageError, match=message):
        parse_labels_file(raw, "labels")


@pytest.mark.parametrize("key", ["", "a/b/c", "-a", "a-", "A.example/x", "a" * 64, "x/" + "y" * 64])
def test_what_is_no_key(key):
    with pytest.raises(UsageError, match="is not a label's key"):
        check_key(key)
