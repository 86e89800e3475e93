"""nginx in front of a registry really does what each fault is called."""

import hashlib
import itertools
import ssl
import time

import httpx
import pytest

from tests.support import nginx

pytestmark = [pytest.mark.real("docker-registry", "nginx")]

BODY = bytes(range(256)) * 4096  # 1 MiB
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
BLOB = f"/v2/support/nginx/blobs/{DIGEST}"


@pytest.fixture
def registry(docker_registry):
    """A registry that holds one blob."""
    upload = httpx.post(f"{docker_registry.url}/v2/support/nginx/blobs/uploads/")
    location = httpx.URL(upload.headers["Location"]).copy_add_param("digest", DIGEST)
    assert httpx.put(location, content=BODY).status_code == 201
    return docker_registry


def statuses(server, count):
    return [httpx.get(f"{server.url}{BLOB}").status_code for _ in range(count)]


def test_a_plain_proxy_passes_ranges_and_logs_them(registry, start_nginx):
    server = start_nginx(nginx.proxy(registry))
    answer = httpx.get(f"{server.url}{BLOB}", headers={"Range": "bytes=5-9"})
    assert (answer.status_code, answer.content) == (206, BODY[5:10])
    assert server.requests() == [f"206 GET {BLOB} range=bytes=5-9 sent=5"]


def test_an_upload_goes_through_with_locations_of_the_proxy(registry, start_nginx):
    server = start_nginx(nginx.proxy(registry))
    location = httpx.post(f"{server.url}/v2/support/up/blobs/uploads/").headers["Location"]
    assert location.startswith(server.url)
    finished = httpx.put(httpx.URL(location).copy_add_param("digest", DIGEST), content=BODY)
    assert finished.status_code == 201


def test_tls_in_front_of_a_plain_registry(registry, start_nginx, private_ca):
    server = start_nginx(nginx.proxy(registry), tls=private_ca)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{server.url}/v2/")
    context = ssl.create_default_context(cafile=private_ca.file)
    upload = httpx.post(f"{server.url}/v2/support/up/blobs/uploads/", verify=context)
    assert upload.headers["Location"].startswith("https://")


def test_the_rate_of_each_connection_is_capped(registry, start_nginx):
    server = start_nginx(nginx.proxy(registry, nginx.limit_rate("512k")))
    began = time.monotonic()
    assert httpx.get(f"{server.url}{BLOB}").content == BODY
    assert time.monotonic() - began > 0.8


def test_a_trickle_gives_the_beginning_and_hardly_more(registry, start_nginx):
    server = start_nginx(nginx.proxy(registry, nginx.trickle(after="64k")))
    received = 0
    with httpx.stream("GET", f"{server.url}{BLOB}") as answer:
        deadline = time.monotonic() + 2
        for block in answer.iter_raw():
            received += len(block)
            if time.monotonic() > deadline:
                break
    assert 60_000 < received < 70_000


def test_ranges_are_ignored(registry, start_nginx):
    server = start_nginx(nginx.proxy(registry, nginx.ignore_ranges()))
    answer = httpx.get(f"{server.url}{BLOB}", headers={"Range": "bytes=5-9"})
    assert (answer.status_code, answer.content) == (200, BODY)
    assert "Accept-Ranges" not in answer.headers


def test_some_requests_fail_and_say_when_to_come_back(registry, start_nginx):
    server = start_nginx(
        nginx.proxy(registry, nginx.answer(503, when="$bad")),
        http=nginx.some_of("$bad", 50) + nginx.retry_after(7, status=503),
    )
    answers = [httpx.get(f"{server.url}{BLOB}") for _ in range(40)]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert {(a.status_code, a.headers.get("Retry-After")) for a in answers} == {
        (200, None),
        (503, "7"),
    }


def test_some_connections_are_dropped(registry, start_nginx):
    server = start_nginx(
        nginx.proxy(registry, nginx.answer(444, when="$bad")), http=nginx.some_of("$bad", 100)
    )
    with pytest.raises(httpx.RemoteProtocolError, match="disconnected"):
        httpx.get(f"{server.url}{BLOB}")


def test_faults_come_in_bursts(registry, start_nginx):
    server = start_nginx(
        nginx.proxy(registry, nginx.answer(502, when="$bad")),
        http=nginx.alternate_seconds("$bad"),
    )
    seen = []
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        seen += statuses(server, 1)
        time.sleep(0.05)
    changes = sum(before != after for before, after in itertools.pairwise(seen))
    assert set(seen) == {200, 502}
    assert changes <= 3


def test_too_many_requests_are_refused_for_a_while(registry, start_nginx):
    server = start_nginx(
        nginx.proxy(registry, nginx.refuse_over("slow")),
        http=nginx.rate_zone("slow", "1r/s") + nginx.retry_after(1),
    )
    answers = [httpx.get(f"{server.url}{BLOB}") for _ in range(5)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert answers[0].status_code == 200
    assert refused
    assert refused[0].headers["Retry-After"] == "1"
    time.sleep(1.1)
    assert statuses(server, 1) == [200]


def test_patch_is_refused(registry, start_nginx):
    server = start_nginx(nginx.proxy(registry, nginx.refuse_method("PATCH")))
    location = httpx.post(f"{server.url}/v2/support/up/blobs/uploads/").headers["Location"]
    assert httpx.patch(location, content=b"x").status_code == 405


def test_blobs_are_redirected_to_another_host(registry, start_nginx):
    storage = start_nginx(nginx.proxy(registry))
    server = start_nginx(nginx.proxy(registry), nginx.redirect_blobs(to=storage.url))
    answer = httpx.get(f"{server.url}{BLOB}")
    assert answer.status_code == 307
    assert answer.headers["Location"] == f"{storage.url}{BLOB}"
    assert httpx.get(answer.headers["Location"]).content == BODY
    assert httpx.get(f"{server.url}/v2/").status_code == 200
