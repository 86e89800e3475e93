import json
from dataclasses import replace

import pytest

from modelpack.content import BlobContent
from modelpack.descriptor import (
    DOCKER_MANIFEST,
    EMPTY_CONFIG,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_LAYER_TAR,
    OCI_MANIFEST,
    Descriptor,
)
from modelpack.digest import Digest
from modelpack.errors import (
    AuthError,
    FormatError,
    IntegrityError,
    ModelpackError,
    NotFoundError,
    UsageError,
)
from modelpack.manifest import Index, Manifest
from modelpack.reference import LayoutReference, parse_reference
from modelpack.registry import repository as module
from modelpack.registry.credentials import Credentials
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.repository import RegistryRepository
from modelpack.storage import Repository, VerifyingStream, read_all
from tests.support.faultregistry import BearerAuth, BlobHost, Fault, FaultRegistry, Features

NAME = "team/model"
CONFIG = Descriptor.of(b"{}", media_type=EMPTY_CONFIG)
LAYER_BYTES = bytes(range(256)) * 1000
LAYER = Descriptor.of(LAYER_BYTES, media_type=OCI_LAYER_TAR)
MANIFEST = Manifest.build(config=CONFIG, layers=[LAYER], annotations={"a": "b"})
ABSENT = Digest("sha256", "0" * 64)


@pytest.fixture
def registry():
    with FaultRegistry() as started:
        started.add_blob(b"{}")
        started.add_blob(LAYER_BYTES)
        started.put_manifest(NAME, "v1", MANIFEST.raw)
        yield started
        assert started.violations == []


@pytest.fixture
def open_repository(tmp_path):
    opened = []

    def make(registry, name=NAME, **options):
        defaults = {
            "auth_file": tmp_path / "none.json",
            "state_directory": tmp_path / "state",
            "patience": 5.0,
        }
        reference = parse_reference(f"{registry.host}/{name}:v1")
        made = RegistryRepository(reference, ConnectionOptions(**{**defaults, **options}))
        opened.append(made)
        return made

    yield make
    for made in opened:
        made.close()


@pytest.fixture
def repository(registry, open_repository):
    return open_repository(registry)


def test_it_is_a_repository(repository, registry):
    checked: Repository = repository
    assert str(checked.reference) == f"{registry.host}/{NAME}:v1"


# Manifests


def test_resolve(repository, registry):
    assert repository.resolve("v1") == MANIFEST.descriptor()
    assert repository.resolve(MANIFEST.digest) == MANIFEST.descriptor()
    assert {record.method for record in registry.requests} == {"HEAD"}


@pytest.mark.parametrize(
    "fault",
    [
        Fault.header("Docker-Content-Digest", None, method="HEAD"),
        Fault.header("Content-Type", "application/json", method="HEAD"),
        Fault.status(405, method="HEAD"),
        Fault.status(501, method="HEAD"),
    ],
    ids=["no digest", "no type", "405", "501"],
)
def test_resolve_falls_back_to_get(repository, registry, fault):
    registry.faults.add(fault)
    assert repository.resolve("v1") == MANIFEST.descriptor()
    assert [record.method for record in registry.requests] == ["HEAD", "GET"]


def test_resolve_believes_no_other_digest(repository, registry):
    registry.faults.add(Fault.wrong_digest_header())
    with pytest.raises(IntegrityError):
        repository.resolve(MANIFEST.digest)


def test_resolve_keeps_the_bound(repository, registry):
    registry.put_manifest(NAME, "huge", b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(IntegrityError, match="larger than"):
        repository.resolve("huge")


@pytest.mark.parametrize("method", ["resolve", "fetch_manifest"])
@pytest.mark.parametrize("name", ["nothing", ABSENT], ids=["tag", "digest"])
def test_missing_manifest(repository, registry, method, name):
    with pytest.raises(NotFoundError, match=registry.host):
        getattr(repository, method)(name)


def test_a_tag_that_is_none_is_not_sent(repository, registry):
    with pytest.raises(UsageError):
        repository.resolve("../../../etc")
    assert registry.requests == []


def test_fetch_manifest(repository, registry):
    assert repository.fetch_manifest("v1") == MANIFEST
    assert repository.fetch_manifest(MANIFEST.digest) == MANIFEST
    assert OCI_INDEX in registry.requests[0].headers["accept"]


def test_fetch_index(repository, registry):
    index = Index.build([MANIFEST.descriptor()])
    registry.put_manifest(NAME, "index", index.raw, OCI_INDEX)
    assert repository.fetch_manifest("index") == index


def test_fetch_by_sha512(repository, registry):
    digest = Digest("sha512", __import__("hashlib").sha512(MANIFEST.raw).hexdigest())
    registry.put_manifest(NAME, None, MANIFEST.raw, digest=digest)
    assert repository.fetch_manifest(digest).raw == MANIFEST.raw


@pytest.mark.parametrize("name", ["v1", MANIFEST.digest], ids=["tag", "digest"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault.wrong_digest_header(),
        Fault.header("Docker-Content-Digest", "sha256:short"),
        Fault.replace_body(b'{"schemaVersion":2}', kind="manifest"),
        Fault.extra_bytes(kind="manifest"),
        Fault.short_body(10, kind="manifest"),
        Fault.oversize(MAX_MANIFEST_BYTES + 1, kind="manifest"),
        Fault.oversize(None, kind="manifest"),
    ],
    ids=lambda fault: fault.name,
)
def test_wrong_manifest_bytes(repository, registry, fault, name):
    registry.faults.add(fault)
    with pytest.raises(IntegrityError) as caught:
        repository.fetch_manifest(name)
    assert caught.value.exit_code == 5


def test_another_manifest_under_a_digest(repository, registry):
    other = Manifest.build(config=CONFIG, layers=[])
    registry.put_manifest(NAME, "v1", other.raw, digest=MANIFEST.digest)
    with pytest.raises(IntegrityError, match=str(MANIFEST.digest)):
        repository.fetch_manifest(MANIFEST.digest)


def test_a_manifest_without_its_type_says_it_itself(repository, registry):
    registry.faults.add(Fault.header("Content-Type", "application/json"))
    assert repository.fetch_manifest("v1") == MANIFEST


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"<html>", "text/html"),
        (b"{}", OCI_MANIFEST),
        (MANIFEST.raw, OCI_INDEX),
        (MANIFEST.raw, DOCKER_MANIFEST),
        (
            json.dumps({"schemaVersion": 1}).encode(),
            "application/vnd.docker.distribution.manifest.v1+json",
        ),
    ],
    ids=["HTML", "empty", "as index", "as Docker's", "schema 1"],
)
def test_what_is_no_manifest(repository, registry, body, media_type):
    registry.put_manifest(NAME, "odd", body)
    registry.faults.add(Fault.header("Content-Type", media_type))
    with pytest.raises(FormatError, match=f"{NAME}:odd"):
        repository.fetch_manifest("odd")


# Blobs


def test_fetch_blob(repository):
    assert repository.fetch_blob(LAYER, max_bytes=LAYER.size) == LAYER_BYTES


def test_fetch_blob_bounds_before_asking(repository, registry):
    with pytest.raises(IntegrityError, match="at most 10"):
        repository.fetch_blob(LAYER, max_bytes=10)
    assert registry.requests == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault.corrupt(17),
        Fault.extra_bytes(),
        Fault.short_body(100),
        Fault.empty_200(announce=False),
        Fault.oversize(None),
        Fault.replace_body(b"x" * LAYER.size),
    ],
    ids=lambda fault: fault.name,
)
def test_wrong_blob_bytes(repository, registry, fault):
    registry.faults.add(fault)
    with pytest.raises(IntegrityError):
        repository.fetch_blob(LAYER, max_bytes=LAYER.size)


def test_missing_blob(repository):
    absent = replace(LAYER, digest=ABSENT)
    assert not repository.has_blob(absent)
    with pytest.raises(NotFoundError):
        repository.fetch_blob(absent, max_bytes=LAYER.size)


def test_has_blob(repository, registry):
    assert repository.has_blob(LAYER)
    with pytest.raises(IntegrityError, match="256000 bytes"):
        repository.has_blob(replace(LAYER, size=5))


def test_has_blob_where_blobs_lie_elsewhere(repository, registry):
    """A signed URL good for GET alone: HEAD would be refused there."""
    with BlobHost(registry.store) as blobs:
        registry.faults.add(
            Fault.redirect(blobs, method=("GET", "HEAD"), kind="blob", digest=LAYER.digest)
        )
        assert repository.has_blob(LAYER)
        assert blobs.requests == []
    assert not repository.has_blob(replace(LAYER, digest=ABSENT))


def test_range_connection(repository, registry):
    connection = repository.range_connection()
    try:
        with connection.open_range(LAYER, 1000, 500) as stream:
            assert read_all(stream, 500) == LAYER_BYTES[1000:1500]
    finally:
        connection.close()


# Tags


def test_tags(repository, registry):
    for tag in ("b", "a", "C"):
        registry.put_manifest(NAME, tag, MANIFEST.raw)
    assert repository.tags() == ["C", "a", "b", "v1"]


def test_tags_in_pages(registry, open_repository):
    registry.features = Features(page_size=3)
    for number in range(10):
        registry.put_manifest(NAME, f"t{number}", MANIFEST.raw)
    assert len(open_repository(registry).tags()) == 11
    assert len(registry.select(kind="tags")) == 4


def test_tags_of_nothing(registry, open_repository):
    with pytest.raises(NotFoundError, match="team/absent"):
        open_repository(registry, "team/absent").tags()


@pytest.mark.parametrize(
    ("body", "tags"), [(b'{"tags":null}', []), (b'{"name":"x","tags":[]}', [])]
)
def test_no_tags(repository, registry, body, tags):
    registry.faults.add(Fault.replace_body(body, kind="tags"), Fault.chunked(kind="tags"))
    assert repository.tags() == tags


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"tags":"v1"}', b'{"tags":["../x"]}', b'{"tags":[5]}', b'{"tags":["a\\u001b"]}'],
)
def test_what_is_no_list_of_tags(repository, registry, body):
    registry.faults.add(Fault.replace_body(body, kind="tags"), Fault.chunked(kind="tags"))
    with pytest.raises(FormatError, match="tags of"):
        repository.tags()


@pytest.mark.parametrize(
    "link",
    [
        "</v2/team/model/tags/list?n=1000>; rel=next",
        "</v2/team/other/tags/list?last=a>; rel=next",
        "<http://127.0.0.2:1/v2/team/model/tags/list?last=a>; rel=next",
        "<file:///etc/passwd>; rel=next",
        "nonsense",
    ],
    ids=["itself", "other repository", "other host", "file", "nonsense"],
)
def test_a_next_page_elsewhere_is_not_followed(repository, registry, link):
    registry.faults.add(Fault.header("Link", link))
    with pytest.raises(IntegrityError):
        repository.tags()
    assert len(registry.requests) == 1


def test_endless_pages_end(repository, registry, monkeypatch):
    monkeypatch.setattr(module, "MAX_TAGS", 3)
    registry.features = Features(page_size=2)
    for number in range(10):
        registry.put_manifest(NAME, f"t{number}", MANIFEST.raw)
    with pytest.raises(FormatError, match="more than 3"):
        repository.tags()
    monkeypatch.setattr(module, "MAX_TAGS", 1000)
    monkeypatch.setattr(module, "MAX_PAGES", 2)
    with pytest.raises(FormatError, match="more than 2 pages"):
        repository.tags()


# Pushing


def test_push_and_fetch(registry, open_repository):
    repository = open_repository(registry, "team/new")
    assert not open_repository(registry, "team/new").has_blob(replace(LAYER, digest=ABSENT))
    blob = Descriptor.of(b"new bytes", media_type=OCI_LAYER_TAR)
    moved = []
    repository.push_blob(blob, BlobContent((b"new ", b"bytes")), moved.append)
    assert sum(moved) == blob.size
    repository.push_blob(CONFIG, BlobContent((b"{}",)))
    manifest = Manifest.build(config=CONFIG, layers=[blob])
    repository.push_manifest(manifest)
    assert repository.fetch_manifest(manifest.digest) == manifest
    repository.push_manifest(manifest, "v2")
    assert repository.tags() == ["v2"]


def test_push_index(repository):
    index = Index.build([MANIFEST.descriptor()])
    repository.push_manifest(index, "all")
    assert repository.fetch_manifest("all") == index


def test_push_is_checked(repository, registry):
    registry.faults.add(Fault.wrong_digest_header(method="PUT"))
    with pytest.raises(IntegrityError):
        repository.push_manifest(MANIFEST, "v2")


def test_push_without_leave(open_repository):
    auth = BearerAuth(users={"ada": "x"}, anonymous={"pull"})
    with FaultRegistry(auth=auth) as registry:
        with pytest.raises(AuthError, match="modelpack login"):
            open_repository(registry).push_manifest(MANIFEST, "v1")
        with pytest.raises(AuthError, match="modelpack login"):
            open_repository(registry).push_blob(CONFIG, BlobContent((b"{}",)))


def test_delete(repository, registry):
    repository.delete_manifest(MANIFEST.digest)
    with pytest.raises(NotFoundError):
        repository.delete_manifest(MANIFEST.digest)
    registry.features = Features(delete=False)
    registry.put_manifest(NAME, "v1", MANIFEST.raw)
    with pytest.raises(ModelpackError):
        repository.delete_manifest(MANIFEST.digest)


def test_mount(registry, open_repository):
    digest = registry.add_blob(b"only there", repo="team/source")
    blob = Descriptor.of(b"only there", media_type=OCI_LAYER_TAR)
    assert str(blob.digest) == digest
    repository = open_repository(registry, "team/target")
    source = parse_reference(f"{registry.host}/team/source:x")
    assert repository.mount_blob(blob, source)
    assert repository.has_blob(blob)
    assert not repository.mount_blob(blob, LayoutReference("/x"))
    assert not repository.mount_blob(blob, parse_reference("other.example/team/source:x"))


def test_a_refused_mounts_upload_is_used(registry, open_repository):
    registry.faults.add(Fault.mount_refused())
    repository = open_repository(registry, "team/target")
    blob = Descriptor.of(b"only there", media_type=OCI_LAYER_TAR)
    assert not repository.mount_blob(blob, parse_reference(f"{registry.host}/team/source:x"))
    repository.push_blob(blob, BlobContent((b"only there",)))
    assert repository.has_blob(blob)
    assert [record.method for record in registry.requests] == ["POST", "PUT", "HEAD"]


def test_mount_asks_for_both_repositories(open_repository):
    auth = BearerAuth(users={"ada": "x"})
    with FaultRegistry(auth=auth) as registry:
        registry.add_blob(LAYER_BYTES, repo="team/source")
        repository = open_repository(
            registry, "team/target", credentials=Credentials(username="ada", password="x")
        )
        assert repository.mount_blob(LAYER, parse_reference(f"{registry.host}/team/source:x"))
        assert auth.tokens_issued[-1].scopes == {
            "team/target": {"pull", "push"},
            "team/source": {"pull"},
        }


# Referrers by the API (without it: test_tagschema.py)


def referrer(artifact_type, text):
    return Manifest.build(
        config=CONFIG,
        layers=[],
        artifact_type=artifact_type,
        subject=MANIFEST.descriptor(),
        annotations={"text": text},
    )


@pytest.mark.parametrize(
    "features",
    [Features(), Features(referrers_filter=False), Features(page_size=2)],
    ids=["filter", "no filter", "pages"],
)
def test_referrers(registry, open_repository, features):
    registry.features = features
    repository = open_repository(registry)
    pushed = [referrer("a/sig", str(number)) for number in range(4)] + [referrer("a/sbom", "x")]
    for manifest in pushed:
        repository.push_manifest(manifest)
    assert repository.tags() == ["v1"]
    found = repository.referrers(MANIFEST.digest)
    assert {item.digest for item in found} == {manifest.digest for manifest in pushed}
    (sbom,) = repository.referrers(MANIFEST.digest, "a/sbom")
    assert sbom.digest == pushed[-1].digest
    assert sbom.annotations == {"text": "x"}
    assert repository.referrers(ABSENT) == []


def test_a_flood_of_referrers(registry, open_repository, monkeypatch):
    monkeypatch.setattr(module, "MAX_REFERRERS", 3)
    registry.features = Features(page_size=2)
    repository = open_repository(registry)
    for number in range(10):
        registry.put_manifest(NAME, None, referrer("a/b", str(number)).raw)
    with pytest.raises(FormatError, match="more than 3 referrers"):
        repository.referrers(MANIFEST.digest)
    assert len(registry.select(kind="referrers")) == 2


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"schemaVersion":2,"manifests":[{}]}'])
def test_what_is_no_list_of_referrers(repository, registry, body):
    registry.faults.add(Fault.replace_body(body, kind="referrers"), Fault.chunked(kind="referrers"))
    with pytest.raises(FormatError):
        repository.referrers(MANIFEST.digest)


# Streams


def stream_bytes(repository, start=0, length=None):
    size = (LAYER.size if length is None else start + length) - start
    with repository.open_blob(LAYER, start, length) as stream:
        return read_all(stream, size)


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, None),
        (0, 10),
        (5, None),
        (100_000, 100_000),
        (LAYER.size, None),
        (7, 0),
        (0, LAYER.size),
    ],
)
def test_open_blob(repository, start, length):
    end = LAYER.size if length is None else start + length
    assert stream_bytes(repository, start, length) == LAYER_BYTES[start:end]


@pytest.mark.parametrize(
    ("start", "length"), [(-1, 5), (0, LAYER.size + 1), (LAYER.size + 1, None)]
)
def test_open_blob_outside(repository, start, length):
    with pytest.raises(ValueError, match="bytes"):
        repository.open_blob(LAYER, start, length)


def test_a_range_where_ranges_are_ignored(repository, registry):
    registry.faults.add(Fault.ignore_range())
    assert stream_bytes(repository, 1000, 50) == LAYER_BYTES[1000:1050]
    assert stream_bytes(repository, 0, 50) == LAYER_BYTES[:50]


@pytest.mark.parametrize(
    "fault",
    [Fault.truncate(100_000, times=2), Fault.reset(60_000, times=3), Fault.status(503, nth=2)],
    ids=lambda fault: fault.name,
)
def test_a_broken_stream_goes_on(repository, registry, fault):
    registry.faults.add(fault, Fault.truncate(50_000, nth=1))
    assert stream_bytes(repository) == LAYER_BYTES
    # What was in flight when the connection was reset may come twice.
    assert registry.repeated_bytes(LAYER.digest) < 200_000


def test_a_stream_that_never_moves(registry, open_repository):
    registry.faults.add(Fault.truncate(0))
    with pytest.raises(ModelpackError, match="gave up"):
        stream_bytes(open_repository(registry, patience=1.0))


@pytest.mark.parametrize(
    "fault",
    [
        Fault.wrong_content_range(),
        Fault.other_range(5),
        Fault.shorter_range(10),
        Fault.header("Content-Range", "nonsense", method="GET"),
    ],
    ids=lambda fault: fault.name,
)
def test_another_range_than_asked_for(repository, registry, fault):
    registry.faults.add(fault)
    with pytest.raises(IntegrityError):
        stream_bytes(repository, 100, 50)


def test_wrong_bytes_are_found_by_the_verifying_stream(repository, registry):
    registry.faults.add(Fault.corrupt(200_000))
    with (
        repository.open_blob(LAYER) as stream,
        pytest.raises(IntegrityError, match="other bytes"),
    ):
        read_all(VerifyingStream(stream, LAYER), LAYER.size)


def test_a_longer_blob_than_described(repository, registry):
    registry.faults.add(Fault.extra_bytes(5))
    with pytest.raises(IntegrityError):
        stream_bytes(repository)


def test_a_missing_blob_is_known_when_opened(repository):
    with pytest.raises(NotFoundError), repository.open_blob(replace(LAYER, digest=ABSENT)):
        pass


def test_a_stream_over_a_redirect(registry, open_repository):
    with BlobHost(registry.store) as blobs:
        registry.faults.add(Fault.redirect(blobs))
        assert stream_bytes(open_repository(registry)) == LAYER_BYTES
        assert blobs.violations == []
