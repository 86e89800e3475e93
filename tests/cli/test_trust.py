"""Signing, verifying and policies as their user meets them: commands, statuses, output."""

import json
import os
import pty
import subprocess
import sys
import threading

import pytest

from tests.support.command import PROGRAM
from tests.support.models import one_shard, write_files
from tests.support.trust import PASSWORD, TrustCommand


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


@pytest.fixture(scope="module")
def pushed_once(tmp_path_factory):
    """A command and the names of what one push left, for tests that change nothing."""
    directory = tmp_path_factory.mktemp("once")
    command = TrustCommand(directory)
    private, public = command.key_pair("team")
    model = write_files(directory / "model", {"config.json": b"{}"})
    store = f"oci:{directory / 'store'}"
    digest = command.json("push", model, f"{store}:v1")["digest"]
    return command, {"store": store, "digest": digest, "private": private, "public": public,
                     "model": model}  # fmt: skip


# What is imported


def modules_of(command, *arguments):
    code = (
        "import sys\nfrom modelpack.cli._run import run\n"
        f"status = run({[*map(str, arguments)]!r})\nprint('MODULES', *sys.modules)\n"
        "assert status == 0, status"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=command.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("MODULES"))
    return {name.partition(".")[0] for name in line.split()[1:]}


def test_without_trust_options_nothing_heavy_is_imported(command, model, store, tmp_path):
    heavy = {"sigstore", "cryptography", "nacl", "tuf"}
    assert modules_of(command, "--help") & heavy == set()
    private, _ = command.key_pair("team")
    command.json("push", model, f"{store}:v1", "--sign", "--key", private)
    pulled = modules_of(command, "pull", f"{store}:v1", tmp_path / "out", "--quiet")
    assert pulled & heavy == set()
    assert (tmp_path / "out/model.sig").exists()
    assert modules_of(command, "verify", tmp_path / "out", "--quiet") & heavy == set()


def test_keys_bring_no_sigstore(command, signed, store, tmp_path):
    pulled = modules_of(command, "pull", f"{store}:v1", tmp_path / "o", "--key", signed, "--quiet")
    assert "cryptography" in pulled
    assert "sigstore" not in pulled


# keygen


def test_keygen_never_overwrites(command, tmp_path):
    private, public = command.key_pair("team")
    before = private.read_bytes(), public.read_bytes()
    assert private.stat().st_mode & 0o777 == 0o600
    assert "not overwritten" in command.refuses(2, "keygen", "--output", tmp_path / "team")
    private.unlink()
    assert "team.pub exists" in command.refuses(2, "keygen", "--output", tmp_path / "team")
    assert public.read_bytes() == before[1]
    assert "--type" in command.refuses(2, "keygen", "--type", "dsa", "--output", tmp_path / "x")


def test_passwords_from_either_variable_and_no_other_place(command, model, store, tmp_path):
    private, public = command.key_pair("team")
    command.json("push", model, f"{store}:v1")
    sign = ("sign", f"{store}:v1", "--resolve", "--key", private)
    command.env["MODELPACK_KEY_PASSWORD"] = "wrong password"
    message = command.refuses(2, *sign)
    assert "does not open" in message
    assert "wrong password" not in message
    del command.env["MODELPACK_KEY_PASSWORD"]
    assert "password" in command.refuses(2, *sign)
    command.env["COSIGN_PASSWORD"] = PASSWORD
    done = command.run(*sign, "--debug")
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert command.json("verify", f"{store}:v1", "--key", public)["ok"]
    del command.env["COSIGN_PASSWORD"]
    assert "MODELPACK_KEY_PASSWORD" in command.refuses(2, "keygen", "--output", tmp_path / "new")


def test_a_password_at_the_prompt(command, tmp_path):
    del command.env["MODELPACK_KEY_PASSWORD"]
    leader, follower = pty.openpty()
    # Prompts go to the controlling terminal, which must be this one, not that of the test run.
    process = subprocess.Popen(
        ["setsid", "--ctty", PROGRAM, "keygen", "--output", tmp_path / "asked"],
        env=command.env, stdin=follower, stdout=subprocess.PIPE, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    shown = b""

    def converse():
        nonlocal shown
        for _ in range(2):
            # The space comes once the echo is off; what is typed before that is thrown away.
            while not shown.endswith(b": "):
                shown += os.read(leader, 1024)
            os.write(leader, b"typed secret\n")
            shown += b" answered"

    thread = threading.Thread(target=converse, daemon=True)
    thread.start()
    try:
        assert process.wait(60) == 0, shown
    finally:
        process.kill()
        process.wait()
        thread.join(10)
        process.stdout.close()
        os.close(leader)
    assert b"typed secret" not in shown
    assert (tmp_path / "asked.key").exists()


def test_a_key_from_a_variable(command, model, store):
    private, public = command.key_pair("team")
    command.env["TEAM_KEY"] = private.read_text()
    command.env["TEAM_PUB"] = public.read_text()
    command.json("push", model, f"{store}:v1", "--sign", "--key", "env://TEAM_KEY")
    assert command.json("verify", f"{store}:v1", "--key", "env://TEAM_PUB")["ok"]
    assert "NOT_THERE" in command.refuses(3, "push", model, f"{store}:v2", "--sign", "--key",
                                          "env://NOT_THERE")  # fmt: skip


# sign


def test_a_tag_is_not_signed_unless_told_to(command, model, store):
    private, _ = command.key_pair("team")
    pushed = command.json("push", model, f"{store}:v1")
    assert "names no digest" in command.refuses(2, "sign", f"{store}:v1", "--key", private)
    resolved = command.json("sign", f"{store}:v1", "--resolve", "--key", private)
    assert resolved["digest"] == pushed["digest"]
    done = command.run("sign", f"{store}:v1", "--resolve", "--key", private)
    assert pushed["digest"] in done.stdout


def test_a_key_that_does_not_open_fails_before_the_upload(command, model, store, tmp_path):
    private, _ = command.key_pair("team")
    command.env["MODELPACK_KEY_PASSWORD"] = "wrong"
    command.refuses(2, "push", model, f"{store}:v1", "--sign", "--key", private)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["sign", "{store}@{digest}", "--key", "nowhere.key"], 3, "nowhere.key"),
        (["sign", "{store}@{digest}", "--key", "{public}"], 5, "team.pub"),
        (["sign", "{store}@{digest}"], 4, "--key"),
        (["sign", "{store}@{digest}", "--key", "{private}", "--attest", "vex"], 2, "vex"),
        (["sign", "{store}@{digest}", "--key", "{private}", "--oms-hash", "md5"], 2, "md5"),
        (["sign", "{store}@{digest}", "--key", "{private}", "--oms-hash", "sha256"], 2, "files"),
        (["sign", "{store}@{digest}", "--key", "{private}", "--legacy-sig"], 2, "layout"),
        (["sign", "{store}@sha256:" + "0" * 64, "--key", "{private}"], 3, "does not exist"),
        (["attest", "{store}:v1", "--type", "sbom", "--predicate", "p", "--key", "{private}"], 2,
         "digest"),
        (["attest", "{store}@{digest}", "--type", "odd", "--predicate", "p", "--key", "k"], 2,
         "odd"),
        (["attest", "{store}@{digest}", "--type", "https://sigstore.dev/cosign/sign/v1",
          "--predicate", "p", "--key", "k"], 2, "signature"),
        (["push", "{model}", "{store}:v2", "--key", "{private}"], 2, "--sign"),
        (["verify", "{store}:v1", "--identity", "me"], 2, "--issuer"),
        (["verify", "{store}:v1", "--threshold", "2"], 2, "--key"),
        (["verify", "{store}:v1", "--key", "{public}", "--threshold", "2"], 2, "1 different"),
        (["verify", "{store}:v1", "--key", "{public}", "--policy", "p"], 2, "--policy"),
        (["verify", "{store}:v1", "--key", "{private}"], 2, "private key"),
        (["verify", "{store}:v1", "--policy", "nowhere.yaml"], 3, "nowhere.yaml"),
        (["verify", "{model}", "--policy", "p"], 2, "directory"),
        (["verify", "{model}", "--key", "{public}"], 3, "model.sig"),
        (["verify", "{model}", "--key", "{public}", "--require-attestation", "sbom"], 2,
         "references"),
        (["pull", "{store}:v1", "out", "--dry-run"], 2, "no policy"),
        (["policy", "check"], 3, "no policy"),
        (["policy", "check", "{public}"], 2, "team.pub"),
    ],
)  # fmt: skip
def test_mistakes(pushed_once, arguments, status, words):
    command, names = pushed_once
    done = command.run(*(argument.format(**names) for argument in arguments))
    assert done.returncode == status, done.stderr
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# verify and pull


def test_the_contract_of_verify(command, signed, store):
    command.key_pair("other")
    found = command.json("verify", f"{store}:v1", "--key", signed)
    assert {"ok", "reference", "digest", "rules", "signatures", "attestations"} <= found.keys()
    assert found["ok"] is True
    assert found["reference"] == f"{store}:v1"
    assert all(rule.keys() == {"rule", "ok", "detail"} for rule in found["rules"])
    assert [one["signerName"] for one in found["signatures"]] == [str(signed)]
    done = command.run("verify", f"{store}:v1", "--key", signed.with_name("other.pub"), "--json")
    assert done.returncode == 6
    refused = json.loads(done.stdout)
    assert refused["ok"] is False
    assert [rule["rule"] for rule in refused["rules"] if not rule["ok"]] == ["signers"]
    plain = command.json("verify", f"{store}:v1")
    assert (plain["ok"], plain["rules"], plain["signatures"]) == (True, [], [])


def test_a_dry_run_pulls_nothing(command, signed, store, tmp_path):
    command.key_pair("other")
    found = command.json("pull", f"{store}:v1", tmp_path / "out", "--dry-run", "--key", signed)
    assert found["ok"]
    done = command.run("pull", f"{store}:v1", "--dry-run", "--key", tmp_path / "other.pub")
    assert done.returncode == 6
    assert "FAIL  signers: 0 of 1 needed" in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_directory_is_held_against_its_signature(command, signed, store, tmp_path):
    command.key_pair("other")
    out = tmp_path / "out"
    command.json("pull", f"{store}:v1", out)
    found = command.json("verify", out, "--key", signed)
    assert (found["ok"], found["files"], found["missing"]) == (True, 2, [])
    assert "none of the 1 given keys" in command.refuses(
        6, "verify", out, "--key", tmp_path / "other.pub"
    )
    (out / "config.json").write_text("[]")
    (out / "new").write_text("")
    done = command.run("verify", out, "--key", signed)
    assert done.returncode == 5
    assert done.stdout.splitlines() == ["changed: config.json", "extra: new"]
    # The receipt may excuse a file that is not there, and nothing else.
    receipt = out / ".modelpack/receipt.json"
    value = json.loads(receipt.read_text())
    value["selected"] = True
    value["files"].pop("config.json")
    receipt.write_text(json.dumps(value))
    assert "changed: config.json" in command.run("verify", out, "--key", signed).stdout


def test_a_pipe_in_the_place_of_the_signature_does_not_wait(command, signed, store, tmp_path):
    out = tmp_path / "out"
    command.json("pull", f"{store}:v1", out)
    (out / "model.sig").unlink()
    os.mkfifo(out / "model.sig")
    assert "no regular file" in command.refuses(2, "verify", out, "--key", signed)
    (out / "model.sig").unlink()
    command.json("pull", f"{store}:v1", out)
    (out / "config.json").unlink()
    os.mkfifo(out / "config.json")
    assert "changed: config.json" in command.run("verify", out, "--key", signed).stdout


def test_a_part_of_a_model_is_held_against_its_signature(command, signed, store, tmp_path):
    out = tmp_path / "out"
    command.json("pull", f"{store}:v1", out, "--include", "*.json", "--key", signed)
    found = command.json("verify", out, "--key", signed)
    assert (found["ok"], found["unselected"]) == (True, 1)


def test_model_sig_goes_with_its_version(command, signed, model, store, tmp_path):
    private = signed.with_suffix(".key")
    out = tmp_path / "out"
    command.json("pull", f"{store}:v1", out)
    first = (out / "model.sig").read_bytes()
    assert command.json("verify", out)["extra"] == []
    # It is no part of what is pushed from there.
    pushed = command.json("push", out, f"{store}:v2")
    assert pushed["files"] == 2
    assert any("model.sig" in warning for warning in pushed["warnings"])
    (model / "config.json").write_text("[]")
    command.json("push", model, f"{store}:v3")
    command.json("pull", f"{store}:v3", out)
    assert not (out / "model.sig").exists(), "this version is not signed"
    command.json("sign", f"{store}:v3", "--resolve", "--key", private)
    command.json("pull", f"{store}:v3", out)
    assert (out / "model.sig").read_bytes() != first
    assert command.json("verify", out, "--key", signed)["ok"]
    # Somebody else's is left where it is.
    (out / "model.sig").write_text("mine")
    done = command.run("pull", f"{store}:v3", out)
    assert (out / "model.sig").read_text() == "mine"
    assert "not put there by a pull" in done.stderr


def test_where_no_signature_is_asked_for_the_files_is_kept(command, signed, store, tmp_path):
    file = command.policy("rules: [{match: 'oci:**', unsigned: true}]")
    pulled = command.json("pull", f"{store}:v1", tmp_path / "out", "--policy", file)
    assert pulled["signatures"] == []
    assert command.json("verify", tmp_path / "out", "--key", signed)["ok"]
