import hashlib
import json
import os

import pytest

import modelpack
from modelpack.connect import open_repository
from modelpack.errors import FormatError, IntegrityError, NotFoundError
from modelpack.facts import ModelFacts
from modelpack.metadata import CHUNKS, MODEL, SBOM, build_metadata_layer, read_metadata_layer
from modelpack.sbom.sources import directory_source, reference_source, sha256_of_files
from modelpack.sbom.supplement import Model, Supplement
from modelpack.sbom.texts import absolute_uri
from tests.support.faultregistry import FaultRegistry
from tests.support.models import copy_tree
from tests.support.samplemodel import build_sample
from tests.unit.sbom.validators import check_cyclonedx


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_sample(tmp_path_factory.mktemp("sbom") / "model")


@pytest.fixture(scope="module")
def reference(model):
    reference = f"oci:{model.parent / 'store'}:v1"
    modelpack.push(model, reference)
    return reference


@pytest.fixture(scope="module")
def pulled(model, reference):
    modelpack.pull(reference, model.parent / "pulled")
    return model.parent / "pulled"


def at(reference):
    with open_repository(reference) as repository:
        return reference_source(repository)


def test_all_ways_lead_to_the_same_bytes(model, reference, pulled):
    source = at(reference)
    assert source.in_band == (pulled / ".modelpack" / SBOM).read_bytes()
    assert directory_source(pulled).cyclonedx() == source.in_band
    assert directory_source(model).in_band is None
    assert directory_source(model).cyclonedx() == source.in_band
    document = check_cyclonedx(source.in_band)
    assert document["metadata"]["component"]["licenses"][0]["license"]["id"] == "Apache-2.0"


def test_the_same_directory_gives_the_same_digest_elsewhere(
    model, reference, tmp_path, monkeypatch
):
    copy = copy_tree(model, tmp_path / "another/place")
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pushed = modelpack.push(copy, f"oci:{tmp_path / 'other'}:v9")
    assert pushed.digest == at(reference).digest


def test_source_date_is_an_input_like_the_files(model, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    digests = {modelpack.push(model, f"oci:{tmp_path / name}:v1").digest for name in "ab"}
    assert len(digests) == 1
    assert digests != {at(reference).digest}
    document = json.loads(at(f"oci:{tmp_path / 'a'}:v1").in_band)
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_more_that_is_known_makes_another_document(reference):
    added = Supplement(model=Model(version="7"))
    document = check_cyclonedx(at(reference).cyclonedx(supplement=added))
    assert document["metadata"]["component"]["version"] == "7"


def test_a_registry_is_a_location_and_sends_no_weights(model, reference):
    with FaultRegistry() as registry:
        copied = f"{registry.host}/team/model:v1"
        modelpack.copy(reference, copied)
        before = registry.bytes_sent()
        source = at(copied)
        fetched = registry.bytes_sent() - before
    assert at(reference).location is None
    assert source.location == f"oci://{registry.host}/team/model@{source.digest}"
    assert absolute_uri(source.location)
    assert source.in_band == at(reference).in_band
    assert fetched < 100_000


def test_sha256_of_files(model, pulled):
    expected = {
        path.relative_to(model).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in model.rglob("*")
        if path.is_file()
    }
    for directory in (model, pulled):
        source = directory_source(directory)
        assert sha256_of_files(source) == expected
        check_cyclonedx(source.cyclonedx(sha256=expected))


def test_changes_after_the_pull_are_warned_of(pulled, tmp_path):
    copy = tmp_path / "copy"
    os.rename(pulled, copy)
    try:
        (copy / "run.sh").write_text("changed")
        source = directory_source(copy)
        assert "1 of its files are gone or changed since the pull, 'run.sh'" in source.warnings[0]
        assert source.in_band is not None
        with pytest.raises(IntegrityError, match=r"run\.sh has other bytes"):
            sha256_of_files(source)
        (copy / "run.sh").unlink()
        with pytest.raises(NotFoundError, match=r"run\.sh is missing"):
            sha256_of_files(source)
    finally:
        os.rename(copy, pulled)
        modelpack.pull(f"oci:{pulled.parent / 'store'}:v1", pulled, force=True)


def test_what_a_pull_left_out_is_not_warned_of(reference, tmp_path):
    modelpack.pull(reference, tmp_path / "part", include=["*.json"])
    assert directory_source(tmp_path / "part").warnings == ()


def repack(directory, change):
    """Change the files of the metadata layer of a mounted volume, which has no manifest."""
    state = directory / ".modelpack"
    for name in ("manifest.json", "receipt.json"):
        (state / name).unlink(missing_ok=True)
    names = [name for name in (CHUNKS, MODEL, SBOM) if (state / name).exists()]
    files = {name: (state / name).read_bytes() for name in names}
    changed = read_metadata_layer(build_metadata_layer(change(files)))
    for name in names:
        (state / name).unlink()
    for name, data in changed.items():
        (state / name).write_bytes(data)
    return directory


def without(name):
    return lambda files: {key: data for key, data in files.items() if key != name}


def test_artifacts_without_one_get_one_made_now(reference, pulled, tmp_path):
    mount = repack(copy_tree(pulled, tmp_path / "mount"), without(SBOM))
    source = directory_source(mount)
    assert source.in_band is None
    assert source.cyclonedx() == at(reference).in_band


@pytest.mark.parametrize("damage", [without(MODEL), lambda files: {**files, MODEL: b"{}"}])
def test_facts_are_found_again_when_they_are_not_carried(pulled, tmp_path, damage):
    mount = repack(
        copy_tree(pulled, tmp_path / "mount"), lambda files: without(SBOM)(damage(files))
    )
    source = directory_source(mount)
    assert source.facts.licenses == ("apache-2.0",)
    assert source.facts.parameters == directory_source(pulled).facts.parameters


def test_an_sbom_of_other_files_is_refused(pulled, tmp_path):
    def lie(files):
        document = json.loads(files[SBOM])
        document["components"][0]["hashes"][0]["content"] = "0" * 64
        return {**files, SBOM: json.dumps(document).encode()}

    with pytest.raises(IntegrityError, match="describes other files"):
        directory_source(repack(copy_tree(pulled, tmp_path / "mount"), lie))


def test_a_changed_sbom_in_a_pulled_directory_is_refused(pulled, tmp_path):
    copy = copy_tree(pulled, tmp_path / "copy")
    path = copy / ".modelpack" / SBOM
    path.write_bytes(path.read_bytes().replace(b"Apache-2.0", b"MIT-0-Mine"))
    with pytest.raises(IntegrityError, match="SBOM are not those of manifest"):
        directory_source(copy)


def test_what_modelpack_did_not_pack_is_refused(reference):
    with pytest.raises(FormatError, match="was not packed by modelpack"):
        at(f"{reference}-modelpack")


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_nothing_to_describe(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError):
        directory_source(tmp_path / name)


def test_a_directory_of_anything(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    source = directory_source(tmp_path)
    assert source.facts == ModelFacts()
    check_cyclonedx(source.cyclonedx())
