import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.descriptor import MAX_SIZE, OCI_LAYER_TAR, Descriptor, string_map
from modelpack.digest import Digest
from modelpack.errors import FormatError

GOOD = {
    "mediaType": OCI_LAYER_TAR,
    "digest": str(Digest.of(b"layer")),
    "size": 5,
    "artifactType": "application/x",
    "annotations": {"b": "2", "a": "1"},
    "platform": {"os": "linux", "architecture": "amd64"},
    "urls": ["https://example.com/blob"],
}


def test_everything_is_kept():
    descriptor = Descriptor.from_json(GOOD)
    assert descriptor.media_type == OCI_LAYER_TAR
    assert descriptor.digest == Digest.of(b"layer")
    assert descriptor.size == 5
    assert descriptor.artifact_type == "application/x"
    assert descriptor.annotations == {"a": "1", "b": "2"}
    assert descriptor.extra == {"platform": GOOD["platform"], "urls": GOOD["urls"]}
    assert descriptor.to_json() == GOOD


def test_members_are_written_in_one_order():
    names = ["mediaType", "digest", "size", "artifactType", "annotations", "platform", "urls"]
    assert list(Descriptor.from_json(dict(reversed(GOOD.items()))).to_json()) == [
        *names[:5],
        "urls",
        "platform",
    ]
    assert list(Descriptor.from_json(GOOD).to_json()) == names
    assert list(Descriptor.from_json(GOOD).to_json()["annotations"]) == ["a", "b"]


def test_what_is_empty_is_not_written():
    descriptor = Descriptor.of(b"layer", media_type=OCI_LAYER_TAR)
    assert descriptor.to_json() == {name: GOOD[name] for name in ("mediaType", "digest", "size")}
    bare = {**descriptor.to_json(), "artifactType": "", "annotations": None}
    assert Descriptor.from_json(bare) == descriptor


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("mediaType", None),
        ("mediaType", ""),
        ("mediaType", 1),
        ("digest", None),
        ("digest", "sha256:abc"),
        ("digest", 1),
        ("size", None),
        ("size", -1),
        ("size", True),
        ("size", 5.0),
        ("size", "5"),
        ("size", MAX_SIZE + 1),
        ("size", 10**400),
        ("artifactType", 1),
        ("annotations", []),
        ("annotations", {"a": 1}),
        ("annotations", {"a": None}),
        ("annotations", "a"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_wrong_member_is_named(member, value):
    bad = {**copy.deepcopy(GOOD), member: value}
    with pytest.raises(FormatError, match="layers\\[3\\]") as caught:
        Descriptor.from_json(bad, "layers[3]")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_only_an_object_is_a_descriptor(value):
    with pytest.raises(FormatError, match="descriptor is not an object"):
        Descriptor.from_json(value)


@pytest.mark.parametrize("member", ["mediaType", "digest", "size"])
def test_required_members(member):
    with pytest.raises(FormatError, match=member if member != "digest" else "digest must be"):
        Descriptor.from_json({key: value for key, value in GOOD.items() if key != member})


def test_an_optional_object_of_strings():
    assert string_map(None, "x") == {}
    assert string_map({"a": "b"}, "x") == {"a": "b"}
    with pytest.raises(FormatError, match="x is not an object of strings"):
        string_map({"a": ["b"]}, "x")


@given(
    st.builds(
        Descriptor,
        media_type=st.text(min_size=1),
        digest=st.binary().map(Digest.of),
        size=st.integers(0, MAX_SIZE),
        annotations=st.dictionaries(st.text(), st.text()),
        artifact_type=st.none() | st.text(min_size=1),
        extra=st.dictionaries(st.sampled_from(["urls", "data", "x"]), st.integers()),
    )
)
@settings(deadline=None)
def test_round_trip(descriptor):
    assert Descriptor.from_json(descriptor.to_json()) == descriptor
