"""Manifests that are fetched, believed, and refused."""

import json

import pytest

from modelpack.descriptor import (
    DOCKER_MANIFEST,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
)
from modelpack.digest import Digest
from modelpack.errors import (
    FormatError,
    IntegrityError,
    NotFoundError,
    UsageError,
)
from modelpack.manifest import Index, Manifest
from modelpack.storage import Repository
from tests.support.faultregistry import Fault
from tests.support.onemodel import ABSENT, CONFIG, MANIFEST, NAME


def test_it_is_a_repository(repository, registry):
    checked: Repository = repository
    assert str(checked.reference) == f"{registry.host}/{NAME}:v1"


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
