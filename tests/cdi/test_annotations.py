"""Pod annotations: keys, values, and both ways."""

import pytest

from cdi.annotations import annotate, annotation_key, annotation_value, requested_devices
from cdi.errors import CdiUsageError


@pytest.mark.parametrize(
    ("plugin", "device_id", "key"),
    [
        ("nvidia.gpu", "0", "cdi.k8s.io/nvidia.gpu_0"),
        ("vendor.com-gpu", "claims/7/a", "cdi.k8s.io/vendor.com-gpu_claims_7_a"),
        ("a", "b", "cdi.k8s.io/a_b"),
        ("a" * 31, "b" * 31, f"cdi.k8s.io/{'a' * 31}_{'b' * 31}"),
    ],
)
def test_keys(plugin, device_id, key):
    assert annotation_key(plugin, device_id) == key


@pytest.mark.parametrize(
    ("plugin", "device_id", "reason"),
    [
        ("", "0", "empty"),
        ("a", "", "empty"),
        ("a" * 32, "b" * 31, "longer than 63"),
        ("-a", "b", "start and end"),
        ("a", "b.", "start and end"),
        ("a", "b/", "start and end"),
        ("a/b", "c", "must consist"),
        ("a", "b:c", "must consist"),
        ("a", "é", "must consist"),
        ("a", "b\n", "must consist"),
    ],
)
def test_bad_keys(plugin, device_id, reason):
    with pytest.raises(CdiUsageError, match=reason):
        annotation_key(plugin, device_id)


def test_values_are_qualified_names_in_the_given_order():
    assert annotation_value(["b.com/x=1", "a.com/x=0"]) == "b.com/x=1,a.com/x=0"
    for devices in ([], ["gpu0"], ["a.com/x=0,b.com/x=1"]):
        with pytest.raises(CdiUsageError):
            annotation_value(devices)


def test_annotate_adds_a_key_once_and_leaves_its_argument_alone():
    before = {"other": "x"}
    once = annotate(before, plugin="a", device_id="1", devices=["a.com/x=0", "a.com/x=1"])
    assert before == {"other": "x"}
    assert once == {"other": "x", "cdi.k8s.io/a_1": "a.com/x=0,a.com/x=1"}
    with pytest.raises(CdiUsageError, match="already there"):
        annotate(once, plugin="a", device_id="1", devices=["a.com/x=0"])


def test_requests_come_back_in_the_order_of_their_keys():
    annotations = annotate({}, plugin="b", device_id="1", devices=["a.com/x=2", "a.com/x=1"])
    annotations = annotate(annotations, plugin="a", device_id="1", devices=["a.com/x=0"])
    assert requested_devices({"not/cdi": "x", **annotations}) == (
        "a.com/x=0",
        "a.com/x=2",
        "a.com/x=1",
    )


@pytest.mark.parametrize("value", ["", "a.com/x=0,", "gpu0", "a.com/x=0, a.com/x=1"])
def test_bad_requests(value):
    with pytest.raises(CdiUsageError):
        requested_devices({"cdi.k8s.io/a_1": value})
