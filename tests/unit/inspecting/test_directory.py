import json
import os
from pathlib import Path

import pytest

import modelpack
from modelpack.connect import open_repository
from modelpack.descriptor import DOCKER_MANIFEST, OCI_MANIFEST
from modelpack.errors import IntegrityError, NotFoundError, UsageError
from modelpack.inspecting import inspect_directory, inspect_reference
from modelpack.reference import LayoutReference
from modelpack.stores.layout import LayoutRepository
from tests.support.images import write_image
from tests.support.smallmodels import write_small_model


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path):
    return write_small_model(tmp_path / "model")


@pytest.fixture
def store(tmp_path, model):
    reference = f"oci:{tmp_path / 'store'}:v1"
    modelpack.push(model, reference, annotations={"org.example.team": "red"})
    return reference


def inspect(reference):
    with open_repository(reference) as repository:
        return inspect_reference(repository)


@pytest.fixture
def pulled(store, tmp_path):
    modelpack.pull(store, tmp_path / "pulled")
    return tmp_path / "pulled"


def test_a_pulled_directory_says_the_same_as_the_reference(store, pulled):
    there, here = inspect(store).to_json(), inspect_directory(pulled).to_json()
    assert here["directory"] == str(pulled)
    different = {key for key in there if there[key] != here[key]}
    assert different == {"directory", "companion", "fetched_bytes"}


def test_a_mounted_volume_has_no_manifest_to_show(pulled):
    for name in ("manifest.json", "receipt.json"):
        (pulled / ".modelpack" / name).unlink()
    found = inspect_directory(pulled)
    assert (found.state, found.digest, found.reference) == ("mounted", None, None)
    assert found.chunks.count == sum(file.chunks for file in found.files)
    assert found.weights().parameters
    assert found.warnings == ()


def test_a_tampered_header_in_a_mounted_volume_is_refused(pulled):
    for name in ("manifest.json", "receipt.json"):
        (pulled / ".modelpack" / name).unlink()
    data = bytearray((pulled / "model.safetensors").read_bytes())
    data[20] ^= 1
    (pulled / "model.safetensors").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        inspect_directory(pulled)


def test_files_that_are_gone_or_changed_are_named(pulled):
    (pulled / "config.json").unlink()
    (pulled / "model.safetensors").write_bytes(b"something else")
    (pulled / "run.sh").unlink()
    (pulled / "run.sh").symlink_to("/etc/passwd")
    found = inspect_directory(pulled)
    assert {file.path for file in found.files if not file.present} == {"config.json", "run.sh"}
    assert set(found.warnings) == {
        "'config.json' is missing; pull again",
        "'run.sh' is missing; pull again",
        "'model.safetensors' was changed since it was pulled",
    }
    assert {file.path for file in found.files if file.tensors} == {"sub/q4.gguf"}


def test_files_that_were_not_asked_for_are_not_missing(store, tmp_path):
    modelpack.pull(store, tmp_path / "some", include=["*.json", "*.gguf"])
    found = inspect_directory(tmp_path / "some")
    assert {file.path for file in found.files if file.present} == {"config.json", "sub/q4.gguf"}
    assert found.warnings == ()


def test_an_index_that_the_manifest_does_not_cover_is_refused(pulled):
    facts = pulled / ".modelpack/model.json"
    facts.write_bytes(facts.read_bytes().replace(b"TestModel", b"FineModel"))
    with pytest.raises(IntegrityError, match="are not those of manifest"):
        inspect_directory(pulled)


def test_records_are_not_read_through_links(pulled):
    index = pulled / ".modelpack/chunks.bin"
    index.rename(pulled / "elsewhere")
    index.symlink_to(pulled / "elsewhere")
    with pytest.raises(IntegrityError, match="symlink"):
        inspect_directory(pulled)


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_directory_pulled_from_another_tools_image_shows_its_layers(tmp_path, media_type):
    layout = LayoutRepository(
        LayoutReference(str(write_image(tmp_path / "image", [{"weights.bin": b"x" * 100}])))
    )
    value = json.loads(layout.fetch_manifest("latest").raw)
    state = tmp_path / "pulled/.modelpack"
    state.mkdir(parents=True)
    (state / "manifest.json").write_text(json.dumps({**value, "mediaType": media_type}))
    found = inspect_directory(tmp_path / "pulled")
    assert found.state == "foreign"
    assert found.media_type == media_type
    assert len(found.layers) == 1
    assert "without a chunk index" in found.warnings[0]


def test_an_unfinished_pull_is_mentioned(pulled):
    receipt = pulled / ".modelpack/receipt.json"
    value = json.loads(receipt.read_text())
    receipt.write_text(json.dumps({**value, "complete": False}))
    assert "not finished" in inspect_directory(pulled).warnings[0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, NotFoundError, "does not exist"),
        (lambda path: path.mkdir(), NotFoundError, "was not pulled by modelpack"),
        (lambda path: path.write_text("x"), UsageError, "is not a directory"),
        (lambda path: write_image(path, [{"a": b"b"}]), UsageError, "is an OCI layout; write oci:"),
    ],
    ids=["nothing", "plain", "file", "layout"],
)
def test_says_why_a_directory_cannot_be_inspected(tmp_path: Path, make, error, message):
    make(tmp_path / "it")
    with pytest.raises(error, match=message):
        inspect_directory(tmp_path / "it")


def test_leaves_no_descriptors_open(pulled):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        inspect_directory(pulled)
    assert len(os.listdir("/proc/self/fd")) == before
