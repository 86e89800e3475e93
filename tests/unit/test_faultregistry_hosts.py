"""Authentication, other hosts, TLS, and the life of a server."""

import base64
import hashlib
import http.client
import json
import re
import ssl
import threading
import time
from urllib.parse import urlencode

import httpx
import pytest

from tests.support.certificates import PrivateCA
from tests.support.faultregistry import (
    BasicAuth,
    BearerAuth,
    BlobHost,
    Fault,
    FaultRegistry,
    Scope,
    TokenHost,
    describe,
)
from tests.support.faultregistry.client import Client

BLOB = bytes(range(256)) * 4096
REPO = "team/model"
DIGEST = describe(BLOB)["digest"]
PATH = f"/v2/{REPO}/blobs/{DIGEST}"
UPLOADS = f"/v2/{REPO}/blobs/uploads/"
PULL, PUSH = f"repository:{REPO}:pull", f"repository:{REPO}:pull,push"
USERS = {"ada": "secret"}
FORM = "application/x-www-form-urlencoded"


def basic(name="ada", password="secret"):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def challenge(reply):
    assert (reply.status, reply.error) == (401, "UNAUTHORIZED")
    scheme, _, rest = reply["WWW-Authenticate"].partition(" ")
    return scheme, dict(re.findall(r'(\w+)="([^"]*)"', rest))


def token(client, scope=PULL, authorization="", **more):
    query = urlencode({"service": "fault-registry", "scope": scope, **more})
    return client.get(f"/token?{query}", Authorization=authorization)


# Basic


def test_basic():
    with FaultRegistry(auth=BasicAuth(USERS)) as registry, Client(registry) as client:
        registry.add_blob(BLOB)
        assert challenge(client.get(PATH)) == ("Basic", {"realm": "fault registry"})
        for wrong in (basic(password="guess"), basic("eve", ""), "Basic !", "Bearer x"):
            assert client.get(PATH, Authorization=wrong).status == 401
        assert client.get(PATH, Authorization=basic()).body == BLOB
        assert registry.credentials_seen[-1] == basic()
        assert len(registry.requests_with("secret")) == 1
        assert registry.violations == []


# Bearer


def test_a_token_opens_what_it_is_for():
    auth = BearerAuth(users=USERS)
    with FaultRegistry(auth=auth) as registry, Client(registry) as client:
        registry.add_blob(BLOB)
        scheme, fields = challenge(client.get(PATH))
        assert scheme == "Bearer"
        assert fields == {
            "realm": f"{registry.url}/token",
            "service": "fault-registry",
            "scope": PULL,
        }
        assert token(client).status == 401
        assert token(client, authorization=basic(password="guess")).status == 401
        answer = json.loads(token(client, authorization=basic()).body)
        assert answer["expires_in"] == 300
        bearer = f"Bearer {answer['token']}"
        assert client.get(PATH, Authorization=bearer).status == 200
        assert client.get("/v2/", Authorization=bearer).status == 200
        fields = challenge(client.ask("POST", UPLOADS, Authorization=bearer))[1]
        assert (fields["scope"], fields["error"]) == (PUSH, "insufficient_scope")
        mount = f"{UPLOADS}?mount={DIGEST}&from=one"
        fields = challenge(client.ask("POST", mount, Authorization=bearer))[1]
        assert fields["scope"] == f"{PUSH} repository:one:pull"
        fields = challenge(client.ask("DELETE", PATH, Authorization=bearer))[1]
        assert fields["scope"] == f"repository:{REPO}:delete"
        assert (
            challenge(client.get("/v2/", Authorization="Bearer x"))[1]["error"] == "invalid_token"
        )
        (issued,) = registry.tokens_issued
        assert (issued.user, issued.scopes) == ("ada", {REPO: {"pull"}})
        assert registry.violations == []


def test_tokens_expire():
    auth = BearerAuth(users=USERS, announce_expiry=False)
    with FaultRegistry(auth=auth) as registry, Client(registry) as client:
        registry.add_blob(BLOB)
        answer = json.loads(token(client, authorization=basic()).body)
        assert "expires_in" not in answer
        long = f"Bearer {answer['token']}"
        auth.lifetime = 0.05
        short = f"Bearer {auth.issue('ada', PULL)}"
        time.sleep(0.06)
        assert challenge(client.get(PATH, Authorization=short))[1]["error"] == "invalid_token"
        assert client.get(PATH, Authorization=long).status == 200
        auth.expire_tokens()
        assert client.get(PATH, Authorization=long).status == 401


def test_anonymous_tokens_may_only_pull():
    auth = BearerAuth(users=USERS, anonymous={"pull"})
    with FaultRegistry(auth=auth) as registry, Client(registry) as client:
        bearer = f"Bearer {json.loads(token(client, PUSH).body)['token']}"
        assert registry.tokens_issued[0].scopes == {REPO: {"pull"}}
        assert client.get(PATH, Authorization=bearer).status == 404
        assert client.ask("POST", UPLOADS, Authorization=bearer).status == 401


def test_rights_can_be_cut():
    auth = BearerAuth(users=USERS, allow=lambda user, repo, action: repo == REPO)
    issued = auth.issue("ada", PUSH, "repository:other:pull", f"repository:{REPO}:delete")
    assert auth.tokens_issued[-1].token == issued
    assert auth.tokens_issued[-1].scopes == {REPO: {"pull", "push", "delete"}, "other": set()}


def test_the_oauth2_form():
    auth = BearerAuth(users=USERS, refresh_tokens={"identity": "ada"})
    form = {"service": "fault-registry", "client_id": "t", "scope": PULL}
    password = {**form, "grant_type": "password", "username": "ada", "password": "secret"}
    with FaultRegistry(auth=auth) as registry, Client(registry) as client:

        def post(fields):
            return client.ask("POST", "/token", urlencode(fields), Content_Type=FORM)

        assert json.loads(post(password).body)["access_token"]
        assert post({**password, "password": "guess"}).status == 401
        refresh = {**form, "grant_type": "refresh_token", "refresh_token": "identity"}
        assert post(refresh).status == 200
        assert [one.user for one in registry.tokens_issued] == ["ada", "ada"]
        assert len(registry.requests_with("secret")) == 1  # in a body
        auth.oauth2 = False
        assert post(password).status == 405
        assert registry.violations == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.get("/token?service=other"),
        lambda c: token(c, "repository:team/model:steal", basic()),
        lambda c: token(c, "nonsense", basic()),
        lambda c: token(c, authorization="Bearer x"),
        lambda c: token(c, unknown="1"),
        lambda c: c.ask("POST", "/token", "{}", Content_Type="application/json"),
        lambda c: c.ask("POST", "/token", "service=fault-registry", Content_Type=FORM),
    ],
    ids=["service", "action", "scope", "bearer", "query", "json", "no-client"],
)
def test_the_token_endpoint_is_strict(ask):
    with FaultRegistry(auth=BearerAuth(users=USERS)) as registry, Client(registry) as client:
        assert ask(client).status == 400
        assert len(registry.violations) == 1


def test_challenges_can_lie():
    auth = BearerAuth(realm="http://169.254.169.254/latest")
    with FaultRegistry(auth=auth) as registry, Client(registry) as client:
        assert challenge(client.get(PATH))[1]["realm"] == "http://169.254.169.254/latest"
        auth.challenge = "Bearer realm="
        assert client.get(PATH)["WWW-Authenticate"] == "Bearer realm="


def test_faults_wait_for_the_credentials():
    fault = Fault.status(503, kind="blob", times=1)
    gate = BasicAuth(USERS)
    with FaultRegistry(auth=gate, faults=[fault]) as registry, Client(registry) as client:
        assert client.get(PATH).status == 401
        assert registry.faults.fired(fault) == 0
        assert client.get(PATH, Authorization=basic()).status == 503


def test_scopes_read_and_write():
    for text in (PULL, PUSH, f"repository:{REPO}:delete"):
        assert str(Scope.parse(text)) == text


# Other hosts


def test_tokens_from_another_host():
    auth = BearerAuth(users=USERS)
    with TokenHost(auth) as tokens, FaultRegistry(auth=auth) as registry:
        registry.add_blob(BLOB)
        assert (tokens.address, registry.address) == ("127.0.0.3", "127.0.0.1")
        with Client(registry) as client, Client(tokens) as token_client:
            assert challenge(client.get(PATH))[1]["realm"] == f"{tokens.url}/token"
            answer = json.loads(token(token_client, authorization=basic()).body)
            assert client.get(PATH, Authorization=f"Bearer {answer['token']}").status == 200
            assert token_client.get("/elsewhere").status == 404
        assert [len(one.requests_with("secret")) for one in (tokens, registry)] == [1, 0]


def test_a_signed_url_is_good_for_some_time_and_uses():
    with FaultRegistry() as registry, BlobHost(registry.store) as blobs, Client(blobs) as client:
        registry.add_blob(BLOB)
        url = blobs.signed_url(DIGEST)
        assert client.get(url).body == BLOB
        assert client.get(url, Range="bytes=1-9").body == BLOB[1:10]
        blobs.uses = 2
        assert client.get(url).status == 403
        assert client.get(blobs.signed_url(DIGEST)).status == 200
        blobs.lifetime = 0.05
        url = blobs.signed_url(DIGEST)
        time.sleep(0.06)
        assert client.get(url).status == 403
        blobs.lifetime = None
        assert client.get(url).status == 200
        assert client.ask("HEAD", blobs.signed_url(DIGEST)).status == 403
        assert client.get(f"/{DIGEST}?X-Signature=x").status == 403
        assert blobs.bytes_sent(DIGEST) == 3 * len(BLOB) + 9
        assert blobs.violations == []


def test_credentials_at_a_blob_host_are_a_violation():
    with FaultRegistry() as registry, BlobHost(registry.store) as blobs, Client(blobs) as client:
        registry.add_blob(BLOB)
        assert client.get(blobs.signed_url(DIGEST), Authorization=basic()).status == 400
        assert blobs.credentials_seen == [basic()]
        assert len(blobs.requests_with("secret")) == 1
        assert len(blobs.violations) == 1


def test_httpx_follows_a_redirect_without_its_credentials():
    with (
        FaultRegistry(auth=BasicAuth(USERS)) as registry,
        BlobHost(registry.store) as blobs,
        httpx.Client(auth=("ada", "secret"), follow_redirects=True) as client,
    ):
        registry.add_blob(BLOB)
        registry.faults.add(Fault.redirect(blobs))
        blobs.faults.add(Fault.truncate(after=100, times=1))
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(registry.url + PATH)
        assert client.get(registry.url + PATH).content == BLOB
        assert (blobs.credentials_seen, blobs.violations, registry.violations) == ([], [], [])


# Servers


def test_tls(tmp_path):
    ca = PrivateCA(tmp_path)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(*ca.issue("registry"))
    trusting = ssl.create_default_context(cafile=ca.file)
    with FaultRegistry(tls=served) as registry:
        registry.add_blob(BLOB)
        assert registry.url.startswith("https://")
        with Client(registry, trusting) as client:
            assert client.get(PATH).body == BLOB
            registry.faults.add(Fault.reset(after=1000))
            response = client.open("GET", PATH)
            with pytest.raises(http.client.IncompleteRead):
                response.read()
            response.close()
        distrusting = ssl.create_default_context()
        with Client(registry, distrusting) as client, pytest.raises(ssl.SSLCertVerificationError):
            client.get(PATH)
        with Client(registry) as client, pytest.raises(OSError, match=r".*"):
            client.get(PATH)
        with Client(registry, trusting) as idle:
            idle.get("/v2/")
            registry.stop()
        assert len(registry.requests) == 3


def test_a_server_comes_back_on_its_port():
    registry = FaultRegistry()
    with registry, Client(registry) as client:
        host = registry.host
        assert client.get("/v2/").status == 200
        registry.stop()
        registry.stop()
        with pytest.raises(ConnectionError):
            client.get("/v2/")
        client.connection.close()
        with pytest.raises(ConnectionRefusedError):
            client.get("/v2/")
        client.connection.close()
        registry.start()
        assert registry.host == host
        assert client.get("/v2/").status == 200


def test_all_connections_can_be_dropped():
    with FaultRegistry() as registry, Client(registry) as client:
        client.get("/v2/")
        assert registry.open_connections == 1
        registry.disconnect_all()
        with pytest.raises(ConnectionError):
            client.get("/v2/")
        client.connection.close()
        assert client.get("/v2/").status == 200


def test_sixty_four_connections_at_once():
    step = len(BLOB) // 64
    got = [b""] * 64
    everyone = threading.Barrier(64)

    def fetch(number):
        with Client(registry) as client:
            for _ in range(3):
                first = number * step
                reply = client.get(PATH, Range=f"bytes={first}-{first + step - 1}")
                got[number] = reply.body
                everyone.wait(20)

    with FaultRegistry(faults=[Fault.delay(0.2, nth=range(1, 65))]) as registry:
        registry.add_blob(BLOB)
        threads = [threading.Thread(target=fetch, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert b"".join(got) == BLOB
        assert registry.peak_connections == registry.connections_opened == 64
        assert registry.peak_in_flight > 8
        assert registry.bytes_sent(DIGEST) == 3 * len(BLOB)
        assert registry.repeated_bytes(DIGEST) == 2 * len(BLOB)
        assert registry.violations == []


def test_a_large_blob_goes_through_quickly():
    """A guard against a server that is too slow to test with, not a benchmark."""
    size = 256 * 1024 * 1024
    piece = hashlib.shake_256(b"").digest(1 << 20)
    with FaultRegistry() as registry, Client(registry) as client:
        digest = registry.add_sparse_blob(size, lambda _, length: piece[:length], digest=DIGEST)
        buffer = bytearray(1 << 20)
        since = time.monotonic()
        response = client.open("GET", f"/v2/{REPO}/blobs/{digest}")
        received = 0
        while count := response.readinto(buffer):
            received += count
        assert received == size
        assert time.monotonic() - since < 20
