import json
import subprocess
import sys

import pytest

from modelpack.errors import AuthError, NetworkError, NotFoundError, UsageError
from modelpack.registry.credentials import Credentials, find_credentials
from modelpack.registry.login import login, logout
from modelpack.registry.options import ConnectionOptions
from tests.support.faultregistry import BasicAuth, BearerAuth, FaultRegistry

USERS = {"ada": "secret"}
ADA = Credentials(username="ada", password="secret")


@pytest.fixture
def options(tmp_path):
    return ConnectionOptions(auth_file=tmp_path / "auth.json", patience=1.0)


@pytest.mark.parametrize(
    "auth", [BasicAuth(USERS), BearerAuth(users=USERS), None], ids=["basic", "bearer", "open"]
)
def test_login_and_logout(options, auth):
    with FaultRegistry(auth=auth) as registry:
        assert login(registry.host, ADA, options) == str(options.auth_file)
        assert find_credentials(registry.host, only=options.auth_file) == ADA
        assert registry.violations == []
        assert logout(registry.host, options) == [str(options.auth_file)]
        assert json.loads(options.auth_file.read_text()) == {"auths": {}}
        with pytest.raises(NotFoundError, match=f"no login for {registry.host}"):
            logout(registry.host, options)


@pytest.mark.parametrize(
    "auth", [BasicAuth(USERS), BearerAuth(users=USERS)], ids=["basic", "bearer"]
)
def test_a_refused_login_is_not_stored(options, auth):
    with FaultRegistry(auth=auth) as registry:
        with pytest.raises(AuthError, match="refused the login") as caught:
            login(registry.host, Credentials(username="ada", password="guess"), options)
        assert "guess" not in str(caught.value)
        assert "modelpack login" not in str(caught.value)  # which was just done
        assert not options.auth_file.exists()


def test_a_new_login_replaces_the_old_one(options):
    with FaultRegistry(auth=BasicAuth({**USERS, "bob": "other"})) as registry:
        login(registry.host, ADA, options)
        bob = Credentials(username="bob", password="other")
        login(registry.host, bob, options)
        assert find_credentials(registry.host, only=options.auth_file) == bob


def test_no_registry(options):
    with pytest.raises(NetworkError):
        login("127.0.0.1:1", ADA, options)
    with pytest.raises(UsageError):
        login("not a host", ADA, options)
    assert not options.auth_file.exists()


HEAVY = {"httpx", "httpcore", "oras", "requests", "urllib3", "h11", "ssl"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("modelpack.registry", set()),
        ("modelpack.registry.options", {"ssl"}),
        ("modelpack.registry.credentials", set()),
        ("modelpack.registry.repository", {"ssl", "httpx", "httpcore", "h11"}),
    ],
)
def test_what_an_import_costs(module, allowed):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert HEAVY.intersection(done.stdout.split()) <= allowed
