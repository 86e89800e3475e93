import json
import shutil
import time
from array import array
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelpack
from modelpack import packing
from modelpack.chunkindex import FileChunks, build_index
from modelpack.chunking import CHUNK_BYTES, SMALL_TENSOR_BYTES, chunk_lengths
from modelpack.connect import open_repository
from modelpack.diffing import compare, diff, directory_side, reference_side
from modelpack.diffing.files import compare_files, estimate_pull
from modelpack.diffing.report import Version
from modelpack.diffing.tensors import TensorSide, compare_tensors
from modelpack.digest import Digest, chunk_hash
from modelpack.errors import FormatError, IntegrityError, NotFoundError
from modelpack.layering import SourceFile, plan_layers
from modelpack.manifest import Manifest
from modelpack.reference import LayoutReference
from modelpack.stores.layout import LayoutRepository
from modelpack.tensors import bytes_reader, probe
from tests.support.faultregistry import FaultRegistry
from tests.support.images import write_image
from tests.support.tensorfiles import STRING, gguf_file, gguf_pair, safetensors_file

C, S = CHUNK_BYTES, SMALL_TENSOR_BYTES


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


# --- values for the pure parts -------------------------------------------------------------------


def version(files, *, cut=None, name="v", index_bytes=0):
    """A side whose files are ``path: bytes`` or ``path: (bytes, mode)``, cut every ``cut`` bytes."""
    contents = {
        path: value if isinstance(value, tuple) else (value, 0o644) for path, value in files.items()
    }
    plan = plan_layers(
        SourceFile(path=path, size=len(data), mode=mode) for path, (data, mode) in contents.items()
    )

    def chunks(path):
        data = contents[path][0]
        if cut:
            lengths = [len(data[at : at + cut]) for at in range(0, len(data), cut)]
        else:
            lengths = chunk_lengths(len(data), probe(path, bytes_reader(data), len(data)))
        hashes, at = b"", 0
        for length in lengths:
            hashes += chunk_hash(data[at : at + length])
            at += length
        return FileChunks(blake3=chunk_hash(data), lengths=array("I", lengths), hashes=hashes)

    index = build_index(
        plan,
        [Digest.of(str(number).encode()) for number in range(len(plan))],
        (chunks(placed.file.path) for layer in plan for placed in layer.files),
    )
    return Version(
        name=name,
        kind="artifact",
        digest=None,
        index=index,
        numbers=tuple(range(len(index.files))),
        index_bytes=index_bytes,
    )


# --- files ---------------------------------------------------------------------------------------


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


# --- tensors -------------------------------------------------------------------------------------


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


# --- sides and the whole -------------------------------------------------------------------------


def write_model(root, seed=0, **changes):
    """A small model; ``changes`` replace tensors by name."""
    random = np.random.default_rng(seed)
    tensors = {
        "0.big": random.bytes(C + 1000),
        "0.bias": random.bytes(100),
        "0.norm": random.bytes(100),
        "1.big": random.bytes(S),
    } | changes
    root.mkdir(parents=True)
    (root / "model.safetensors").write_bytes(
        safetensors_file(
            [(name, "U8", [len(data)], data) for name, data in tensors.items() if data]
        )
    )
    (root / "sub").mkdir()
    (root / "sub/config.json").write_text('{"a": 1}')
    (root / "big.bin").write_bytes(random.bytes(3 * C))
    (root / "README.md").write_text("# hello\n")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two versions of a model; tests leave them as they are."""
    root = tmp_path_factory.mktemp("models")
    one = write_model(root / "one")
    two = write_model(root / "two", **{"0.bias": b"x" * 100, "2.new": b"n" * S, "1.big": b""})
    (two / "README.md").rename(two / "NOTES.md")
    (two / "sub/config.json").write_text('{"a": 2}')
    with (two / "big.bin").open("r+b") as file:
        file.seek(C + 5)
        file.write(b"changed")
    (two / "extra").write_bytes(b"e" * 5000)
    return one, two


@pytest.fixture(scope="module")
def store(tmp_path_factory, models):
    """A layout with both, under v1 and v2."""
    reference = f"oci:{tmp_path_factory.mktemp('layout') / 'store'}"
    for directory, tag in zip(models, ("v1", "v2"), strict=True):
        modelpack.push(directory, f"{reference}:{tag}")
    return reference


@pytest.fixture
def opened():
    """A function that opens a side, as the command line would."""
    with ExitStack() as stack:

        def side(subject):
            if isinstance(subject, Path):
                return stack.enter_context(directory_side(subject))
            return reference_side(stack.enter_context(open_repository(subject)))

        yield side


def shape_of(found):
    """What a difference says, without what depends on where the sides came from."""
    value = found.to_json()
    for key in ("index_bytes", "fetched_bytes"):
        del value["pull"][key]
    return {key: value[key] for key in ("identical", "files", "pull")}


def test_the_whole_picture(store, opened):
    found = diff(opened(f"{store}:v1"), opened(f"{store}:v2"))
    value = found.to_json()
    assert json.loads(json.dumps(value)) == value
    files = value["files"]
    assert [each["path"] for each in files["added"]] == ["extra"]
    assert files["removed"] == []
    assert [(each["previous_path"], each["path"]) for each in files["renamed"]] == [
        ("README.md", "NOTES.md")
    ]
    changed = {each["path"]: each for each in files["changed"]}
    assert changed.keys() == {"big.bin", "model.safetensors", "sub/config.json"}
    assert files["unchanged"] == 0
    assert changed["big.bin"]["fetched_bytes"] == C
    assert changed["big.bin"]["reused_bytes"] == 2 * C
    assert changed["big.bin"]["tensors"] is None
    assert files["renamed"][0]["fetched_bytes"] == 0
    tensors = changed["model.safetensors"]["tensors"]
    assert [each["name"] for each in tensors["changed"]] == ["0.bias"]
    assert tensors["changed"][0]["changed_bytes"] == 100
    assert [each["name"] for each in tensors["added"]] == ["2.new"]
    assert [each["name"] for each in tensors["removed"]] == ["1.big"]
    assert tensors["unchanged"] == 2
    assert value["pull"]["bytes"] == value["b"]["bytes"]
    everything = [each for kind in ("added", "changed", "renamed") for each in files[kind]]
    assert sum(each["fetched_bytes"] for each in everything) == value["pull"]["chunk_bytes"]


@pytest.mark.parametrize("a", ["reference", "pulled", "plain"])
@pytest.mark.parametrize("b", ["reference", "pulled", "plain"])
def test_it_does_not_matter_where_a_version_lies(store, models, tmp_path, opened, a, b):
    sides = []
    for kind, tag, directory in ((a, "v1", models[0]), (b, "v2", models[1])):
        if kind == "pulled":
            modelpack.pull(f"{store}:{tag}", tmp_path / tag)
        places = {"reference": f"{store}:{tag}", "pulled": tmp_path / tag, "plain": directory}
        sides.append(opened(places[kind]))
        assert sides[-1].version.kind == ("artifact" if kind == "reference" else kind)
    found = diff(*sides)
    assert found.warnings == ()
    assert shape_of(found) == shape_of(diff(opened(f"{store}:v1"), opened(f"{store}:v2")))
    reverse = diff(sides[1], sides[0])
    assert len(reverse.of_kind("removed")) == len(found.of_kind("added"))


def no_edit(_):
    """Leave the model as it is."""


def edit_middle(root):
    with (root / "big.bin").open("r+b") as file:
        file.seek(C)
        file.write(b"!")


def edit_ends(root):
    """Leave a gap of one chunk between two that changed, and small ones to be bridged."""
    with (root / "big.bin").open("r+b") as file:
        file.write(b"!")
        file.seek(2 * C)
        file.write(b"!")
    (root / "README.md").write_text("other\n")
    (root / "sub/config.json").write_text("other\n")


def edit_twins(root):
    (root / "new.bin").write_bytes(b"t" * (2 * C))
    (root / "again.bin").write_bytes(b"t" * (2 * C))
    (root / "copy.bin").write_bytes((root / "big.bin").read_bytes())


def edit_names(root):
    (root / "big.bin").rename(root / "renamed.bin")
    (root / "README.md").chmod(0o755)
    (root / "sub/config.json").unlink()


def edit_everything(root):
    shutil.rmtree(root)
    write_model(root, seed=5)


@pytest.mark.parametrize(
    "edit", [no_edit, edit_middle, edit_ends, edit_twins, edit_names, edit_everything]
)
def test_the_estimate_is_what_the_pull_does(tmp_path, opened, edit):
    reference = f"oci:{tmp_path / 'store'}"
    root = write_model(tmp_path / "model")
    modelpack.push(root, f"{reference}:v1")
    edit(root)
    modelpack.push(root, f"{reference}:v2")
    modelpack.pull(f"{reference}:v1", tmp_path / "there")
    found = diff(opened(tmp_path / "there"), opened(f"{reference}:v2"))
    done = modelpack.pull(f"{reference}:v2", tmp_path / "there")
    assert found.pull.fetched_bytes == done.fetched_bytes
    assert found.pull.reused_bytes == done.reused_bytes
    assert found.pull.bytes == done.bytes
    assert found.identical == (edit is no_edit)


def test_headers_and_small_tensors_are_all_that_is_fetched(models):
    with FaultRegistry() as registry:
        reference = f"{registry.host}/team/model"
        for directory, tag in zip(models, ("v1", "v2"), strict=True):
            modelpack.push(directory, f"{reference}:{tag}")
        before = len(registry.requests)
        with (
            open_repository(f"{reference}:v1") as one,
            open_repository(f"{reference}:v2") as two,
        ):
            found = diff(reference_side(one), reference_side(two))
        sent = sum(
            request.bytes_sent for request in registry.requests[before:] if request.kind == "blob"
        )
        indexes = found.a.index_bytes + found.b.index_bytes
        assert [each.path for each in found.files if each.tensors] == ["model.safetensors"]
        assert sent < indexes + 4096
        assert registry.violations == []


def test_undecided_tensors_are_counted_when_reading_them_costs_too_much(store, opened, monkeypatch):
    monkeypatch.setattr(compare, "MAX_SETTLING_BYTES", 0)
    found = diff(opened(f"{store}:v1"), opened(f"{store}:v2"))
    tensors = next(change.tensors for change in found.files if change.tensors)
    assert names(tensors.undecided) == ["0.bias", "0.norm"]
    assert tensors.changed == ()


def test_a_tampered_header_is_refused(store, tmp_path, opened):
    modelpack.pull(f"{store}:v1", tmp_path / "there")
    path = tmp_path / "there/model.safetensors"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model\.safetensors.*at offset 0"):
        diff(opened(tmp_path / "there"), opened(f"{store}:v2"))


def test_only_files_in_place_count_and_touched_ones_are_named(store, tmp_path, opened):
    there = tmp_path / "there"
    modelpack.pull(f"{store}:v1", there)
    (there / "big.bin").unlink()
    (there / "README.md").write_text("touched\n")
    found = diff(opened(there), opened(f"{store}:v1"))
    assert [(change.kind, change.path) for change in found.files] == [("added", "big.bin")]
    assert found.pull.chunk_bytes == 3 * C
    assert len(found.warnings) == 1
    assert "'README.md' was changed since it was pulled" in found.warnings[0]


def test_a_partial_pull_counts_for_what_it_took(store, tmp_path, opened):
    modelpack.pull(f"{store}:v1", tmp_path / "some", exclude=["*.safetensors"])
    found = diff(opened(tmp_path / "some"), opened(f"{store}:v1"))
    assert [change.path for change in found.of_kind("added")] == ["model.safetensors"]
    assert found.unchanged == 3
    assert found.pull.reused_bytes > 3 * C


def test_a_plain_directory_is_hashed_once(models, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    hashed = []
    hash_layer = packing._hash_layer

    def counting(*arguments):
        hashed.append(arguments)
        return hash_layer(*arguments)

    monkeypatch.setattr(packing, "_hash_layer", counting)
    time.sleep(0.1)  # a file has to be older than the clock's grain for its times to be believed
    with directory_side(models[0]) as first:
        pass
    count = len(hashed)
    with directory_side(models[0]) as second:
        pass
    assert first.version == second.version
    assert len(hashed) == count == 3
    with directory_side(models[0], use_cache=False):
        pass
    assert len(hashed) == 6


def test_links_in_a_plain_directory_are_what_they_point_at(models, store, opened, tmp_path):
    one = shutil.copytree(models[0], tmp_path / "one")
    (one / "big.bin").rename(one / "blob")
    (one / "big.bin").symlink_to("blob")
    found = diff(opened(f"{store}:v1"), opened(one))
    assert [(change.kind, change.path) for change in found.files] == [("added", "blob")]
    assert found.pull.chunk_bytes == 0


def recompressed(store, _):
    layout = LayoutRepository(LayoutReference(store.removeprefix("oci:"), tag="v1"))
    manifest = layout.fetch_manifest("v1")
    layout.push_manifest(
        Manifest.build(
            config=manifest.config, layers=manifest.layers[:1], annotations=manifest.annotations
        ),
        "copied",
    )
    return f"{store}:copied"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda store, _: f"{store}:v9", NotFoundError, "v9 does not exist"),
        (lambda store, _: f"{store}:v1-modelpack", FormatError, "was not packed by modelpack"),
        (recompressed, IntegrityError, "recompressed them"),
        (lambda _, tmp_path: tmp_path / "nothing", NotFoundError, "does not exist"),
        (
            lambda _, tmp_path: f"oci:{write_image(tmp_path / 'image', [{'a': b'b'}])}:latest",
            FormatError,
            "pull it and name the directory",
        ),
    ],
    ids=["no tag", "companion", "recompressed", "no directory", "image"],
)
def test_says_why_something_cannot_be_compared(store, tmp_path, opened, make, error, message):
    with pytest.raises(error, match=message):
        opened(make(store, tmp_path))
