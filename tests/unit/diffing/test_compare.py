import json
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import modelpack
from modelpack import packing
from modelpack.chunking import CHUNK_BYTES, SMALL_TENSOR_BYTES
from modelpack.connect import open_repository
from modelpack.diffing import compare, diff, directory_side, reference_side
from modelpack.errors import FormatError, IntegrityError, NotFoundError
from modelpack.manifest import Manifest
from modelpack.reference import LayoutReference
from modelpack.stores.layout import LayoutRepository
from tests.support.faultregistry import FaultRegistry
from tests.support.images import write_image
from tests.support.tensorfiles import safetensors_file

C, S = CHUNK_BYTES, SMALL_TENSOR_BYTES


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
    assert [each.name for each in tensors.undecided] == ["0.bias", "0.norm"]
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


def test_an_unfinished_pull_is_mentioned(store, tmp_path, opened):
    modelpack.pull(f"{store}:v1", tmp_path / "there")
    receipt = tmp_path / "there/.modelpack/receipt.json"
    receipt.write_text(json.dumps({**json.loads(receipt.read_text()), "complete": False}))
    found = diff(opened(tmp_path / "there"), opened(f"{store}:v1"))
    assert "not finished" in found.warnings[0]
    assert found.identical


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
