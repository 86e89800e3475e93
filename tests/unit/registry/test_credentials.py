import base64
import json
import os
import stat

import pytest

from modelpack.errors import AuthError, UsageError
from modelpack.registry import helpers
from modelpack.registry.credentials import (
    DOCKER_HUB_KEY,
    Credentials,
    auth_files,
    find_credentials,
    remove_credentials,
    store_credentials,
)

HOST = "registry.example:5000"


def basic(username, password):
    return base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory of its own, with none of the variables that point elsewhere."""
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


@pytest.fixture
def write(home):
    def put(path, config):
        file = home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(config if isinstance(config, str) else json.dumps(config))
        return file

    return put


def one(username, password="p", host=HOST):
    return {"auths": {host: {"auth": basic(username, password)}}}


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """A credential helper, as a program on PATH that keeps its logins in a file."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def install(name="test", script=None):
        program = directory / f"docker-credential-{name}"
        store = directory / "logins"
        program.write_text(
            script
            or f"""#!/usr/bin/env python3
import json, pathlib, sys
file = pathlib.Path({str(store)!r})
logins = json.loads(file.read_text()) if file.exists() else {{}}
data = sys.stdin.read()
if sys.argv[1] == "get":
    if data not in logins:
        print("credentials not found in native keychain")
        sys.exit(1)
    print(json.dumps({{"ServerURL": data, "Username": logins[data][0], "Secret": logins[data][1]}}))
elif sys.argv[1] == "store":
    value = json.loads(data)
    logins[value["ServerURL"]] = [value["Username"], value["Secret"]]
elif sys.argv[1] == "erase":
    logins.pop(data)
file.write_text(json.dumps(logins))
"""
        )
        program.chmod(0o755)
        return store

    return install


# Where logins are looked for


def test_order_of_files(home, monkeypatch):
    assert auth_files() == [
        home / "run/containers/auth.json",
        home / ".config/containers/auth.json",
        home / ".docker/config.json",
    ]
    monkeypatch.setenv("DOCKER_CONFIG", "/docker")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert list(map(str, auth_files()[1:])) == [
        "/config/containers/auth.json",
        "/docker/config.json",
    ]
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/only.json")
    assert list(map(str, auth_files())) == ["/only.json"]


def test_the_first_file_that_knows_the_registry_wins(write):
    write(".docker/config.json", one("docker"))
    assert find_credentials(HOST) == Credentials(username="docker", password="p")
    write(".config/containers/auth.json", one("other", host="other.example"))
    assert find_credentials(HOST).username == "docker"
    write("run/containers/auth.json", one("podman"))
    assert find_credentials(HOST).username == "podman"


def test_nothing_is_known(home):
    assert find_credentials(HOST) is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": basic("ada", "a:b c")}, Credentials(username="ada", password="a:b c")),
        ({"auth": basic("ada", "pass\0\0")}, Credentials(username="ada", password="pass")),
        ({"username": "ada", "password": "p"}, Credentials(username="ada", password="p")),
        ({"auth": basic("x", ""), "identitytoken": "t"}, Credentials(identity_token="t")),
        ({"auth": basic("<token>", "t")}, Credentials(identity_token="t")),
        ({}, None),
        (None, None),
        ({"auth": ""}, None),
    ],
    ids=[
        "auth",
        "padded",
        "members",
        "identity token",
        "token user",
        "empty",
        "null",
        "empty auth",
    ],
)
def test_entries(write, entry, expected):
    write(".docker/config.json", {"auths": {HOST: entry}})
    assert find_credentials(HOST) == expected


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        (HOST, HOST),
        (f"https://{HOST}", HOST),
        (f"https://{HOST}/v1/", HOST),
        (DOCKER_HUB_KEY, "docker.io"),
        ("docker.io", "docker.io"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_keys(write, key, registry):
    write(".docker/config.json", one("ada", host=key))
    assert find_credentials(registry).username == "ada"


def test_a_part_of_a_registry_may_have_its_own_login(write):
    write(
        "run/containers/auth.json",
        {
            "auths": {
                HOST: {"auth": basic("all", "p")},
                f"{HOST}/team": {"auth": basic("team", "p")},
                f"{HOST}/team/model": {"auth": basic("model", "p")},
            }
        },
    )
    assert find_credentials(HOST, "team/model").username == "model"
    assert find_credentials(HOST, "team/other").username == "team"
    assert find_credentials(HOST, "teams").username == "all"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"auths": []}',
        '{"auths": {"a": "b"}}',
        '{"credsStore": 1}',
        '{"credHelpers": {"a": null}}',
        '{"auths": {"registry.example:5000": {"auth": "not base64!"}}}',
        '{"auths": {"registry.example:5000": {"auth": "bm9jb2xvbg=="}}}',
        '{"credHelpers": {"registry.example:5000": "../../tmp/evil"}}',
    ],
)
def test_a_damaged_file_is_named(write, text):
    file = write(".docker/config.json", text)
    with pytest.raises(UsageError, match=str(file)):
        find_credentials(HOST)


# Helpers


@pytest.mark.parametrize(
    "config",
    [
        {"credHelpers": {HOST: "test"}},
        {"credsStore": "test"},
        {"auths": {HOST: {}}, "credsStore": "test"},
    ],
    ids=["credHelpers", "credsStore", "empty entry"],
)
def test_helper(write, helper, config):
    helper().write_text(json.dumps({HOST: ["ada", "secret"]}))
    write(".docker/config.json", config)
    assert find_credentials(HOST) == Credentials(username="ada", password="secret")


def test_helper_gives_an_identity_token(write, helper):
    helper().write_text(json.dumps({HOST: ["<token>", "identity"]}))
    write(".docker/config.json", {"credsStore": "test"})
    assert find_credentials(HOST) == Credentials(identity_token="identity")


def test_helper_without_a_login(write, helper):
    helper()
    write(".docker/config.json", {"credsStore": "test"})
    assert find_credentials(HOST) is None


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho locked >&2; exit 3\n", "locked"),
        ("#!/bin/sh\necho nonsense\n", "not JSON"),
        ("#!/bin/sh\necho '{}'\n", "without a login"),
        ("#!/bin/sh\necho '[1]'\n", "without a login"),
        ("#!/nowhere/interpreter\n", "not installed"),
    ],
    ids=["fails", "no JSON", "empty", "list", "not runnable"],
)
def test_helper_that_fails(write, helper, script, said):
    helper(script=script)
    write(".docker/config.json", {"credHelpers": {HOST: "test"}})
    with pytest.raises(AuthError, match=said):
        find_credentials(HOST)


def test_helper_that_hangs(write, helper, monkeypatch):
    monkeypatch.setattr(helpers, "HELPER_SECONDS", 0.2)
    helper(script="#!/bin/sh\nexec sleep 30\n")
    write(".docker/config.json", {"credHelpers": {HOST: "test"}})
    with pytest.raises(AuthError, match="did not answer"):
        find_credentials(HOST)


def test_a_missing_helper_of_this_registry_is_an_error(write):
    write(".docker/config.json", {"credHelpers": {HOST: "gone"}})
    with pytest.raises(AuthError, match="docker-credential-gone, which is not installed"):
        find_credentials(HOST)


def test_a_missing_store_for_all_is_none(write):
    write(".docker/config.json", {"credsStore": "desktop-that-is-gone"})
    assert find_credentials(HOST) is None


# Storing


def test_store_makes_a_private_file(home):
    umask = os.umask(0)
    try:
        place = store_credentials(HOST, Credentials(username="ada", password="päss"))
    finally:
        os.umask(umask)
    file = home / ".docker/config.json"
    assert place == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert find_credentials(HOST) == Credentials(username="ada", password="päss")
    assert os.listdir(file.parent) == ["config.json"]


def test_store_keeps_everything_else(write):
    before = {
        "auths": {
            "other.example": {"auth": basic("x", "y"), "unknown": [1]},
            f"https://{HOST}/v1/": {},
        },
        "HttpHeaders": {"a": "b"},
        "plugins": {},
    }
    file = write(".docker/config.json", before)
    file.chmod(0o644)
    store_credentials(HOST, Credentials(username="ada", password="new"))
    after = json.loads(file.read_text())
    assert after == {
        **before,
        "auths": {
            "other.example": before["auths"]["other.example"],
            HOST: {"auth": basic("ada", "new")},
        },
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_new_login_ends_an_old_identity_token(write):
    write(".docker/config.json", {"auths": {HOST: {"auth": basic("", ""), "identitytoken": "old"}}})
    store_credentials(HOST, Credentials(username="ada", password="new"))
    assert find_credentials(HOST) == Credentials(username="ada", password="new")
    store_credentials(HOST, Credentials(identity_token="newer"))
    assert find_credentials(HOST) == Credentials(identity_token="newer")


def test_a_login_replaces_the_one_that_would_hide_it(write):
    write(".docker/config.json", one("docker"))
    podman = write("run/containers/auth.json", one("podman"))
    assert store_credentials(HOST, Credentials(username="ada", password="p")) == str(podman)
    assert find_credentials(HOST).username == "ada"


def test_store_follows_the_users_link(write, home):
    real = write("elsewhere/config.json", {})
    (home / ".docker").mkdir()
    (home / ".docker/config.json").symlink_to(real)
    store_credentials(HOST, Credentials(username="ada", password="p"))
    assert (home / ".docker/config.json").is_symlink()
    assert HOST in json.loads(real.read_text())["auths"]


def test_docker_hub_is_filed_under_its_old_name(home):
    store_credentials("docker.io", Credentials(username="ada", password="p"))
    config = json.loads((home / ".docker/config.json").read_text())
    assert list(config["auths"]) == [DOCKER_HUB_KEY]
    assert remove_credentials("registry-1.docker.io") == [str(home / ".docker/config.json")]


def test_store_and_remove_through_a_helper(write, helper):
    store = helper()
    file = write(".docker/config.json", {"credsStore": "test"})
    place = store_credentials(HOST, Credentials(username="ada", password="secret"))
    assert place == "docker-credential-test"
    assert json.loads(store.read_text()) == {HOST: ["ada", "secret"]}
    assert "secret" not in file.read_text()
    assert json.loads(file.read_text())["auths"] == {HOST: {}}
    assert find_credentials(HOST) == Credentials(username="ada", password="secret")
    assert remove_credentials(HOST) == ["docker-credential-test"]
    assert json.loads(store.read_text()) == {}
    assert find_credentials(HOST) is None


def test_a_helper_that_cannot_store_does_not_show_the_password(write, helper):
    helper(script="#!/bin/sh\ncat; cat >&2; exit 1\n")
    write(".docker/config.json", {"credsStore": "test"})
    with pytest.raises(AuthError) as caught:
        store_credentials(HOST, Credentials(username="ada", password="secret"))
    assert "secret" not in str(caught.value)


def test_a_damaged_file_is_not_overwritten(write):
    file = write(".docker/config.json", "{damaged")
    with pytest.raises(UsageError):
        store_credentials(HOST, Credentials(username="ada", password="p"))
    assert file.read_text() == "{damaged"


def test_remove_from_every_file(write):
    docker = write(".docker/config.json", {**one("a"), "plugins": {}})
    podman = write("run/containers/auth.json", one("b"))
    assert remove_credentials(HOST) == [str(podman), str(docker)]
    assert json.loads(docker.read_text()) == {"auths": {}, "plugins": {}}
    assert remove_credentials(HOST) == []


def test_user_name_with_a_colon_is_refused():
    with pytest.raises(UsageError):
        Credentials(username="a:b", password="c")


def test_secrets_are_not_shown():
    shown = repr(Credentials(username="ada", password="secret", identity_token="token"))
    assert shown == "Credentials(username='ada')"
