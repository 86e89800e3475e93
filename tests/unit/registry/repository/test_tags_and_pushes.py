"""Tags, pushing, mounting, deleting, and referrers by the API (without it: test_tagschema.py)."""

from dataclasses import replace

import pytest

from modelpack.content import BlobContent
from modelpack.descriptor import (
    OCI_LAYER_TAR,
    Descriptor,
)
from modelpack.errors import (
    AuthError,
    FormatError,
    IntegrityError,
    ModelpackError,
    NotFoundError,
)
from modelpack.manifest import Index, Manifest
from modelpack.reference import LayoutReference, parse_reference
from modelpack.registry import repository as module
from modelpack.registry.credentials import Credentials
from tests.support.faultregistry import BearerAuth, Fault, FaultRegistry, Features
from tests.support.onemodel import ABSENT, CONFIG, LAYER, LAYER_BYTES, MANIFEST, NAME


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
