"""Names: the grammar, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.errors import CdiUsageError
from cdi.names import QualifiedName, is_qualified, kind_fault, split_kind
from tests.cdi.strategies import DEVICES, NAMES


@given(NAMES, NAMES, DEVICES)
def test_parse_is_the_inverse_of_str(vendor, class_, device):
    name = QualifiedName(vendor=vendor, class_=class_, device=device)
    assert QualifiedName.parse(str(name)) == name
    assert split_kind(name.kind) == (vendor, class_)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not fully qualified"),
        ("gpu0", "not fully qualified"),
        ("/dev/nvidia0", "not fully qualified"),
        ("vendor.com/gpu", "not fully qualified"),
        ("vendor.com=0", "not fully qualified"),
        ("=0", "not fully qualified"),
        ("/gpu=0", "vendor is empty"),
        ("vendor.com/=0", "class is empty"),
        ("vendor.com/gpu=", "device name is empty"),
        ("vendor.com/gpu=a=b", "invalid device name 'a=b'"),
        ("vendor.com/gpu=a/b", "invalid device name 'a/b'"),
        ("vendor.com/gpu/x=0", "invalid class 'gpu/x'"),
        ("1vendor/gpu=0", "invalid vendor '1vendor'"),
        ("vendor/gpu=0\n", "invalid device name '0\\n'"),
        ("vendor/gpu=٣", "invalid device name"),
    ],
)
def test_malformed_names_say_why(text, reason):
    assert not is_qualified(text)
    with pytest.raises(CdiUsageError) as info:
        QualifiedName.parse(text)
    assert reason in str(info.value)
    assert "\n" not in str(info.value)
    assert info.value.exit_code == 2


@given(st.text(max_size=8))
def test_any_text_is_a_kind_or_has_a_fault(text):
    if kind_fault(text):
        with pytest.raises(CdiUsageError):
            split_kind(text)
    else:
        assert "/".join(split_kind(text)) == text


def test_names_sort_by_their_parts():
    names = ["b.com/a=1", "a.com/z=2", "a.com/b=9"]
    assert [str(name) for name in sorted(map(QualifiedName.parse, names))] == sorted(names)
