import logging
import ssl
import threading
import time

import pytest

from modelpack._version import __version__
from modelpack.errors import AuthError, IntegrityError, NetworkError, NotFoundError, SpaceError
from modelpack.events import Retried
from modelpack.registry.client import RegistryClient
from modelpack.registry.credentials import Credentials
from modelpack.registry.errors import UnsafeAddressError
from modelpack.registry.options import ConnectionOptions
from tests.support.faultregistry import BasicAuth, BlobHost, Fault, FaultRegistry

BLOB = b"bytes of a blob"
ADA = Credentials(username="ada", password="secret")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("modelpack.registry.retry._FIRST_DELAY", 0.02)


@pytest.fixture
def registry():
    with FaultRegistry() as started:
        started.digest = started.add_blob(BLOB)
        yield started
        assert started.violations == []


@pytest.fixture
def client(tmp_path):
    clients = []

    def make(registry, observer=None, **options):
        defaults = {"auth_file": tmp_path / "none.json", "patience": 5.0}
        host = registry if isinstance(registry, str) else registry.host
        made = RegistryClient(
            host, "team/model", ConnectionOptions(**{**defaults, **options}), observer
        )
        clients.append(made)
        return made

    yield make
    for made in clients:
        made.close()


def fetch(client, registry, **more):
    return client.request("GET", f"blobs/{registry.digest}", what="blob", **more)


def test_request(client, registry):
    response = fetch(client(registry), registry)
    assert (response.status, response.body) == (200, BLOB)
    assert response.headers["docker-content-digest"] == registry.digest
    (record,) = registry.requests
    assert record.headers["user-agent"] == f"modelpack/{__version__}"
    assert record.headers["accept-encoding"] == "identity"


def test_connections_are_used_again(client, registry):
    ours = client(registry)
    for _ in range(3):
        fetch(ours, registry)
    assert len({record.connection for record in registry.requests}) == 1


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault.status(status, times=2) for status in (408, 425, 429, 500, 502, 503, 504)),
        Fault.drop(times=2),
        Fault.drop(reset=True, times=2),
        Fault.truncate(5, times=2),
        Fault.reset(5, times=2),
    ],
    ids=lambda fault: fault.name,
)
def test_what_may_pass_is_tried_again(client, registry, fault):
    registry.faults.add(fault)
    seen = []
    assert fetch(client(registry, seen.append), registry).body == BLOB
    assert registry.faults.fired(fault) == 2
    assert [type(event) for event in seen] == [Retried, Retried]


def test_retry_after_is_honoured(client, registry):
    registry.faults.add(Fault.status(429, retry_after=1, times=1))
    started = time.monotonic()
    assert fetch(client(registry), registry).body == BLOB
    assert 1.0 <= time.monotonic() - started < 3.0


def test_trouble_that_stays_is_given_up_in_bounded_time(client, registry):
    registry.faults.add(Fault.status(503))
    started = time.monotonic()
    with pytest.raises(NetworkError, match=r"HTTP status 503: .*; gave up") as caught:
        fetch(client(registry, patience=1.0), registry)
    assert time.monotonic() - started < 2.0
    assert caught.value.exit_code == 7


def test_a_server_that_stops_answering(client, registry):
    registry.faults.add(Fault.stall(4, seconds=3.0, times=1))
    started = time.monotonic()
    assert fetch(client(registry, read_timeout=0.3), registry).body == BLOB
    assert time.monotonic() - started < 2.0


def test_a_server_that_drips(client, registry, monkeypatch):
    monkeypatch.setattr("modelpack.registry.client._BODY_SECONDS", 0.5)
    registry.faults.add(Fault.slow(5))
    with pytest.raises(NetworkError, match="not complete"):
        fetch(client(registry), registry)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 418])
def test_what_will_not_pass_is_not_tried_again(client, registry, status):
    registry.faults.add(Fault.status(status))
    with pytest.raises(Exception, match="blob: "):
        fetch(client(registry), registry)
    assert len(registry.requests) == 1


def test_a_body_above_the_bound(client, registry):
    registry.faults.add(Fault.oversize(None))
    with pytest.raises(IntegrityError, match="larger than 100 bytes"):
        fetch(client(registry), registry, max_bytes=100)


def test_an_endless_error_body_is_cut(client, registry):
    registry.faults.add(Fault.oversize(None, path="nothing"))
    with pytest.raises(NotFoundError):
        client(registry).request("GET", "manifests/nothing", what="x", max_bytes=10)


@pytest.mark.parametrize("status", [500, 503])
def test_a_full_registry_is_not_asked_again(client, registry, status):
    registry.faults.add(Fault.status(status, code="QUOTA_EXCEEDED"))
    with pytest.raises(SpaceError):
        fetch(client(registry), registry)
    assert len(registry.requests) == 1


def test_the_reason_of_a_retry_has_the_registrys_words(client, registry):
    registry.faults.add(Fault.status(503, code="BUSY", times=1))
    seen = []
    fetch(client(registry, seen.append), registry)
    assert [event.reason for event in seen] == ["HTTP status 503: BUSY: fault: 503"]


# Redirects


def test_redirect_to_another_host_drops_credentials(client):
    with FaultRegistry(auth=BasicAuth({"ada": "secret"})) as registry:
        registry.digest = registry.add_blob(BLOB)
        with BlobHost(registry.store) as blobs:
            registry.faults.add(Fault.redirect(blobs))
            assert fetch(client(registry, credentials=ADA), registry).body == BLOB
            assert registry.credentials_seen
            assert blobs.credentials_seen == []
            assert blobs.requests_with("secret") == []
            assert blobs.violations == []


def test_redirect_within_the_registry_keeps_credentials(client):
    with FaultRegistry(auth=BasicAuth({"ada": "secret"})) as registry:
        registry.digest = registry.add_blob(BLOB)
        registry.faults.add(
            Fault.redirect(f"/v2/team/other/blobs/{registry.digest}", repo="team/model")
        )
        assert fetch(client(registry, credentials=ADA), registry).body == BLOB


def test_redirect_to_another_port_drops_credentials(client):
    with (
        FaultRegistry(auth=BasicAuth({"ada": "secret"})) as registry,
        BlobHost(registry.store, address="127.0.0.1") as blobs,
    ):
        registry.digest = registry.add_blob(BLOB)
        registry.faults.add(Fault.redirect(blobs))
        assert fetch(client(registry, credentials=ADA), registry).body == BLOB
        assert blobs.credentials_seen == []


def test_a_challenge_of_another_host_is_not_answered(client):
    with (
        FaultRegistry(auth=BasicAuth({"ada": "secret"})) as registry,
        FaultRegistry(address="127.0.0.2", auth=BasicAuth({"ada": "secret"})) as other,
    ):
        registry.digest = registry.add_blob(BLOB)
        registry.faults.add(Fault.redirect(other))
        with pytest.raises(AuthError):
            fetch(client(registry, credentials=ADA), registry)
        assert other.credentials_seen == []


def test_redirect_loop(client, registry):
    registry.faults.add(Fault.redirect(registry))
    with pytest.raises(NetworkError, match="more than 5 redirects"):
        fetch(client(registry), registry)
    assert len(registry.requests) == 6


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://u:secret@h.example/", "gopher://x"]
)
def test_unsafe_redirect(client, registry, location):
    registry.faults.add(Fault.redirect(location))
    with pytest.raises(UnsafeAddressError) as caught:
        fetch(client(registry), registry)
    assert "secret" not in str(caught.value)


def test_writes_are_not_redirected(client, registry):
    registry.faults.add(Fault.redirect("/elsewhere", method="PUT", kind="manifest"))
    with pytest.raises(Exception, match="HTTP status 307"):
        client(registry).request("PUT", "manifests/v1", what="push", expect=(201,), content=b"{}")
    assert [record.path for record in registry.requests] == ["/v2/team/model/manifests/v1"]


# TLS


@pytest.fixture
def tls_server(private_ca):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*private_ca.issue("client-test"))
    with FaultRegistry(tls=context) as started:
        started.digest = started.add_blob(BLOB)
        yield started


def test_tls_with_a_private_authority(client, tls_server, private_ca):
    ours = client(tls_server, plain_http=False, ca_file=private_ca.file)
    assert fetch(ours, tls_server).body == BLOB


def test_an_untrusted_certificate_is_final(client, tls_server):
    started = time.monotonic()
    with pytest.raises(NetworkError, match=r"not trusted .*--ca-file"):
        fetch(client(tls_server, plain_http=False), tls_server)
    assert time.monotonic() - started < 2.0


def test_insecure_tls_accepts_it(client, tls_server):
    assert fetch(client(tls_server, plain_http=False, insecure_tls=True), tls_server).body == BLOB


def test_tls_to_a_plain_server_is_final(client, registry):
    with pytest.raises(NetworkError, match="--plain-http"):
        fetch(client(registry, plain_http=False), registry)
    registry.clear_records()


def test_no_step_down_from_tls(client, tls_server, private_ca):
    with FaultRegistry(store=tls_server.store) as plain:
        tls_server.faults.add(Fault.redirect(plain))
        with pytest.raises(UnsafeAddressError, match="plain http"):
            fetch(client(tls_server, plain_http=False, ca_file=private_ca.file), tls_server)
        assert plain.requests == []


# No registry


def test_no_server_is_known_soon(client):
    started = time.monotonic()
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1:1/team/model|connection refused"):
        client("127.0.0.1:1", patience=120.0).request("GET", "tags/list", what="tags")
    assert time.monotonic() - started < 6


def test_no_such_host_is_final(client):
    with pytest.raises(NetworkError, match=r"there is no host"):
        client("registry.invalid").request("GET", "tags/list", what="tags")


def test_a_server_that_was_there_is_waited_for(client, registry):
    ours = client(registry)
    fetch(ours, registry)
    registry.stop()
    timer = threading.Timer(0.7, registry.start)
    timer.start()
    try:
        assert fetch(ours, registry).body == BLOB
    finally:
        timer.join()


# Secrecy


def test_cookies_are_not_returned(client, registry):
    registry.faults.add(Fault.header("Set-Cookie", "sid=secret; Path=/"))
    ours = client(registry)
    for _ in range(2):
        fetch(ours, registry)
    assert registry.requests_with("secret") == []


def test_queries_and_headers_are_not_logged(client, caplog):
    caplog.set_level(logging.DEBUG)
    with (
        FaultRegistry(auth=BasicAuth({"ada": "secret"})) as registry,
        BlobHost(registry.store) as blobs,
    ):
        registry.digest = registry.add_blob(BLOB)
        registry.faults.add(Fault.redirect(blobs))
        fetch(client(registry, credentials=ADA), registry)
    assert "X-Signature" not in caplog.text
    assert ADA.basic not in caplog.text
