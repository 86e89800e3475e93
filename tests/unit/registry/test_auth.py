import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelpack.errors import AuthError, NetworkError
from modelpack.registry.auth import merged_scopes
from modelpack.registry.client import RegistryClient
from modelpack.registry.credentials import Credentials
from modelpack.registry.errors import UnsafeAddressError
from modelpack.registry.options import ConnectionOptions
from tests.support.faultregistry import BasicAuth, BearerAuth, Fault, FaultRegistry, TokenHost

USERS = {"ada": "pass:word"}
ADA = Credentials(username="ada", password="pass:word")
MALLORY = Credentials(username="ada", password="guess")


@pytest.fixture
def client(tmp_path):
    clients = []

    def make(registry, credentials=None, **options):
        made = RegistryClient(
            registry.host,
            "team/model",
            ConnectionOptions(
                credentials=credentials,
                auth_file=tmp_path / "none.json",
                patience=options.pop("patience", 3.0),
                **options,
            ),
        )
        clients.append(made)
        return made

    yield make
    for made in clients:
        made.close()


def tags(client, **more):
    return client.request("GET", "tags/list", what="tags", expect=(200, 404), **more).status


def test_nothing_is_sent_before_it_is_asked_for(client):
    with FaultRegistry() as registry:
        tags(client(registry, ADA))
        assert registry.credentials_seen == []
        assert registry.violations == []


def test_basic(client):
    with FaultRegistry(auth=BasicAuth(USERS)) as registry:
        ours = client(registry, ADA)
        assert tags(ours) == 404
        assert tags(ours) == 404
        assert [record.status for record in registry.requests] == [401, 404, 404]
        assert registry.credentials_seen == [f"Basic {ADA.basic}"]


@pytest.mark.parametrize(
    ("auth", "credentials", "said"),
    [
        (BasicAuth(USERS), None, "wants a user name and password"),
        (BasicAuth(USERS), MALLORY, "refused the credentials"),
        (BasicAuth(USERS), Credentials(identity_token="x"), "wants a user name and password"),
        (BearerAuth(users=USERS), None, "try: modelpack login"),
        (BearerAuth(users=USERS), MALLORY, "gave no token"),
        (BearerAuth(users=USERS), Credentials(identity_token="x"), "gave no token"),
        (BearerAuth(users=USERS, allow=lambda *_: False), ADA, "do not allow it"),
    ],
    ids=[
        "basic, none",
        "basic, wrong",
        "basic, identity token",
        "bearer, none",
        "bearer, wrong",
        "bearer, wrong identity token",
        "bearer, not granted",
    ],
)
def test_refusals(client, auth, credentials, said):
    with FaultRegistry(auth=auth) as registry:
        with pytest.raises(AuthError) as caught:
            tags(client(registry, credentials))
        message = str(caught.value)
        assert said in message
        assert f"modelpack login {registry.host}" in message
        assert "guess" not in message
        assert len(registry.requests) < 8


def test_token_is_asked_for_once_and_used_again(client):
    with FaultRegistry(auth=BearerAuth(users=USERS)) as registry:
        ours = client(registry, ADA)
        assert [tags(ours) for _ in range(3)] == [404] * 3
        assert len(registry.tokens_issued) == 1
        assert registry.tokens_issued[0].scopes == {"team/model": {"pull"}}
        assert registry.violations == []


def test_anonymous_token(client):
    with FaultRegistry(auth=BearerAuth(anonymous={"pull"})) as registry:
        assert tags(client(registry)) == 404
        assert registry.tokens_issued[0].user is None


def test_identity_token(client):
    auth = BearerAuth(users=USERS, refresh_tokens={"identity": "ada"})
    with FaultRegistry(auth=auth) as registry:
        assert tags(client(registry, Credentials(identity_token="identity"))) == 404
        assert registry.tokens_issued[0].user == "ada"
        (asked,) = registry.select(kind="token")
        assert asked.method == "POST"
        assert "identity" not in asked.target


def test_other_actions_need_another_token_but_no_second_challenge(client):
    with FaultRegistry(auth=BearerAuth(users=USERS)) as registry:
        ours = client(registry, ADA)
        tags(ours)
        ours.request(
            "POST",
            "blobs/uploads/",
            what="push",
            expect=(202,),
            actions="pull,push",
            also="repository:team/source:pull",
            content=b"",
        )
        assert [record.status for record in registry.select(kind="uploads")] == [202]
        assert registry.tokens_issued[-1].scopes == {
            "team/model": {"pull", "push"},
            "team/source": {"pull"},
        }


def test_a_token_about_to_end_is_replaced_before_it_is_refused(client):
    with FaultRegistry(auth=BearerAuth(users=USERS, lifetime=1.0)) as registry:
        ours = client(registry, ADA)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            assert tags(ours) == 404
            time.sleep(0.05)
        assert 3 <= len(registry.tokens_issued) <= 5
        assert len(registry.select(kind="tags", status=401)) == 1


def test_a_token_that_ends_unannounced_is_renewed(client):
    with FaultRegistry(
        auth=BearerAuth(users=USERS, lifetime=0.3, announce_expiry=False)
    ) as registry:
        ours = client(registry, ADA)
        for _ in range(3):
            assert tags(ours) == 404
            time.sleep(0.35)
        assert len(registry.tokens_issued) == 3


def test_one_thread_renews_for_all(client):
    with FaultRegistry(auth=BearerAuth(users=USERS)) as registry:
        registry.faults.add(Fault.delay(0.3, kind="token"))
        ours = client(registry, ADA)
        gate = threading.Barrier(8)

        def ask(_):
            gate.wait()
            return tags(ours)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(8))) == [404] * 8
        assert len(registry.tokens_issued) == 1


@pytest.mark.parametrize(
    "challenge",
    [
        ",",
        "Bearer",
        'Bearer service="x"',
        'Negotiate abc==, Digest realm="x"',
        'Bearer realm="open',
    ],
)
def test_odd_challenges(client, challenge):
    with FaultRegistry(auth=BearerAuth(users=USERS, challenge=challenge)) as registry:
        with pytest.raises(AuthError, match="asks for"):
            tags(client(registry, ADA))
        assert registry.select(kind="token") == []


@pytest.mark.parametrize(
    "realm",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/token",
        "http://localhost:1/token",
        "http://attacker.example/token",
        "file:///etc/passwd",
        "/token",
    ],
)
def test_hostile_realms_are_not_asked(client, realm):
    with FaultRegistry(auth=BearerAuth(users=USERS, realm=realm)) as registry:
        with pytest.raises(UnsafeAddressError) as caught:
            tags(client(registry, ADA))
        assert caught.value.exit_code == 5
        assert registry.credentials_seen == []


@pytest.mark.parametrize("credentials", [ADA, None], ids=["logged in", "anonymous"])
def test_a_realm_on_another_address_is_not_even_contacted(client, credentials):
    auth = BearerAuth(users=USERS, anonymous={"pull"})
    with TokenHost(auth, address="127.0.0.3") as tokens, FaultRegistry(auth=auth) as registry:
        with pytest.raises(UnsafeAddressError, match=r"127\.0\.0\.3"):
            tags(client(registry, credentials))
        assert tokens.requests == []


def test_a_realm_on_another_port_of_the_host_gets_credentials(client):
    auth = BearerAuth(users=USERS)
    with TokenHost(auth, address="127.0.0.1") as tokens, FaultRegistry(auth=auth) as registry:
        assert tags(client(registry, ADA)) == 404
        assert tokens.requests_with("pass:word")
        assert registry.requests_with("pass:word") == []


def test_a_token_service_that_redirects_is_not_followed(client):
    auth = BearerAuth(users=USERS)
    with TokenHost(auth, address="127.0.0.3") as other, FaultRegistry(auth=auth) as registry:
        auth.realm = f"{registry.url}/token"
        registry.faults.add(Fault.redirect(f"{other.url}/token", kind="token"))
        with pytest.raises(NetworkError, match="redirects"):
            tags(client(registry, ADA))
        assert other.requests == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"not JSON", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "without a token"),
        (b'{"token": 5}', "without a token"),
        (b'{"token": ""}', "without a token"),
        (b'{"token": "a\\r\\nX-Evil: 1"}', "a token that is none"),
        (b'{"token": "%s"}' % (b"x" * 100_000), "a token that is none"),
        (b'{"token": "x", "filler": "%s"}' % (b"x" * 1_000_000), "larger than"),
    ],
    ids=["text", "list", "empty", "number", "empty token", "injection", "long", "huge"],
)
def test_odd_token_answers(client, body, said):
    with FaultRegistry(auth=BearerAuth(users=USERS)) as registry:
        registry.faults.add(Fault.replace_body(body, kind="token"), Fault.chunked(kind="token"))
        with pytest.raises(Exception, match=said) as caught:
            tags(client(registry, ADA))
        assert caught.value.exit_code in {4, 5}


@pytest.mark.parametrize(
    ("lifetime", "works"),
    [(b"-5", True), (b"0", True), (b'"soon"', True), (b"1e300", True), (b"true", True)],
)
def test_odd_lifetimes(client, lifetime, works):
    with FaultRegistry(auth=BearerAuth(users=USERS)) as registry:
        ours = client(registry, ADA)
        tags(ours)
        token = registry.tokens_issued[0].token.encode()
        registry.faults.add(
            Fault.replace_body(b'{"token":"%s","expires_in":%s}' % (token, lifetime), kind="token"),
            Fault.chunked(kind="token"),
        )
        other = client(registry, ADA)
        assert (tags(other) == 404) is works
        assert (tags(other) == 404) is works


def test_a_token_service_in_trouble_is_asked_again(client):
    with FaultRegistry(auth=BearerAuth(users=USERS)) as registry:
        registry.faults.add(
            Fault.status(503, kind="token", nth=1),
            Fault.drop(kind="token", nth=2),
        )
        assert tags(client(registry, ADA)) == 404
        assert len(registry.select(kind="token")) == 3


def test_a_token_service_that_stays_in_trouble(client):
    with FaultRegistry(auth=BearerAuth(users=USERS)) as registry:
        registry.faults.add(Fault.status(500, kind="token"))
        with pytest.raises(NetworkError, match="token service"):
            tags(client(registry, ADA, patience=0.5))


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [
        (["repository:a/b:pull"], "", ["repository:a/b:pull"]),
        (["repository:a/b:pull"], "repository:a/b:pull", ["repository:a/b:pull"]),
        (["repository:a/b:pull"], "repository:a/b:push,pull", ["repository:a/b:pull,push"]),
        (
            ["repository:a/b:pull"],
            "repository:mirror/a/b:pull registry:catalog:*",
            ["repository:a/b:pull", "repository:mirror/a/b:pull", "registry:catalog:*"],
        ),
        ([], "plain", ["plain"]),
    ],
)
def test_merged_scopes(own, asked, expected):
    assert merged_scopes(own, asked) == expected
