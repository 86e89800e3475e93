"""Names that Kubernetes takes, and names made to fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.errors import CdiUsageError
from cdi.kube._names import (
    MAX_LABEL,
    add_suffix,
    fit_label,
    is_attribute,
    is_label,
    is_subdomain,
    require_label,
    require_subdomain,
)


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 63])
def test_labels(name):
    assert is_label(name)
    assert require_label("x", name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a_b", "a" * 64, "a\n", "é"])
def test_no_labels(name):
    assert not is_label(name)
    with pytest.raises(CdiUsageError, match="is no DNS label"):
        require_label("name", name)


@pytest.mark.parametrize("name", ["a", "n1.example.com", "a-b.c", "0.0"])
def test_subdomains(name):
    assert is_subdomain(name)


@pytest.mark.parametrize("name", ["", "a..b", ".a", "a.", "a.-b", "A.b", "a" * 254])
def test_no_subdomains(name):
    with pytest.raises(CdiUsageError, match="is no DNS name"):
        require_subdomain("node", name)


@pytest.mark.parametrize(
    ("name", "good"), [("a", True), ("_a1", True), ("1a", False), ("a-b", False), ("a" * 33, False)]
)
def test_attributes(name, good):
    assert is_attribute(name) is good


@given(st.text(max_size=200))
def test_what_is_fitted_is_a_label(text):
    assert is_label(fit_label(text))
    assert is_label(add_suffix(fit_label(text), "12"))


def test_long_texts_stay_apart():
    one, other = ("x" * 80 + end for end in "ab")
    assert fit_label(one) != fit_label(other)
    assert len(fit_label(one)) == MAX_LABEL
