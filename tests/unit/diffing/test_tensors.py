import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.chunking import CHUNK_BYTES, SMALL_TENSOR_BYTES
from modelpack.diffing.tensors import TensorSide, compare_tensors
from modelpack.tensors import bytes_reader, probe
from tests.support.tensorfiles import STRING, gguf_file, gguf_pair, safetensors_file
from tests.support.versions import version

C, S = CHUNK_BYTES, SMALL_TENSOR_BYTES


def side_of(data, path="model.safetensors"):
    made = version({path: data})
    return TensorSide(
        header=probe(path, bytes_reader(data), len(data)),
        index=made.index,
        file=made.index.files[0],
    )


def settle_with(before, after, log=None):
    def settle(old_offset, new_offset, length):
        if log is not None:
            log.append(length)
        return before[old_offset : old_offset + length] == after[new_offset : new_offset + length]

    return settle


def compared(before, after, path="model.safetensors", *, settle=None):
    return compare_tensors(
        side_of(before, path), side_of(after, path), settle or settle_with(before, after)
    )


def names(tensors):
    return [tensor.name for tensor in tensors]


def tensor(name, size, fill=0, dtype="U8", shape=None):
    return (name, dtype, shape or [size], bytes([fill]) * size)


BIG, SMALL = 2 * C + 5, 100


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([tensor("w", BIG)], [tensor("w", BIG)], {"unchanged": 1}),
        ([tensor("w", BIG)], [tensor("w", BIG, 1)], {"changed": [("w", BIG)]}),
        (
            [tensor("w", BIG)],
            [("w", "U8", [BIG], bytes(C) + b"\x01" + bytes(BIG - C - 1))],
            {"changed": [("w", C)]},
        ),
        ([tensor("a", BIG)], [tensor("b", BIG)], {"added": ["b"], "removed": ["a"]}),
        (
            [tensor("w", BIG), tensor("v", S, 3)],
            [tensor("v", S, 3), tensor("w", BIG)],
            {"unchanged": 2},
        ),
        (
            [tensor("w", 2 * S, dtype="F16", shape=[S])],
            [tensor("w", 2 * S, dtype="BF16", shape=[S])],
            {"changed": [("w", 0)]},
        ),
        (
            [tensor("w", 2 * C, shape=[2, C])],
            [tensor("w", 3 * C, shape=[3, C])],
            {"changed": [("w", C)]},
        ),
        ([tensor("w", 3 * C)], [tensor("w", 2 * C)], {"changed": [("w", 0)]}),
        (
            [tensor("1.a", SMALL), tensor("1.b", SMALL, 1), tensor("1.c", SMALL, 2)],
            [tensor("1.a", SMALL), tensor("1.b", SMALL, 9), tensor("1.c", SMALL, 2)],
            {"changed": [("1.b", SMALL)], "unchanged": 2},
        ),
        (
            [tensor("1.a", SMALL, 1), tensor("1.c", SMALL, 2)],
            [tensor("1.a", SMALL, 1), tensor("1.b", 7, 5), tensor("1.c", SMALL, 2)],
            {"added": ["1.b"], "unchanged": 2},
        ),
        ([("e", "F32", [0], b"")], [("e", "F32", [0], b"")], {"unchanged": 1}),
        ([("e", "F32", [0], b"")], [("e", "F32", [0, 4], b"")], {"changed": [("e", 0)]}),
        (
            [tensor("1.a", S - 1, 1)],
            [tensor("1.a", S + 1, 1)],
            {"changed": [("1.a", S + 1)]},
        ),
    ],
    ids=[
        "same", "all", "one chunk", "renamed", "reordered", "dtype", "grown", "cut", "in a pack",
        "into a pack", "empty", "empty shape", "small to large",
    ],
)  # fmt: skip
def test_tensors_are_compared_by_their_chunks(before, after, expected):
    long = {"note": "x" * 1000}  # a header of another length moves every tensor
    for metadata in (None, long):
        found = compared(safetensors_file(before), safetensors_file(after, metadata))
        assert {
            "added": names(found.added),
            "removed": names(found.removed),
            "changed": [(each.after.name, each.changed_bytes) for each in found.changed],
            "undecided": names(found.undecided),
            "unchanged": found.unchanged,
        } == {"added": [], "removed": [], "changed": [], "undecided": [], "unchanged": 0} | expected


def test_large_tensors_need_no_bytes():
    log = []
    before = safetensors_file([tensor("w", BIG), tensor("v", BIG, 1)])
    after = safetensors_file([tensor("w", BIG, 2), tensor("v", BIG, 1)])
    found = compared(before, after, settle=settle_with(before, after, log))
    assert names(each.after for each in found.changed) == ["w"]
    assert log == []


def test_what_cannot_be_settled_is_undecided():
    small = [tensor(f"1.{number}", SMALL, number) for number in range(5)]
    before = safetensors_file([*small, tensor("big", BIG)])
    after = safetensors_file([*small[:4], tensor("1.4", SMALL, 99), tensor("big", BIG, 1)])
    found = compared(before, after, settle=lambda *_: None)
    assert names(found.undecided) == [f"1.{number}" for number in range(5)]
    assert [each.after.name for each in found.changed] == ["big"]


@pytest.mark.parametrize("changed", [None, "blk.0.w", "blk.0.b"])
def test_padding_of_gguf_is_no_change_of_a_tensor(changed):
    def file(fill, pairs):
        return gguf_file(
            [
                (name, [size], 24, bytes([fill if name == changed else 0]) * size)
                for name, size in (("blk.0.w", S + 1), ("blk.0.b", 33), ("blk.1.w", S + 7))
            ],
            pairs,
            alignment=64,
        )

    before = file(0, [])
    after = bytearray(file(1, [gguf_pair("general.name", STRING, "longer header")]))
    after[-1] ^= 0xFF  # padding after the last tensor
    found = compared(before, bytes(after), "model.gguf")
    assert [each.after.name for each in found.changed] == ([changed] if changed else [])
    assert found.unchanged == (2 if changed else 3)
    assert found.undecided == ()


@st.composite
def edits(draw):
    """Two versions of a few tensors of 1 to 4 blocks, in any order, and what changed."""
    chosen = draw(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1))
    sizes = {name: draw(st.sampled_from([1, 7, 50])) for name in "abcdef"}
    block = {name: draw(st.sampled_from(["0", "1"])) for name in "abcdef"}

    def made(name, fill):
        return (f"{block[name]}.{name}", "U8", [sizes[name]], bytes([fill]) * sizes[name])

    before = [made(name, 0) for name in chosen]
    kept = draw(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1))
    changed = set(draw(st.lists(st.sampled_from(kept))))
    after = [made(name, 1 if name in changed else 0) for name in kept]
    return before, after, {f"{block[name]}.{name}" for name in changed}


@given(edit=edits(), knows=st.booleans())
@settings(max_examples=150, deadline=None)
def test_verdicts_on_tensors_are_true(edit, knows):
    before, after, touched = edit
    old, new = safetensors_file(before), safetensors_file(after, {"a": "b"})
    settle = settle_with(old, new) if knows else lambda *_: None
    found = compared(old, new, settle=settle)
    had = {each[0] for each in before}
    has = {each[0] for each in after}
    changed = {each.after.name for each in found.changed}
    undecided = set(names(found.undecided))
    assert set(names(found.added)) == has - had
    assert set(names(found.removed)) == had - has
    assert changed <= touched & had
    assert touched & had <= changed | undecided
    assert found.unchanged == len(has & had) - len(changed) - len(undecided)
    if knows:
        assert undecided == set()
