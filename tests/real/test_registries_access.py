"""Registries that ask who is there: passwords, tokens that expire, private authorities."""

import pytest

from tests.support.certificates import PrivateCA
from tests.support.command import Command
from tests.support.registries import PASSWORD, USERNAME, docker_config
from tests.support.samplemodel import build_sample, digests_of

pytestmark = [pytest.mark.real("docker-registry")]

NAME = "team/model:v1"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_sample(tmp_path_factory.mktemp("sample") / "model")


def test_a_plain_registry(docker_registry, model, command, tmp_path):
    reference = f"{docker_registry.host}/access/plain:v1"
    pushed = command.json("push", model, reference)
    assert pushed["uploaded_bytes"] > pushed["bytes"]
    assert pushed["reused_bytes"] == 0
    again = command.json("push", model, reference)
    assert (again["digest"], again["uploaded_bytes"]) == (pushed["digest"], 0)
    pulled = command.json("pull", reference, tmp_path / "out")
    assert (pulled["digest"], pulled["files"]) == (pushed["digest"], pushed["files"])
    assert pulled["bytes"] == pushed["bytes"]
    assert pulled["bytes"] < pulled["fetched_bytes"] < pulled["bytes"] + 30_000
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert command.json("verify", tmp_path / "out")["ok"]
    assert command.json("verify", reference, "--full")["ok"]
    tags = command.json("tags", reference.rsplit(":", 1)[0])["tags"]
    assert tags == ["v1", "v1-modelpack"]
    assert f"{reference}x" in command.fails(3, "pull", f"{reference}x", tmp_path / "none")


def test_blobs_are_mounted_from_another_repository(docker_registry, model, command):
    first = command.json("push", model, f"{docker_registry.host}/access/first:v1")
    second = command.json("push", model, f"{docker_registry.host}/access/second:v1")
    assert second["digest"] == first["digest"]
    assert second["uploaded_bytes"] < 50_000  # small blobs are sent faster than asked about
    assert second["reused_bytes"] > second["bytes"] - 50_000


def test_another_make_of_registry(crane_registry, model, command, tmp_path):
    reference = f"{crane_registry.host}/{NAME}"
    pushed = command.json("push", model, reference)
    pulled = command.json("pull", reference, tmp_path / "out")
    assert pulled["digest"] == pushed["digest"]
    assert digests_of(tmp_path / "out") == digests_of(model)


def test_a_password_from_docker_s_configuration(basic_auth_registry, model, tmp_path):
    host = basic_auth_registry.host
    reference = f"{host}/{NAME}"
    knows = tmp_path / "knows"
    knows.mkdir()
    docker_config(knows, host)
    friend = Command(tmp_path / "friend", {"DOCKER_CONFIG": str(knows)})
    pushed = friend.json("push", model, reference)
    assert friend.json("pull", reference, tmp_path / "out")["digest"] == pushed["digest"]
    assert digests_of(tmp_path / "out") == digests_of(model)

    stranger = Command(tmp_path / "stranger")
    for verb in (("pull", reference, tmp_path / "none"), ("push", model, reference)):
        line = stranger.fails(4, *verb)
        assert host in line
        assert "login" in line
    assert not list((tmp_path / "none").glob("[!.]*"))

    wrong = tmp_path / "wrong"
    wrong.mkdir()
    docker_config(wrong, host, password="a secret nobody may see")
    mistaken = Command(tmp_path / "mistaken", {"DOCKER_CONFIG": str(wrong)})
    line = mistaken.fails(4, "pull", reference, tmp_path / "none")
    assert "a secret" not in line


def test_login_and_logout(basic_auth_registry, model, command):
    host = basic_auth_registry.host
    given = ("login", host, "--username", USERNAME, "--password-stdin")
    refused = command.run(*given, stdin="a guess\n")
    assert refused.returncode == 4
    assert "a guess" not in refused.stdout + refused.stderr
    command.fails(4, "push", model, f"{host}/{NAME}")
    accepted = command.run(*given, stdin=f"{PASSWORD}\n")
    assert accepted.returncode == 0, accepted.stderr
    command.json("push", model, f"{host}/{NAME}")
    assert command.run("logout", host).returncode == 0
    command.fails(4, "pull", f"{host}/{NAME}", command.home / "out")


def test_a_private_authority_needs_its_file(tls_registry, private_ca, model, command, tmp_path):
    reference = f"{tls_registry.host}/{NAME}"
    trusting = (f"--ca-file={private_ca.file}",)
    pushed = command.json("push", model, reference, *trusting)
    pulled = command.json("pull", reference, tmp_path / "out", *trusting)
    assert pulled["digest"] == pushed["digest"]
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert command.json("verify", reference, "--full", *trusting)["ok"]
    assert command.json("pull", reference, tmp_path / "out2", "--insecure")["files"] == 12


def test_an_unknown_authority_is_named_with_the_way_out(tls_registry, tmp_path):
    other = PrivateCA(tmp_path)
    command = Command(tmp_path / "home")
    reference = f"{tls_registry.host}/{NAME}"
    line = command.fails(7, "pull", reference, tmp_path / "out", f"--ca-file={other.file}")
    assert tls_registry.host in line
    assert "--ca-file" in line
    line = command.fails(7, "pull", reference, tmp_path / "out")
    assert "speaks TLS" in line
    assert "--ca-file" in line
    assert not (tmp_path / "out").exists()
