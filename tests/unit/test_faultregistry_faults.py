"""Each fault does what it says, when it says, as a plain client sees it."""

import http.client
import time

import pytest

from tests.support.faultregistry import (
    OCI_MANIFEST,
    Fault,
    FaultRegistry,
    build_manifest,
    describe,
)
from tests.support.faultregistry.client import Client

OCTETS = "application/octet-stream"
BLOB = bytes(range(251)) * 4000  # about a megabyte: several pieces
REPO = "team/model"
UPLOADS = f"/v2/{REPO}/blobs/uploads/"
DIGEST = describe(BLOB)["digest"]
PATH = f"/v2/{REPO}/blobs/{DIGEST}"
TAGS = f"/v2/{REPO}/tags/list"


@pytest.fixture
def registry():
    with FaultRegistry() as started:
        started.add_blob(BLOB)
        started.put_manifest(REPO, "v1", build_manifest())
        yield started
        assert started.violations == []


@pytest.fixture
def client(registry):
    with Client(registry) as opened:
        yield opened


def read_until_end(response):
    """Return what arrives of a body and how it ends: whole, cut (by a FIN) or reset."""
    got = bytearray()
    try:
        while piece := response.read1(1000):
            got += piece
    except ConnectionResetError:
        response.close()
        return bytes(got), "reset"
    whole = len(got) == int(response.headers["Content-Length"])
    return bytes(got), "whole" if whole else "cut"


# Conditions


@pytest.mark.parametrize(
    ("when", "hit"),
    [
        ({}, {1, 2, 3, 4, 5}),
        ({"method": "HEAD"}, {3}),
        ({"method": ("GET", "HEAD"), "kind": "blob"}, {1, 3, 4}),
        ({"kind": "manifest"}, {2}),
        ({"path": r"manifests/v\d"}, {2}),
        ({"path": r"\?n=7$"}, {5}),
        ({"repo": "other"}, {4}),
        ({"digest": DIGEST, "repo": REPO}, {1, 3}),
        ({"kind": "blob", "covers": (50, 100)}, {3, 4}),
        ({"nth": 2}, {2}),
        ({"nth": {1, 4}}, {1, 4}),
        ({"nth": range(2, 9), "times": 2}, {2, 3}),
        ({"times": 1, "kind": "blob"}, {1}),
        ({"times": 0}, set()),
    ],
    ids=str,
)
def test_a_fault_meets_the_requests_it_is_for(registry, client, when, hit):
    fault = Fault.status(418, **when)
    registry.faults.add(fault)
    replies = [
        client.get(PATH, Range="bytes=0-49"),
        client.get(f"/v2/{REPO}/manifests/v1"),
        client.ask("HEAD", PATH),
        client.get(f"/v2/other/blobs/{DIGEST}", Range="bytes=60-"),
        client.get(f"{TAGS}?n=7"),
    ]
    assert {number for number, one in enumerate(replies, 1) if one.status == 418} == hit
    assert registry.faults.fired(fault) == len(hit)
    assert {one.number for one in registry.requests if one.faults == ("status 418",)} == hit


def test_a_condition_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="methods"):
        Fault.status(500, methods="GET")


def test_faults_come_and_go_while_the_server_runs(registry, client):
    one, two = Fault.status(500), Fault.status(502)
    registry.faults.add(one, two)
    assert client.get(PATH).status == 500  # the first that answers
    registry.faults.remove(one)
    assert list(registry.faults) == [two]
    assert client.get(PATH).status == 502
    registry.faults.clear()
    assert client.get(PATH).status == 200
    assert (registry.faults.fired(one), registry.faults.fired(two)) == (1, 2)


def test_faults_add_up(registry, client):
    registry.faults.add(Fault.corrupt(3), Fault.header("X-Mine", "1"), Fault.truncate(after=10))
    response = client.open("GET", PATH)
    assert response.headers["X-Mine"] == "1"
    assert read_until_end(response) == (
        BLOB[:3] + bytes([BLOB[3] ^ 255]) + BLOB[4:10],
        "cut",
    )


def test_only_downloads_of_blobs_are_spoiled_unless_told_otherwise(registry, client):
    registry.faults.add(Fault.replace_body(b"other"))
    assert client.get(f"/v2/{REPO}/manifests/v1").body != b"other"
    registry.faults.add(Fault.replace_body(b"mine", kind="manifest"))
    reply = client.get(f"/v2/{REPO}/manifests/v1")
    assert (reply.body, reply["Content-Type"]) == (b"mine", OCI_MANIFEST)
    assert client.get(f"/v2/{REPO}/blobs/{describe(b'absent')['digest']}").error == "BLOB_UNKNOWN"


# In place of an answer


@pytest.mark.parametrize("early", [False, True], ids=["read", "early"])
def test_status(registry, client, early):
    registry.faults.add(Fault.status(429, retry_after=7, early=early, times=2))
    body = b"x" * 3_000_000
    reply = client.ask("PATCH", UPLOADS + "x", body)
    assert (reply.status, reply["Retry-After"], reply.error) == (429, "7", "TOOMANYREQUESTS")
    assert reply["Connection"] == ("close" if early else "keep-alive")
    assert registry.requests[0].body_received == (0 if early else len(body))
    assert client.get(PATH).status == 429
    assert client.get(PATH).status == 200


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_drop(registry, client, reset):
    registry.faults.add(Fault.drop(reset=reset, times=1))
    with pytest.raises(ConnectionResetError if reset else http.client.RemoteDisconnected):
        client.get(PATH)
    client.connection.close()
    assert client.get(PATH).body == BLOB
    assert [one.status for one in registry.requests] == [None, 200]


def test_redirect(registry, client):
    with FaultRegistry(store=registry.store, address="127.0.0.2") as other:
        registry.faults.add(Fault.redirect("http://x/y?z", nth=1), Fault.redirect(other, nth=2))
        reply = client.get(PATH)
        assert (reply.status, reply["Location"], reply.body) == (307, "http://x/y?z", b"")
        assert client.ask("HEAD", PATH).status == 200
        reply = client.get(PATH)
        assert reply["Location"] == other.url + PATH


def test_too_many_connections(registry):
    registry.faults.add(Fault.too_many_connections(2))
    clients = [Client(registry) for _ in range(4)]
    assert [one.get("/v2/").status for one in clients] == [200, 200, 429, 429]
    assert [one.get("/v2/").status for one in clients[:2]] == [200, 200]
    for one in clients:
        one.connection.close()
    registry.faults.clear()
    fault = Fault.too_many_connections(0, status=None)
    registry.faults.add(fault)
    with Client(registry) as refused, pytest.raises(ConnectionResetError):
        refused.get("/v2/")
    assert registry.faults.fired(fault) == 1


# Ranges


@pytest.mark.parametrize(
    ("fault", "status", "place", "body"),
    [
        (Fault.ignore_range(), 200, None, BLOB),
        (Fault.wrong_content_range(5), 206, (105, 204), BLOB[100:200]),
        (Fault.other_range(-50), 206, (50, 149), BLOB[50:150]),
        (Fault.shorter_range(30), 206, (100, 129), BLOB[100:130]),
        (Fault.corrupt(150), 206, (100, 199), BLOB[100:150] + b"\x69" + BLOB[151:200]),
        (Fault.corrupt(99), 206, (100, 199), BLOB[100:200]),
        (Fault.short_body(30), 206, (100, 199), BLOB[100:130]),
        (Fault.extra_bytes(2), 206, (100, 199), BLOB[100:200] + b"\xff\xff"),
        (Fault.replace_body(b"z" * len(BLOB)), 206, (100, 199), b"z" * 100),
        (Fault.replace_body(b"z" * 9), 416, None, None),
        (Fault.empty_200(announce=False), 200, None, b""),
        (Fault.oversize(5000), 200, None, bytes(5000)),
        (Fault.chunked(), 206, (100, 199), BLOB[100:200]),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_what_a_fault_makes_of_a_range(registry, client, fault, status, place, body):
    registry.faults.add(fault)
    reply = client.get(PATH, Range="bytes=100-199")
    assert reply.status == status
    if place:
        assert reply["Content-Range"] == f"bytes {place[0]}-{place[1]}/{len(BLOB)}"
    elif status == 200:
        assert "content-range" not in reply.headers
    if body is not None:
        assert reply.body == body
        assert registry.requests[-1].bytes_sent == len(body)
        length = None if fault.name == "chunked" else str(len(body))
        assert reply.headers.get("content-length") == length


def test_honest_faults_are_booked_where_the_bytes_come_from(registry, client):
    registry.faults.add(Fault.other_range(-50, times=1), Fault.ignore_range(nth=2))
    for _ in range(3):
        client.get(PATH, Range="bytes=100-199")
    assert registry.served(DIGEST) == [(50, 150), (0, len(BLOB)), (100, 200)]


# Bodies that break off or linger


@pytest.mark.parametrize("after", [0, 1, 700_000])
@pytest.mark.parametrize(
    ("fault", "end"),
    [(Fault.truncate, "cut"), (Fault.reset, "reset")],
    ids=["truncate", "reset"],
)
def test_a_body_breaks_off(registry, client, fault, end, after):
    registry.faults.add(fault(after=after, times=1))
    response = client.open("GET", PATH)
    assert response.headers["Content-Length"] == str(len(BLOB))
    assert read_until_end(response) == (BLOB[:after], end)
    assert registry.bytes_sent(DIGEST) == after
    client.connection.close()
    assert client.get(PATH).body == BLOB


def test_a_body_shorter_than_the_break_is_whole(registry, client):
    registry.faults.add(Fault.reset(after=100))
    assert client.get(PATH, Range="bytes=0-99").body == BLOB[:100]


def test_empty_200_with_a_length(registry, client):
    registry.faults.add(Fault.empty_200())
    response = client.open("GET", PATH, Range="bytes=100-199")
    assert (response.status, response.headers["Content-Length"]) == (200, "100")
    assert read_until_end(response) == (b"", "cut")


def test_stall(registry, client):
    registry.faults.add(Fault.stall(after=1000, seconds=0.3))
    since = time.monotonic()
    assert client.get(PATH).body == BLOB
    assert 0.3 <= time.monotonic() - since < 5


def test_stopping_ends_a_stall(registry, client):
    registry.faults.add(Fault.stall(after=1000, seconds=3600))
    response = client.open("GET", PATH)
    assert response.read(1000) == BLOB[:1000]
    assert registry.bytes_sent(DIGEST) == 1000
    since = time.monotonic()
    registry.stop()
    assert time.monotonic() - since < 5
    assert read_until_end(response) == (b"", "cut")


@pytest.mark.parametrize(
    "fault",
    [Fault.slow(200_000), Fault.delay(0.5)],
    ids=["slow", "delay"],
)
def test_slow_answers(registry, client, fault):
    registry.faults.add(fault)
    since = time.monotonic()
    assert client.get(PATH, Range="bytes=0-99999").body == BLOB[:100_000]
    assert 0.4 < time.monotonic() - since < 5


def test_an_endless_answer(registry, client):
    registry.faults.add(Fault.oversize(kind="manifest"))
    response = client.open("GET", f"/v2/{REPO}/manifests/v1")
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.read(3_000_000) == bytes(3_000_000)
    response.close()


# Headers and connections


def test_headers(registry, client):
    registry.faults.add(Fault.header("Content-Range", None), Fault.wrong_digest_header(nth={1, 2}))
    reply = client.get(PATH, Range="bytes=0-9")
    assert (reply.status, "content-range" in reply.headers) == (206, False)
    assert reply["Docker-Content-Digest"][:-1] == DIGEST[:-1]
    assert reply["Docker-Content-Digest"] != DIGEST
    assert "docker-content-digest" not in client.get(TAGS).headers
    assert client.get(PATH)["Docker-Content-Digest"] == DIGEST


def test_close(registry, client):
    registry.faults.add(Fault.close(kind="blob"))
    reply = client.get(PATH)
    assert (reply["Connection"], reply.body) == ("close", BLOB)
    assert client.get(TAGS)["Connection"] == "keep-alive"
    assert registry.connections_opened == 2


# Uploads


def begin(client):
    reply = client.ask("POST", UPLOADS)
    assert reply.status == 202
    return reply["Location"]


def patch(client, location, start, data):
    place = f"{start}-{start + len(data) - 1}"
    return client.ask("PATCH", location, data, Content_Type=OCTETS, Content_Range=place)


def test_patch_refused(registry, client):
    registry.faults.add(Fault.patch_refused())
    location = begin(client)
    reply = patch(client, location, 0, BLOB)
    assert (reply.status, reply.error) == (405, "UNSUPPORTED")
    reply = client.ask("PUT", f"{location}&digest={DIGEST}", BLOB, Content_Type=OCTETS)
    assert reply.status == 201


def test_201_after_patch(registry, client):
    registry.faults.add(Fault.answer_201_after_patch())
    reply = patch(client, begin(client), 0, BLOB)
    assert (reply.status, reply["Range"]) == (201, f"0-{len(BLOB) - 1}")
    assert client.ask("PUT", f"{reply['Location']}&digest={DIGEST}").status == 201


def test_mount_refused(registry, client):
    registry.faults.add(Fault.mount_refused())
    reply = client.ask("POST", f"{UPLOADS}?mount={DIGEST}&from=one")
    assert (reply.status, "/uploads/" in reply["Location"]) == (202, True)


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        (Fault.drop_upload(after=300_000, times=1), 300_000),
        (Fault.drop_upload(after=300_000, reset=False, times=1), 300_000),
        (Fault.drop_upload(after=300_000, keep=False, times=1), 0),
        (Fault.drop_upload(after=600_000, kind="upload", times=1), 600_000),
    ],
    ids=["reset", "fin", "lost", "answer-lost"],
)
def test_an_upload_breaks_off_and_goes_on(registry, client, fault, kept):
    location = begin(client)
    registry.faults.add(fault)
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        patch(client, location, 0, BLOB[:600_000])
    client.connection.close()
    reply = client.get(location)
    assert (reply.status, reply["Range"]) == (204, f"0-{max(0, kept - 1)}")
    reply = patch(client, reply["Location"], kept, BLOB[kept:])
    assert client.ask("PUT", f"{reply['Location']}&digest={DIGEST}").status == 201
    assert registry.blob(DIGEST) == BLOB


def test_asking_takes_an_upload_over_from_a_dead_connection(registry, client):
    registry.faults.add(Fault.stall_upload(after=1000, seconds=3600))
    location = begin(client)
    client.connection.request(
        "PATCH",
        location,
        BLOB[:5000],
        {"User-Agent": "t", "Content-Type": OCTETS, "Content-Range": "0-4999"},
    )
    upload = registry.store.uploads()[0]
    deadline = time.monotonic() + 10
    while upload.size < 1000 and time.monotonic() < deadline:
        time.sleep(0.005)
    registry.faults.clear()
    with Client(registry) as second:
        reply = second.get(location)
        assert reply["Range"] == "0-999"
        assert patch(second, reply["Location"], 1000, BLOB[1000:]).status == 202
    assert upload.data == BLOB


def test_a_chunk_is_taken_in_part(registry, client):
    registry.faults.add(Fault.lose_upload_bytes(after=400_000, times=1))
    reply = patch(client, begin(client), 0, BLOB)
    assert (reply.status, reply["Range"]) == (202, "0-399999")
    reply = patch(client, reply["Location"], 400_000, BLOB[400_000:])
    assert client.ask("PUT", f"{reply['Location']}&digest={DIGEST}").status == 201


@pytest.mark.parametrize(
    "fault",
    [Fault.slow_upload(400_000), Fault.stall_upload(after=100_000, seconds=0.5)],
    ids=["slow", "stall"],
)
def test_slow_uploads(registry, client, fault):
    registry.faults.add(fault)
    location = begin(client)
    since = time.monotonic()
    assert patch(client, location, 0, BLOB[:200_000]).status == 202
    assert 0.4 < time.monotonic() - since < 5


def test_an_upload_goes_on_elsewhere(registry, client):
    with FaultRegistry(store=registry.store, address="127.0.0.2") as other:
        registry.faults.add(Fault.upload_elsewhere(other))
        location = begin(client)
        assert location.startswith(other.url)
        with Client(other) as second:
            assert patch(second, location, 0, b"abc").status == 202
        assert other.violations == []
