"""The signature over the files, made from the chunk index, as the reference implementation sees it."""

import subprocess

import pytest

from tests.support.models import one_shard, write_files
from tests.support.programs import find_program
from tests.support.trust import TrustCommand

pytestmark = pytest.mark.real("model_signing")

# Its command line hashes with SHA-256 whatever the signature says (1.1.1); its library does not.
LIBRARY = """
import sys, model_signing
model, signature, public = sys.argv[1:]
try:
    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public)
    config.verify(model, signature)
except ValueError as error:
    sys.exit(f"Verification failed with error: {error}")
"""


@pytest.fixture
def command(tmp_path):
    return TrustCommand(tmp_path)


@pytest.fixture
def model(tmp_path):
    return write_files(
        tmp_path / "model",
        {
            "model.safetensors": one_shard(range(4), size=100_000),
            "config.json": b"{}",
            ".gitattributes": b"*.safetensors filter=lfs",
            "tokenizer/vocab.txt": b"a\nb\n",
            "empty": b"",
        },
    )


def run(*args):
    return subprocess.run([*map(str, args)], capture_output=True, text=True, timeout=120)


def accepts(directory, public, algorithm):
    signature = directory / "model.sig"
    program = find_program("model_signing")
    if algorithm == "sha256":
        options = ("--signature", signature, "--public_key", public)
        done = run(program, "verify", "key", directory, *options)
    else:
        python = program.resolve().with_name("python")
        done = run(python, "-c", LIBRARY, directory, signature, public)
    assert done.returncode == 0 or "Verification failed" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_both_accept_a_pulled_directory_and_refuse_a_changed_one(
    command, model, tmp_path, algorithm
):
    private, public = command.key_pair("team")
    _, other = command.key_pair("other")
    store = f"oci:{tmp_path / 'store'}:v1"
    command.json("push", model, store, "--sign", "--key", private, "--oms-hash", algorithm)
    out = tmp_path / "elsewhere"
    command.json("pull", store, out)

    def both(public_key=public):
        ours = command.run("verify", out, "--key", public_key, "--quiet")
        assert ours.returncode in (0, 5, 6), ours.stderr
        theirs = accepts(out, public_key, algorithm)
        assert theirs == (ours.returncode == 0), ours.stderr
        return theirs

    assert both()
    assert not both(other)
    config = (out / "config.json").read_bytes()
    (out / "config.json").write_bytes(b"[]")
    assert not both()
    (out / "config.json").unlink()
    assert not both()
    (out / "config.json").write_bytes(config)
    (out / "tokenizer" / "extra.py").write_bytes(b"")
    assert not both()
    (out / "tokenizer" / "extra.py").unlink()
    assert both()


def test_signing_a_stored_model_with_sha256_reads_what_was_pushed(command, model, tmp_path):
    private, public = command.key_pair("team")
    store = f"oci:{tmp_path / 'store'}"
    pushed = command.json("push", model, f"{store}:v1", "--prefix", "models")
    target = f"{store}:v1@{pushed['digest']}"
    options = ("--key", private, "--oms-hash", "sha256")
    message = command.refuses(2, "sign", target, *options)
    assert "directory" in message
    (model / "config.json").write_bytes(b"[]")
    directory = ("--directory", model, "--prefix", "models")
    message = command.refuses(5, "sign", target, *options, *directory)
    assert "config.json" in message
    (model / "config.json").write_bytes(b"{}")
    command.json("sign", target, *options, *directory)
    command.json("pull", f"{store}:v1", tmp_path / "out")
    assert accepts(tmp_path / "out", public, "sha256")
