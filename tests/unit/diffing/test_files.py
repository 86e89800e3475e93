import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.diffing.files import compare_files, estimate_pull
from tests.support.versions import version


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": b"1"}, {"a": b"1"}, []),
        ({"a": b"1"}, {"a": b"1", "b": b"2"}, [("added", None, "b")]),
        ({"a": b"1", "b": b"2"}, {"a": b"1"}, [("removed", "b", None)]),
        ({"a": b"1"}, {"a": b"2"}, [("changed", "a", "a")]),
        ({"a": b"1"}, {"a": (b"1", 0o755)}, [("changed", "a", "a")]),
        ({"a": b"1"}, {"b": b"1"}, [("renamed", "a", "b")]),
        ({"a": b"1"}, {"a": b"1", "b": b"1"}, [("added", None, "b")]),
        ({"x/a": b"1", "b": b"1"}, {"y/b": b"1"}, [("renamed", "b", "y/b"), ("removed", "x/a", None)]),
        (
            {"x/a": b"1", "x/b": b"1"},
            {"y/b": b"1", "y/c": b"1"},
            [("renamed", "x/b", "y/b"), ("renamed", "x/a", "y/c")],
        ),
        ({"a": b""}, {"b": b""}, [("removed", "a", None), ("added", None, "b")]),
        ({"a": b"1", "b": b"2"}, {"a": b"2", "b": b"1"}, [("changed", "a", "a"), ("changed", "b", "b")]),
    ],
    ids=[
        "same", "added", "removed", "changed", "mode", "renamed", "copied", "fewer", "both",
        "empty", "swapped",
    ],
)  # fmt: skip
def test_files_are_matched_by_path_and_then_by_content(before, after, expected):
    changes, unchanged = compare_files(version(before), version(after))
    found = [
        (
            change.kind,
            change.before.path if change.before else None,
            change.after.path if change.after else None,
        )
        for change in changes
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert [change.path for change in changes] == sorted(change.path for change in changes)
    same = [path for path in before if path in after and path not in {item[2] for item in expected}]
    assert unchanged == len(same)


blocks = st.lists(st.sampled_from([b"aaaa", b"bbbb", b"cccc", b"dddd", b"ee"]), max_size=4)
trees = st.dictionaries(
    st.sampled_from(["a", "b", "c/d", "c/e"]), blocks.map(b"".join), min_size=1, max_size=4
)


@given(before=trees, after=trees)
@settings(max_examples=150, deadline=None)
def test_every_missing_chunk_is_fetched_once(before, after):
    a, b = version(before, cut=4), version(after, cut=4, index_bytes=7)
    estimate, by_path = estimate_pull(a, b, connections=4)
    there = {data[at : at + 4] for data in before.values() for at in range(0, len(data), 4)}
    wanted = {
        data[at : at + 4]
        for path, data in after.items()
        if before.get(path) != data
        for at in range(0, len(data), 4)
    }
    assert estimate.chunk_bytes == sum(len(chunk) for chunk in wanted - there)
    assert estimate.bytes == sum(len(data) for data in after.values())
    assert estimate.reused_bytes == estimate.bytes - estimate.chunk_bytes
    assert sum(by_path.values()) == estimate.chunk_bytes
    assert estimate.fetched_bytes == estimate.chunk_bytes + estimate.bridged_bytes + 7
    assert (estimate.requests == 0) == (estimate.chunk_bytes == 0)
