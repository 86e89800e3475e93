"""Policies, identities instead of keys, and containerd's verifier, from the command line."""

import pytest

from tests.support.faultregistry import FaultRegistry
from tests.support.models import one_shard, write_files
from tests.support.trust import TrustCommand
from tests.unit.signing.sigstore_services import IDENTITY, Deployment


@pytest.fixture
def command(tmp_path):
    return TrustCommand(tmp_path)


@pytest.fixture
def model(tmp_path):
    return write_files(
        tmp_path / "model",
        {"model.safetensors": one_shard(range(2), size=50_000), "config.json": b"{}"},
    )


@pytest.fixture
def store(tmp_path):
    return f"oci:{tmp_path / 'store'}"


@pytest.fixture
def signed(command, model, store):
    """The public key that signed ``store:v1``."""
    private, public = command.key_pair("team")
    command.json("push", model, f"{store}:v1", "--sign", "--key", private)
    return public


# Policies


def test_a_policy_in_force_decides_without_being_named(command, signed, store, tmp_path):
    config = tmp_path / "home/config/modelpack"
    config.mkdir(parents=True)
    (config / "team.pub").write_bytes(signed.read_bytes())
    rule = f"- match: '{store}:v*'\n    signers: [{{key: team.pub}}]\n"
    (config / "policy.yaml").write_text(f"rules:\n  {rule}")
    pulled = command.json("pull", f"{store}:v1", tmp_path / "out")
    assert pulled["policy"] == str(config / "policy.yaml")
    assert all(one["ok"] for one in pulled["rules"])
    command.json("copy", f"{store}:v1", f"{store}:unnamed")
    for arguments in (
        ("pull", f"{store}:unnamed", tmp_path / "no"),
        ("copy", f"{store}:unnamed", f"{store}:again"),
        ("verify", f"{store}:unnamed"),
    ):
        assert "no rule is about" in command.refuses(6, *arguments)
    assert not (tmp_path / "no").exists()
    # A broken one is no missing one.
    (config / "policy.yaml").write_text("rules: [{match: '**', unsinged: true}]")
    assert "unsinged" in command.refuses(2, "pull", f"{store}:v1", tmp_path / "out")
    (config / "policy.yaml").write_text(f"rules:\n  {rule}")
    (config / "team.pub").unlink()
    assert "team.pub" in command.refuses(2, "pull", f"{store}:v1", tmp_path / "out")


def test_policy_check_and_test(command, signed, store, tmp_path):
    file = command.policy(
        "rules:\n"
        f"  - match: '{store}:old'\n    deny: withdrawn\n"
        f"  - match: '{store}'\n    signers: [{{key: {signed.name}}}]\n    threshold: 1\n"
    )
    checked = command.json("policy", "check", file)
    assert [rule["match"] for rule in checked["rules"]] == [f"{store}:old", store]
    assert "anything else" in command.run("policy", "check", file).stdout
    command.json("copy", f"{store}:v1", f"{store}:old")
    command.json("copy", f"{store}:v1", f"oci:{tmp_path / 'other'}:v1")
    assert command.json("policy", "test", file, f"{store}:v1")["ok"]
    done = command.run(
        "policy", "test", file, f"{store}:v1", f"{store}:old", f"oci:{tmp_path / 'other'}:v1"
    )
    assert done.returncode == 6
    lines = [line for line in done.stdout.splitlines() if "@sha256:" in line]
    assert [line.split()[0] for line in lines] == ["accepted", "REFUSED", "REFUSED"]
    assert "withdrawn" in done.stdout


def test_two_of_three(command, model, store, tmp_path):
    keys = [command.key_pair(name) for name in ("first", "second", "third")]
    file = command.policy(
        "rules:\n  - match: 'oci:**'\n    threshold: 2\n    signers:\n"
        + "".join(f"      - {{key: {public.name}}}\n" for _, public in keys)
    )
    command.json("push", model, f"{store}:v1", "--sign", "--key", keys[0][0])
    pull = ("pull", f"{store}:v1", tmp_path / "out", "--policy", file)
    assert "1 of 2 needed, by first.pub" in command.refuses(6, *pull)
    command.json("sign", f"{store}:v1", "--resolve", "--key", keys[2][0])
    assert command.json(*pull)["verified"] == "chunks"


# Without a key


@pytest.fixture
def sigstore():
    with Deployment() as deployment:
        yield deployment


def test_signing_with_an_identity(command, model, store, sigstore, tmp_path):
    config = tmp_path / "trust.json"
    config.write_bytes(sigstore.trust_config())
    token = tmp_path / "token"
    token.write_text(sigstore.token())
    private = ("--trust-config", config)
    pushed = command.json(
        *("push", model, f"{store}:v1", "--sign", "--identity-token", token, *private),
        *("--attest", "provenance"),
    )
    assert len(pushed["signed"]["attached"]) == 3
    named = ("--identity", IDENTITY, "--issuer", sigstore.url, *private)
    found = command.json("pull", f"{store}:v1", tmp_path / "out", *named,
                         "--require-attestation", "provenance")  # fmt: skip
    assert found["signatures"][0]["signerName"] == IDENTITY
    assert command.json("verify", tmp_path / "out", *named)["ok"]
    other = ("--identity", "someone@example.com", "--issuer", sigstore.url, *private)
    assert IDENTITY in command.refuses(6, "verify", f"{store}:v1", *other)
    assert "0 of 1" in command.refuses(
        *(6, "verify", f"{store}:v1", "--identity", IDENTITY, "--issuer", "https://other.example"),
        *private,
    )


def test_tokens_from_around_and_bad_ones(command, model, store, sigstore, tmp_path):
    config = tmp_path / "trust.json"
    config.write_bytes(sigstore.trust_config())
    token = sigstore.token()
    command.env["SIGSTORE_ID_TOKEN"] = token
    done = command.run("push", model, f"{store}:v1", "--sign", "--trust-config", config, "--debug")
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    expired = sigstore.token(expires=-60)
    command.env["SIGSTORE_ID_TOKEN"] = expired
    sign = ("sign", f"{store}:v1", "--resolve", "--trust-config", config)
    message = command.refuses(4, *sign)
    assert expired not in message
    command.env["SIGSTORE_ID_TOKEN"] = " "
    command.refuses(4, *sign)


# containerd's verifier


def test_a_verifier_without_a_policy_refuses(command, signed, store):
    digest = command.json("verify", f"{store}:v1", "--key", signed)["digest"]
    call = ("-name", f"{store}:v1", "-digest", digest,
            "-stdin-media-type", "application/vnd.oci.descriptor.v1+json")  # fmt: skip
    done = command.run("containerd-verifier", *call, stdin="")
    assert done.returncode == 3
    assert "no policy is in force" in done.stdout
    file = command.policy(f"rules: [{{match: 'oci:**', signers: [{{key: {signed.name}}}]}}]")
    command.env["MODELPACK_POLICY"] = str(file)
    done = command.run("containerd-verifier", *call, stdin="")
    assert done.returncode == 0, done.stdout
    assert "accepted by" in done.stdout
    done = command.run("containerd-verifier", *call[:3], "sha256:" + "0" * 64, stdin="")
    assert done.returncode != 0
    done = command.run("containerd-verifier", "-name", f"{store}:v1", stdin="")
    assert (done.returncode, "-digest" in done.stdout) == (2, True)


def test_the_verifier_gives_up_in_time(command, signed):
    """containerd would end it without a word."""
    file = command.policy(f"rules: [{{match: '**', signers: [{{key: {signed.name}}}]}}]")
    digest = "sha256:" + "1" * 64
    with FaultRegistry() as registry:
        registry.stop()
        done = command.run(
            *("containerd-verifier", "--policy", file, "-name", f"{registry.host}/team/x:v1"),
            *("-digest", digest),
            stdin="",
            timeout=15,
        )
    assert done.returncode == 7
    assert registry.host in done.stdout
