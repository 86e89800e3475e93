"""Every breach of the protocol is refused, recorded, and no reason to stop."""

import json
import socket

import pytest

from tests.support.faultregistry import (
    OCI_INDEX,
    OCI_MANIFEST,
    FaultRegistry,
    Features,
    build_manifest,
    describe,
)
from tests.support.faultregistry.client import Client
from tests.support.faultregistry.manifests import check_manifest
from tests.support.faultregistry.wire import Refusal

OCTETS = "application/octet-stream"
BLOB = bytes(range(256)) * 40
REPO = "team/model"
UPLOADS = f"/v2/{REPO}/blobs/uploads/"
DIGEST = describe(BLOB)["digest"]
ABSENT = describe(b"absent")["digest"]


@pytest.fixture
def registry():
    with FaultRegistry() as started:
        yield started


@pytest.fixture
def client(registry):
    with Client(registry) as opened:
        yield opened


def put(client, reference, value):
    return client.ask(
        "PUT", f"/v2/{REPO}/manifests/{reference}", json.dumps(value), Content_Type=OCI_MANIFEST
    )


def _patch(client, place="0-99", data=b"x" * 100, media_type=OCTETS, location=None):
    location = location or client.ask("POST", UPLOADS)["Location"]
    return client.ask("PATCH", location, data, Content_Type=media_type, Content_Range=place)


def _stale(client):
    location = client.ask("POST", UPLOADS)["Location"]
    _patch(client, location=location)
    return _patch(client, "100-199", location=location)


def _small_chunk(client):
    location = _patch(client)["Location"]
    return _patch(client, "100-199", location=location)


BLOB_PATH = f"/v2/{REPO}/blobs/{DIGEST}"
REFERRERS = f"/v2/{REPO}/referrers/{DIGEST}"
MANIFEST_PATH = f"/v2/{REPO}/manifests/v1"
VIOLATIONS = {
    "no-user-agent": (lambda c: c.get("/v2/", User_Agent=""), 400, "UNSUPPORTED"),
    "no-accept": (lambda c: c.get(MANIFEST_PATH, Accept=""), 400, "UNSUPPORTED"),
    "unknown-query": (lambda c: c.get(f"{BLOB_PATH}?x=1"), 400, "UNSUPPORTED"),
    "query-twice": (
        lambda c: c.get(f"{REFERRERS}?artifactType=a&artifactType=b"),
        400,
        "UNSUPPORTED",
    ),
    "unknown-path": (lambda c: c.get("/v2/_catalog"), 404, "UNSUPPORTED"),
    "outside-v2": (lambda c: c.get("/v1/"), 404, "UNSUPPORTED"),
    "bad-name": (lambda c: c.get("/v2/Team/tags/list"), 400, "NAME_INVALID"),
    "dots-in-name": (lambda c: c.get("/v2/a/../b/tags/list"), 400, "NAME_INVALID"),
    "bad-digest": (lambda c: c.get(f"/v2/{REPO}/blobs/sha256:12"), 400, "DIGEST_INVALID"),
    "bad-referrers": (lambda c: c.get(f"/v2/{REPO}/referrers/v1"), 400, "DIGEST_INVALID"),
    "bad-tag": (lambda c: c.get(f"/v2/{REPO}/manifests/.v"), 404, "MANIFEST_INVALID"),
    "method": (lambda c: c.ask("POST", BLOB_PATH, b"x"), 405, "UNSUPPORTED"),
    "body-on-get": (lambda c: c.ask("GET", BLOB_PATH, b"x"), 400, "UNSUPPORTED"),
    "many-ranges": (lambda c: c.get(BLOB_PATH, Range="bytes=0-1,4-5"), 400, "UNSUPPORTED"),
    "no-range": (lambda c: c.get(BLOB_PATH, Range="bytes=x"), 400, "UNSUPPORTED"),
    "backwards": (lambda c: c.get(BLOB_PATH, Range="bytes=9-1"), 400, "UNSUPPORTED"),
    "unasked-credentials": (
        lambda c: c.get("/v2/", Authorization="Basic eDp5"),
        400,
        "UNAUTHORIZED",
    ),
    "post-body": (lambda c: c.ask("POST", UPLOADS, b"x"), 400, "BLOB_UPLOAD_INVALID"),
    "post-wrong-digest": (
        lambda c: c.ask("POST", f"{UPLOADS}?digest={ABSENT}", b"x", Content_Type=OCTETS),
        400,
        "DIGEST_INVALID",
    ),
    "from-alone": (lambda c: c.ask("POST", f"{UPLOADS}?from=one"), 400, "UNSUPPORTED"),
    "mount-no-digest": (lambda c: c.ask("POST", f"{UPLOADS}?mount=x"), 400, "DIGEST_INVALID"),
    "patch-no-type": (lambda c: _patch(c, media_type=""), 400, "BLOB_UPLOAD_INVALID"),
    "patch-no-range": (lambda c: _patch(c, place=""), 400, "BLOB_UPLOAD_INVALID"),
    "patch-bytes-range": (lambda c: _patch(c, place="bytes 0-99/100"), 400, "BLOB_UPLOAD_INVALID"),
    "patch-wrong-length": (lambda c: _patch(c, place="0-98"), 400, "SIZE_INVALID"),
    "patch-out-of-order": (lambda c: _patch(c, place="1-100"), 416, "BLOB_UPLOAD_INVALID"),
    "patch-chunked": (lambda c: _patch(c, data=iter([b"x"])), 411, "SIZE_INVALID"),
    "patch-stale": (_stale, 400, "BLOB_UPLOAD_INVALID"),
    "patch-no-state": (
        lambda c: _patch(c, location=c.ask("POST", UPLOADS)["Location"].partition("?")[0]),
        400,
        "BLOB_UPLOAD_INVALID",
    ),
    "patch-too-small": (_small_chunk, 400, "SIZE_INVALID"),
    "put-no-digest": (lambda c: c.ask("PUT", _patch(c)["Location"]), 400, "DIGEST_INVALID"),
    "put-wrong-digest": (
        lambda c: c.ask("PUT", f"{_patch(c)['Location']}&digest={ABSENT}"),
        400,
        "DIGEST_INVALID",
    ),
    "manifest-digest": (
        lambda c: put(c, ABSENT, {"schemaVersion": 2, "config": 1}),
        400,
        "MANIFEST_INVALID",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_refused_and_recorded(registry, client, name):
    registry.add_blob(BLOB)
    registry.features = Features(min_chunk=200 if name == "patch-too-small" else None)
    act, status, error = VIOLATIONS[name]
    reply = act(client)
    assert (reply.status, reply.error) == (status, error)
    (violation,) = registry.violations
    assert violation.request
    assert client.get("/v2/").status == 200  # and the connection can go on


def test_a_manifest_under_another_digest_is_a_violation(registry, client):
    registry.add_blob(b"{}")
    reply = put(client, ABSENT, build_manifest())
    assert (reply.status, reply.error) == (400, "DIGEST_INVALID")
    assert len(registry.violations) == 1
    assert registry.manifest(REPO, ABSENT) is None


@pytest.mark.parametrize(
    ("value", "media_type"),
    [
        (b"{", OCI_MANIFEST),
        (b"[]", OCI_MANIFEST),
        ({"schemaVersion": 1}, OCI_MANIFEST),
        (build_manifest(), OCI_INDEX),
        (build_manifest(), "application/json"),
        (build_manifest(layers=None), OCI_MANIFEST),
        (build_manifest(layers=[{"digest": DIGEST, "size": 1}]), OCI_MANIFEST),
        (build_manifest(layers=[{**describe(b"{}"), "size": 3}]), OCI_MANIFEST),
        (build_manifest(layers=[{**describe(b"{}"), "size": True}]), OCI_MANIFEST),
        (
            build_manifest(config=b"{}", layers=[{**describe(b"{}"), "annotations": 1}]),
            OCI_MANIFEST,
        ),
        (build_manifest(subject={}), OCI_MANIFEST),
    ],
    ids=str,
)
def test_an_invalid_manifest_is_refused(registry, value, media_type):
    registry.add_blob(b"{}")
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(Refusal) as refused:
        check_manifest(registry.store, REPO, data, media_type)
    assert (refused.value.code, refused.value.violation) == ("MANIFEST_INVALID", True)


HOST = b"Host: x\r\nUser-Agent: t\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\nmore\r\n\r\n",
        b"GET /v2/ HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x05\xd8",
        b"GET http://x/v2/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET //x/v2/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /v2/ HTTP/1.1\r\nUser-Agent: t\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n" + HOST + b"Host: y\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
        b"POST /v2/ HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n" + HOST + b"Bad header: 1\r\n\r\n",
        b"GET /v2/?x HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
    ids=[
        "trailing",
        "1.0",
        "tls",
        "absolute",
        "authority",
        "hostless",
        "hosts",
        "length",
        "both",
        "header",
        "query",
    ],
)
def test_what_is_not_http_ends_the_connection(registry, sent):
    with socket.create_connection((registry.address, registry.port), timeout=10) as raw:
        raw.sendall(sent)
        answered = b"".join(iter(lambda: raw.recv(65536), b""))
    assert b"HTTP/1.1 400 Bad Request" in answered
    assert len(registry.violations) == 1


def test_a_client_that_dies_breaks_no_rule(registry):
    for sent in (
        b"GET /v2",
        b"GET /v2/ HTTP/1.1\r\nHos",
        b"PUT /v2/a/manifests/b HTTP/1.1\r\n" + HOST,
    ):
        with socket.create_connection((registry.address, registry.port), timeout=10) as raw:
            raw.sendall(sent)
    registry.stop()
    assert registry.violations == []
