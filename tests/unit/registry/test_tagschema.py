import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelpack.descriptor import EMPTY_CONFIG, OCI_INDEX, Descriptor
from modelpack.digest import Digest
from modelpack.errors import FormatError, NetworkError
from modelpack.manifest import Index, Manifest
from modelpack.reference import parse_reference
from modelpack.registry import tagschema
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.repository import RegistryRepository
from tests.support.faultregistry import Fault, FaultRegistry, Features

NAME = "team/model"
CONFIG = Descriptor.of(b"{}", media_type=EMPTY_CONFIG)
SUBJECT = Manifest.build(config=CONFIG, layers=[])
TAG = f"sha256-{SUBJECT.digest.hex}"


def referrer(text, artifact_type="a/sig"):
    return Manifest.build(
        config=CONFIG,
        layers=[],
        artifact_type=artifact_type,
        subject=SUBJECT.descriptor(),
        annotations={"text": text},
    )


@pytest.fixture
def registry():
    with FaultRegistry(features=Features(referrers=False)) as started:
        started.add_blob(b"{}")
        started.put_manifest(NAME, "v1", SUBJECT.raw)
        yield started
        assert started.violations == []


@pytest.fixture
def open_repository(registry, tmp_path):
    opened = []

    def make():
        options = ConnectionOptions(auth_file=tmp_path / "none.json", patience=10.0)
        opened.append(RegistryRepository(parse_reference(f"{registry.host}/{NAME}:v1"), options))
        return opened[-1]

    yield make
    for made in opened:
        made.close()


@pytest.mark.parametrize(
    ("digest", "tag"),
    [
        (Digest("sha256", "a" * 64), "sha256-" + "a" * 64),
        (Digest("sha512", "b" * 128), "sha512-" + "b" * 64),
    ],
)
def test_tag(digest, tag):
    assert tagschema.tag_of(digest) == tag


def test_add_and_list(registry, open_repository):
    repository = open_repository()
    assert repository.referrers(SUBJECT.digest) == []
    first, second = referrer("1"), referrer("2", "a/sbom")
    repository.push_manifest(first)
    repository.push_manifest(second)
    repository.push_manifest(second)
    assert [item.digest for item in repository.referrers(SUBJECT.digest)] == [
        first.digest,
        second.digest,
    ]
    (found,) = repository.referrers(SUBJECT.digest, "a/sbom")
    assert (found.artifact_type, found.annotations) == ("a/sbom", {"text": "2"})
    assert len(registry.select(kind="referrers")) == 1, "the API is asked once, then known absent"


def test_unknown_members_are_kept(registry, open_repository):
    entry = {**referrer("old").descriptor().to_json(), "x-own": {"deep": [1]}}
    registry.put_manifest(NAME, None, referrer("old").raw)
    old = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "x-top": "kept",
        "manifests": [entry],
        "annotations": {"a": "b"},
    }
    registry.put_manifest(NAME, TAG, old, OCI_INDEX)
    open_repository().push_manifest(referrer("new"))
    stored = registry.manifest(NAME, TAG).json()
    assert stored["x-top"] == "kept"
    assert stored["annotations"] == {"a": "b"}
    assert stored["manifests"][0] == entry
    assert stored["manifests"][1]["digest"] == str(referrer("new").digest)


@pytest.mark.parametrize("answer", [400, 404, 405, 501])
def test_ways_to_have_no_api(registry, open_repository, answer):
    registry.faults.add(Fault.status(answer, kind="referrers"))
    repository = open_repository()
    repository.push_manifest(referrer("1"))
    assert len(repository.referrers(SUBJECT.digest)) == 1


def test_a_page_for_people_is_no_api(registry, open_repository):
    registry.features = Features()
    registry.faults.add(Fault.header("Content-Type", "text/html", kind="referrers"))
    assert open_repository().referrers(SUBJECT.digest) == []


@pytest.mark.parametrize("writers", [2, 6])
def test_writers_at_once_lose_nothing(registry, open_repository, writers):
    gate = threading.Barrier(writers)
    # Slow answers widen the window in which one overwrites another.
    registry.faults.add(Fault.delay(0.02, path=TAG))

    def push(number):
        repository = open_repository()
        gate.wait()
        repository.push_manifest(referrer(str(number)))

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(push, range(writers)))
    listed = {item["digest"] for item in registry.manifest(NAME, TAG).json()["manifests"]}
    assert listed == {str(referrer(str(number)).digest) for number in range(writers)}


def test_an_entry_that_another_writer_dropped_is_put_back(registry, open_repository):
    """Someone who had read the list before us writes it after us, without our entry."""
    other = referrer("other")
    registry.put_manifest(NAME, None, other.raw)
    slept = []

    def overwrite(seconds):
        slept.append(seconds)
        if len(slept) == 1:
            index = Index.build([other.descriptor()])
            registry.put_manifest(NAME, TAG, index.raw, OCI_INDEX)

    ours = referrer("ours")
    registry.put_manifest(NAME, None, ours.raw)
    tagschema.add(open_repository().client, SUBJECT.digest, ours.descriptor(), sleep=overwrite)
    listed = [item["digest"] for item in registry.manifest(NAME, TAG).json()["manifests"]]
    assert listed == [str(other.digest), str(ours.digest)]
    assert len(slept) == 2


def test_writers_that_never_let_us_through(registry, open_repository):
    ours = referrer("ours")
    registry.put_manifest(NAME, None, ours.raw)
    registry.faults.add(Fault.status(404, method="GET", path=TAG))
    with pytest.raises(NetworkError, match="other writers"):
        tagschema.add(
            open_repository().client, SUBJECT.digest, ours.descriptor(), sleep=lambda _: None
        )


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (SUBJECT.raw, "application/vnd.oci.image.manifest.v1+json"),
        (b"not JSON", OCI_INDEX),
        (json.dumps({"schemaVersion": 2, "manifests": "x"}).encode(), OCI_INDEX),
        (json.dumps({"schemaVersion": 2, "manifests": [{"digest": 5}]}).encode(), OCI_INDEX),
    ],
    ids=["manifest", "no JSON", "no list", "no descriptor"],
)
def test_a_tag_with_something_else_is_left_alone(registry, open_repository, body, media_type):
    registry.put_manifest(NAME, TAG, body, media_type)
    with pytest.raises(FormatError, match=TAG):
        open_repository().referrers(SUBJECT.digest)
    with pytest.raises(FormatError, match=TAG):
        open_repository().push_manifest(referrer("1"))
    assert registry.manifest(NAME, TAG).data == body
    registry.clear_records()


def test_a_full_list_takes_no_more(registry, open_repository, monkeypatch):
    monkeypatch.setattr(tagschema, "MAX_MANIFEST_BYTES", 300)
    with pytest.raises(FormatError, match="too many referrers"):
        open_repository().push_manifest(referrer("x" * 300))
