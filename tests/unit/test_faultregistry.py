"""The fault registry keeps the protocol, refuses who does not, and counts what it sends."""

import hashlib
import itertools
import json

import pytest

from tests.support.faultregistry import (
    OCI_INDEX,
    OCI_MANIFEST,
    FaultRegistry,
    Features,
    Span,
    Store,
    build_manifest,
    coverage,
    describe,
)
from tests.support.faultregistry.client import Client
from tests.support.faultregistry.routes import Route, parse_route

OCTETS = "application/octet-stream"
BLOB = bytes(range(256)) * 40
REPO = "team/model"
UPLOADS = f"/v2/{REPO}/blobs/uploads/"


def sha256(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


DIGEST = sha256(BLOB)
ABSENT = sha256(b"absent")


@pytest.fixture
def registry():
    with FaultRegistry() as started:
        yield started


@pytest.fixture
def client(registry):
    with Client(registry) as opened:
        yield opened


def put(client, reference, value, media_type=None):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    kind = media_type or (OCI_MANIFEST if isinstance(value, bytes) else value["mediaType"])
    return client.ask("PUT", f"/v2/{REPO}/manifests/{reference}", data, Content_Type=kind)


def push(client, data):
    reply = client.ask("POST", f"{UPLOADS}?digest={sha256(data)}", data, Content_Type=OCTETS)
    assert reply.status == 201
    return reply


# Paths


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2/", Route("base")),
        (f"/v2/a/b/blobs/{DIGEST}", Route("blob", "a/b", DIGEST)),
        ("/v2/a/blobs/sha256:../x", Route("unknown")),
        ("/v2/a/blobs/sha256:12", Route("blob", "a", None, "sha256:12")),
        ("/v2/a/manifests/v1", Route("manifest", "a", None, "v1")),
        ("/v2/blobs/manifests/v1", Route("manifest", "blobs", None, "v1")),
        ("/v2/a/blobs/uploads/", Route("uploads", "a")),
        ("/v2/a/blobs/uploads/1-2", Route("upload", "a", None, "1-2")),
        (f"/v2/a/referrers/{DIGEST}", Route("referrers", "a", DIGEST)),
        ("/v2/a/tags/list", Route("tags", "a")),
        ("/v2", Route("unknown")),
        ("/", Route("unknown")),
    ],
    ids=str,
)
def test_a_path_names_an_endpoint(path, route):
    assert parse_route(path) == route


# Reading


def test_the_base_answers_with_the_version(registry, client):
    reply = client.get("/v2/")
    assert (reply.status, reply["Docker-Distribution-API-Version"]) == (200, "registry/2.0")
    assert registry.violations == []


@pytest.mark.parametrize(
    ("asked", "status", "body", "place"),
    [
        (None, 200, BLOB, None),
        ("bytes=0-0", 206, BLOB[:1], f"bytes 0-0/{len(BLOB)}"),
        ("bytes=100-299", 206, BLOB[100:300], f"bytes 100-299/{len(BLOB)}"),
        ("bytes=10000-", 206, BLOB[10000:], f"bytes 10000-10239/{len(BLOB)}"),
        ("bytes=10239-99999", 206, BLOB[-1:], f"bytes 10239-10239/{len(BLOB)}"),
        ("bytes=-5", 206, BLOB[-5:], f"bytes 10235-10239/{len(BLOB)}"),
        ("bytes=10240-", 416, None, f"bytes */{len(BLOB)}"),
        ("bytes=-0", 416, None, f"bytes */{len(BLOB)}"),
    ],
    ids=str,
)
def test_a_blob_comes_whole_or_in_ranges(registry, client, asked, status, body, place):
    registry.add_blob(BLOB)
    reply = client.get(f"/v2/{REPO}/blobs/{DIGEST}", **({"Range": asked} if asked else {}))
    assert reply.status == status
    assert reply.headers.get("content-range") == place
    if body is not None:
        assert reply.body == body
        assert reply["Docker-Content-Digest"] == DIGEST
        assert reply["Accept-Ranges"] == "bytes"
    assert registry.violations == []


def test_head_tells_the_size_and_sends_nothing(registry, client):
    registry.add_blob(BLOB)
    reply = client.ask("HEAD", f"/v2/{REPO}/blobs/{DIGEST}")
    assert (reply.status, reply["Content-Length"], reply.body) == (200, str(len(BLOB)), b"")
    assert registry.bytes_sent(DIGEST) == 0


def test_a_sparse_blob_is_made_where_it_is_read(registry, client):
    def source(offset, length):
        return bytes((offset + place) % 251 for place in range(length))

    digest = registry.add_sparse_blob(10**13, source, digest=ABSENT)
    reply = client.get(f"/v2/{REPO}/blobs/{digest}", Range="bytes=5000000000000-5000000000999")
    assert reply.body == source(5 * 10**12, 1000)
    assert reply["Content-Range"] == "bytes 5000000000000-5000000000999/10000000000000"


def test_blobs_belong_to_repositories(registry, client):
    registry.add_blob(BLOB, repo="one")
    assert client.get(f"/v2/one/blobs/{DIGEST}").status == 200
    reply = client.get(f"/v2/two/blobs/{DIGEST}")
    assert (reply.status, reply.error) == (404, "BLOB_UNKNOWN")


def test_a_manifest_comes_by_tag_and_digest(registry, client):
    data = json.dumps(build_manifest()).encode()
    digest = registry.put_manifest(REPO, "v1", data)
    for reference, method in itertools.product(("v1", digest), ("GET", "HEAD")):
        reply = client.ask(method, f"/v2/{REPO}/manifests/{reference}", Accept=OCI_MANIFEST)
        assert (reply.status, reply["Content-Type"]) == (200, OCI_MANIFEST)
        assert reply["Docker-Content-Digest"] == digest == sha256(data)
        assert reply["Content-Length"] == str(len(data))
        assert reply.body == (data if method == "GET" else b"")
    reply = client.get(f"/v2/{REPO}/manifests/v1", Accept=OCI_INDEX)
    assert (reply.status, reply.error) == (404, "MANIFEST_UNKNOWN")
    reply = client.get(f"/v2/{REPO}/manifests/v2")
    assert (reply.status, reply.error) == (404, "MANIFEST_UNKNOWN")
    assert registry.violations == []


def test_tags_come_in_pages(registry, client):
    for tag in ("b", "A", "c", "d", "B"):
        registry.put_manifest(REPO, tag, build_manifest())
    path = f"/v2/{REPO}/tags/list"
    everything = {"name": REPO, "tags": ["A", "B", "b", "c", "d"]}
    assert json.loads(client.get(path).body) == everything
    seen, link = [], f"{path}?n=2"
    while link:
        reply = client.get(link)
        seen.append(json.loads(reply.body)["tags"])
        link = reply.headers.get("link", "")[1:].partition(">")[0]
    assert seen == [["A", "B"], ["b", "c"], ["d"]]
    reply = client.get(f"{path}?n=0")
    assert (json.loads(reply.body)["tags"], "link" in reply.headers) == ([], False)
    assert json.loads(client.get(f"{path}?last=b").body)["tags"] == ["c", "d"]
    assert client.get("/v2/nowhere/tags/list").error == "NAME_UNKNOWN"
    assert registry.violations == []


def test_referrers_are_filtered_and_paged(client, registry):
    subject = describe(b"anything", OCI_MANIFEST)
    kinds = ["a/x", "a/y", "a/x"]
    for number, kind in enumerate(kinds):
        more = {"artifactType": kind, "subject": subject, "annotations": {"n": str(number)}}
        registry.put_manifest(REPO, None, build_manifest(**more))
    registry.put_manifest(REPO, "other", build_manifest())
    path = f"/v2/{REPO}/referrers/{subject['digest']}"
    reply = client.get(path)
    assert reply["Content-Type"] == OCI_INDEX
    listed = json.loads(reply.body)["manifests"]
    assert [one["artifactType"] for one in listed] == kinds
    assert listed[1]["annotations"] == {"n": "1"}
    assert "oci-filters-applied" not in reply.headers
    reply = client.get(f"{path}?artifactType=a%2Fx")
    assert reply["OCI-Filters-Applied"] == "artifactType"
    assert len(json.loads(reply.body)["manifests"]) == 2
    assert json.loads(client.get(f"/v2/{REPO}/referrers/{ABSENT}").body)["manifests"] == []
    registry.features = Features(page_size=2, referrers_filter=False)
    reply = client.get(f"{path}?artifactType=a%2Fx")
    assert "oci-filters-applied" not in reply.headers
    assert len(json.loads(reply.body)["manifests"]) == 2
    (last,) = json.loads(client.get(reply["Link"][1:].partition(">")[0]).body)["manifests"]
    assert last["annotations"] == {"n": "2"}
    registry.features = Features(referrers=False)
    assert client.get(path).status == 404
    assert registry.violations == []


# Writing


def test_a_blob_is_pushed_with_one_post(registry, client):
    reply = push(client, BLOB)
    assert reply["Location"] == f"/v2/{REPO}/blobs/{DIGEST}"
    assert client.get(reply["Location"]).body == BLOB == registry.blob(DIGEST, REPO)
    registry.features = Features(single_post=False)
    reply = client.ask("POST", f"{UPLOADS}?digest={ABSENT}", b"absent", Content_Type=OCTETS)
    assert reply.status == 202
    closed = client.ask(
        "PUT", f"{reply['Location']}&digest={ABSENT}", b"absent", Content_Type=OCTETS
    )
    assert closed.status == 201
    assert registry.violations == []


@pytest.mark.parametrize("last_with_put", [False, True], ids=["put-empty", "put-last-chunk"])
@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_a_blob_is_pushed_in_chunks(registry, client, last_with_put, absolute):
    registry.features = Features(absolute_locations=absolute, min_chunk=4000)
    reply = client.ask("POST", UPLOADS)
    assert (reply.status, reply["OCI-Chunk-Min-Length"]) == (202, "4000")
    location = reply["Location"]
    assert location.startswith(registry.url if absolute else "/v2/")
    for start, end in [(0, 4000), (4000, 8000), (8000, len(BLOB))]:
        headers = {"Content_Type": OCTETS, "Content_Range": f"{start}-{end - 1}"}
        if last_with_put and end == len(BLOB):
            break
        reply = client.ask("PATCH", location, BLOB[start:end], **headers)
        assert (reply.status, reply["Range"]) == (202, f"0-{end - 1}")
        status = client.get(location)  # the Location before, as after a lost answer
        location = reply["Location"]
        assert (status.status, status["Range"], status["Location"]) == (
            204,
            f"0-{end - 1}",
            location,
        )
    rest = (BLOB[start:end], headers) if last_with_put else (None, {})
    reply = client.ask("PUT", f"{location}&digest={DIGEST}", rest[0], **rest[1])
    assert (reply.status, reply["Docker-Content-Digest"]) == (201, DIGEST)
    assert registry.blob(DIGEST, REPO) == BLOB
    assert client.get(location).status == 404
    assert registry.violations == []


def test_an_upload_is_cancelled(registry, client):
    location = client.ask("POST", UPLOADS)["Location"]
    assert len(registry.store.uploads()) == 1
    assert client.ask("DELETE", location).status == 204
    reply = client.get(location)
    assert (reply.status, reply.error) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert registry.store.uploads() == []
    assert registry.violations == []


def test_mounts(registry, client):
    registry.add_blob(BLOB, repo="one")
    reply = client.ask("POST", f"{UPLOADS}?mount={DIGEST}&from=one")
    assert (reply.status, reply["Location"]) == (201, f"/v2/{REPO}/blobs/{DIGEST}")
    assert registry.blob(DIGEST, REPO) == BLOB
    reply = client.ask("POST", f"{UPLOADS}?mount={ABSENT}&from=one")
    assert (reply.status, "/blobs/uploads/" in reply["Location"]) == (202, True)
    registry.features = Features(mount=False)
    assert client.ask("POST", f"{UPLOADS}?mount={DIGEST}&from=one").status == 202
    assert registry.violations == []


def test_real_clients_may_stream_when_told_so(registry, client):
    registry.features = Features(streamed_patch=True)
    location = client.ask("POST", UPLOADS)["Location"]
    reply = client.ask("PATCH", location, iter([BLOB[:7], BLOB[7:]]), Content_Type=OCTETS)
    assert (reply.status, reply["Range"]) == (202, f"0-{len(BLOB) - 1}")
    assert client.ask("PUT", f"{reply['Location']}&digest={DIGEST}").status == 201
    assert registry.blob(DIGEST) == BLOB
    assert registry.violations == []


def test_a_manifest_is_pushed_after_its_blobs(registry, client):
    value = build_manifest(BLOB, subject=describe(b"later", OCI_MANIFEST))
    reply = put(client, "v1", value)
    assert (reply.status, reply.error) == (404, "MANIFEST_BLOB_UNKNOWN")
    push(client, BLOB)
    push(client, b"{}")
    data = json.dumps(value).encode()
    for reference in ("v1", sha256(data)):
        reply = put(client, reference, value)
        assert reply.status == 201
        assert reply["Location"] == f"/v2/{REPO}/manifests/{sha256(data)}"
        assert reply["OCI-Subject"] == sha256(b"later")
    assert registry.manifest(REPO, "v1").data == data
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [describe(data, OCI_MANIFEST)],
    }
    assert put(client, "all", index).status == 201
    registry.features = Features(referrers=False, manifest_limit=len(data))
    assert "oci-subject" not in put(client, "v1", value).headers
    assert put(client, "v1", {**value, "annotations": {}}).status == 413
    assert registry.violations == []


def test_deletion(registry, client):
    registry.add_blob(BLOB, repo=REPO)
    digest = registry.put_manifest(REPO, "v1", build_manifest())
    registry.put_manifest(REPO, "v2", build_manifest())
    paths = [f"manifests/{one}" for one in ("v1", digest, "v2")] + [f"blobs/{DIGEST}"]
    registry.features = Features(delete=False)
    assert client.ask("DELETE", f"/v2/{REPO}/{paths[0]}").status == 405
    registry.features = Features()
    statuses = [client.ask("DELETE", f"/v2/{REPO}/{path}").status for path in paths]
    assert statuses == [202, 202, 404, 202]
    assert client.get(f"/v2/{REPO}/blobs/{DIGEST}").status == 404
    assert registry.violations == []


# Counting


def test_the_records_tell_who_asked_for_what(registry, client):
    registry.add_blob(BLOB)
    client.get(f"/v2/{REPO}/blobs/{DIGEST}", Range="bytes=10-19", X_Mine="1")
    client.get(f"/v2/{REPO}/tags/list?n=3")
    blob, tags = registry.requests
    assert (blob.kind, blob.repo, blob.digest) == ("blob", REPO, DIGEST)
    assert (blob.range, blob.status, blob.bytes_sent, blob.offset) == ((10, 20), 206, 10, 10)
    assert (blob.headers["x-mine"], blob.connection, tags.connection) == ("1", 1, 1)
    assert (tags.query, tags.status, tags.range) == ({"n": ["3"]}, 404, None)
    assert tags.at >= blob.at
    assert registry.select(kind="blob", status=206) == [blob]
    registry.clear_records()
    assert registry.requests == []


def test_the_bytes_of_a_blob_are_counted(registry, client):
    registry.add_blob(BLOB)
    for asked in ("bytes=0-99", "bytes=50-149", "bytes=1000-1999", "bytes=60-69"):
        client.get(f"/v2/{REPO}/blobs/{DIGEST}", Range=asked)
    assert registry.bytes_sent(DIGEST) == registry.bytes_sent() == 100 + 100 + 1000 + 10
    assert registry.served(DIGEST) == [(0, 100), (50, 150), (1000, 2000), (60, 70)]
    assert registry.repeated_bytes(DIGEST) == 60


@pytest.mark.parametrize(
    ("stretches", "spans"),
    [
        ([], []),
        ([(0, 5), (5, 9)], [Span(0, 9, 1)]),
        ([(0, 5), (7, 9)], [Span(0, 5, 1), Span(7, 9, 1)]),
        ([(0, 9), (3, 5), (3, 5)], [Span(0, 3, 1), Span(3, 5, 3), Span(5, 9, 1)]),
    ],
    ids=["none", "touching", "gap", "nested"],
)
def test_coverage(stretches, spans):
    assert coverage(stretches) == spans


def test_a_store_is_shared(registry):
    store = Store()
    with FaultRegistry(store=store) as one, FaultRegistry(store=store, address="127.0.0.2") as two:
        digest = one.add_blob(BLOB)
        assert (one.address, two.address) == ("127.0.0.1", "127.0.0.2")
        with Client(two) as client:
            assert client.get(f"/v2/{REPO}/blobs/{digest}").body == BLOB
