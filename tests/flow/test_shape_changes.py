"""A name that is a file's in one version and a directory's in the next, and back."""

import json
import shutil

import pytest

import modelpack
from modelpack.errors import IntegrityError, UsageError
from modelpack.stores.destination import Destination
from tests.support.models import random_bytes, read_tree, write_files

WEIGHTS = {"kept.bin": random_bytes(3000, 2)}
FLAT = {**WEIGHTS, "tokenizer": random_bytes(2000), "x": b"x"}
DEEP = {
    **WEIGHTS,
    "tokenizer/vocab/a.txt": random_bytes(2000),
    "tokenizer/b.json": b"{}",
    "x/y/z": b"z",
}


@pytest.fixture(params=["packed", "plain"])
def versions(request, tmp_path):
    """References of both versions, and what they hold; plain ones are pulled layer by layer."""
    store = tmp_path / "store"
    for name, files in {"flat": FLAT, "deep": DEEP}.items():
        modelpack.push(write_files(tmp_path / name, files), f"oci:{store}:{name}")
    if request.param == "plain":
        strip_annotations(store)
    return {name: (f"oci:{store}:{name}", read_tree(tmp_path / name)) for name in ("flat", "deep")}


def strip_annotations(store):
    """Make the images of a layout anybody's: without the marks by which modelpack knows its own."""
    index = json.loads((store / "index.json").read_text())
    for entry in index["manifests"]:
        manifest = json.loads(blob(store, entry["digest"]).read_text())
        manifest.pop("annotations", None)
        for layer in manifest["layers"]:
            layer.pop("annotations", None)
        raw = json.dumps(manifest).encode()
        digest = modelpack.digest.Digest.of(raw)
        blob(store, str(digest)).write_bytes(raw)
        entry |= {"digest": str(digest), "size": len(raw)}
    (store / "index.json").write_text(json.dumps(index))


def blob(store, digest):
    return store / "blobs" / digest.replace(":", "/")


@pytest.mark.parametrize(("one", "other"), [("flat", "deep"), ("deep", "flat")])
def test_there_and_back(versions, one, other, tmp_path):
    out = tmp_path / "out"
    for name in (one, other, one):
        reference, tree = versions[name]
        result = modelpack.pull(reference, out)
        assert read_tree(out) == tree
        assert not [line for line in result.warnings if str(out) in line]
        assert modelpack.verify(out).ok


@pytest.mark.parametrize(("one", "other"), [("flat", "deep"), ("deep", "flat")])
def test_stopped_on_the_way(versions, one, other, tmp_path, monkeypatch):
    """At every placement: running again, for either version, ends well."""
    real = Destination.place
    for stop_at in range(4):
        for again in (one, other):
            out = tmp_path / f"{stop_at}-{again}"
            modelpack.pull(versions[one][0], out)
            placed = []

            def place(self, source, path, mode, placed=placed, stop_at=stop_at):
                if len(placed) == stop_at:
                    raise KeyboardInterrupt
                placed.append(path)
                real(self, source, path, mode)

            with monkeypatch.context() as patched:
                patched.setattr(Destination, "place", place)
                try:
                    modelpack.pull(versions[other][0], out)
                except KeyboardInterrupt:
                    pass
                else:
                    assert len(placed) <= stop_at
            modelpack.pull(versions[again][0], out)
            assert read_tree(out) == versions[again][1]
            shutil.rmtree(out)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("one", "other", "change", "named"),
    [
        ("flat", "deep", lambda out: (out / "tokenizer").write_bytes(b"mine"), "tokenizer"),
        ("deep", "flat", lambda out: (out / "tokenizer/b.json").write_bytes(b"me"), "b.json"),
        ("deep", "flat", lambda out: (out / "tokenizer/mine").write_bytes(b""), "tokenizer/mine"),
        ("deep", "flat", lambda out: (out / "x/y/empty").mkdir(), "x/y/empty"),
    ],
    ids=["changed-file", "changed-below", "stranger-below", "directory-below"],
)
def test_what_is_not_ours_stays(versions, one, other, change, named, force, tmp_path):
    out = tmp_path / "out"
    modelpack.pull(versions[one][0], out)
    change(out)
    before = read_tree(out)
    with pytest.raises(UsageError, match=f"{named} is in the way of .* move it away"):
        modelpack.pull(versions[other][0], out, force=force)
    assert read_tree(out) == before


def test_a_link_planted_in_place_of_a_directory(versions, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    modelpack.pull(versions["deep"][0], out)
    (out / "tokenizer").rename(elsewhere)
    (out / "tokenizer").symlink_to(elsewhere)
    before = read_tree(elsewhere)
    with pytest.raises(IntegrityError, match="symlink"):
        modelpack.pull(versions["flat"][0], out)
    assert read_tree(elsewhere) == before
