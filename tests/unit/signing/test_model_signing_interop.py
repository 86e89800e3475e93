"""Against ``model_signing``, the reference implementation of OpenSSF Model Signing.

Its command line hashes with SHA-256 whatever the signature says (1.1.1), so BLAKE3 signatures are
put to its library, which reads the algorithm from the signature.
"""

import hashlib
import subprocess

import pytest
from blake3 import blake3

from modelpack.errors import IntegrityError, PolicyError
from modelpack.signing import oms
from modelpack.signing.keys import PrivateKey
from modelpack.signing.oms import FileDigest
from tests.support.programs import find_program

pytestmark = pytest.mark.real("model_signing")

CONTENTS = {
    "config.json": b"{}",
    ".gitattributes": b"*.safetensors filter=lfs",
    "a-b/x.bin": b"1",
    "a/x.bin": b"2",
    "a.txt": b"3",
    "tokenizer.model": bytes(5000),
    "empty": b"",
}
HASHERS = {"blake3": blake3, "sha256": hashlib.sha256}
CASES = [
    ("ecdsa-p256", "sha256"),
    ("ecdsa-p256", "blake3"),
    ("ecdsa-p384", "sha256"),
    ("ecdsa-p521", "blake3"),
]


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "llama"
    for name, data in CONTENTS.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def digests(directory, algorithm):
    return [
        FileDigest(
            name=path.relative_to(directory).as_posix(),
            algorithm=algorithm,
            digest=HASHERS[algorithm](path.read_bytes()).digest(),
        )
        for path in directory.rglob("*")
        if path.is_file()
    ]


VERIFY = """
import sys, model_signing
model, signature, public = sys.argv[1:]
try:
    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public)
    config.verify(model, signature)
except ValueError as error:
    sys.exit(f"Verification failed with error: {error}")
"""
SIGN = """
import sys, model_signing
model, signature, private, algorithm = sys.argv[1:]
hashing = model_signing.hashing.Config().use_file_serialization(hashing_algorithm=algorithm)
hashing.set_ignored_paths(paths=["model.sig"])
signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=private)
signer.set_hashing_config(hashing).sign(model, signature)
"""


def run(*args):
    return subprocess.run(list(map(str, args)), capture_output=True, text=True, timeout=120)


def library(script, *args):
    # The program's own interpreter has the library.
    python = find_program("model_signing").resolve().with_name("python")
    return run(python, "-c", script, *args)


def verifies(directory, public, algorithm):
    signature = directory / "model.sig"
    if algorithm == "sha256":
        program = find_program("model_signing")
        options = ("--signature", signature, "--public_key", public)
        done = run(program, "verify", "key", directory, *options)
    else:
        done = library(VERIFY, directory, signature, public)
    assert done.returncode == 0 or "Verification failed" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize(("kind", "algorithm"), CASES)
def test_it_verifies_ours_and_refuses_what_changed(model, tmp_path, kind, algorithm):
    key = PrivateKey.generate(kind)
    public = tmp_path / "key.pub"
    public.write_bytes(key.public_key.pem)
    raw = oms.sign_files("llama", digests(model, algorithm), key)
    (model / "model.sig").write_bytes(raw)
    assert verifies(model, public, algorithm)
    oms.verify_files(raw, [key.public_key], digests(model, algorithm))

    for change in (
        lambda: (model / "config.json").write_bytes(b"[]"),
        (model / "config.json").unlink,
        lambda: (model / "extra.py").write_bytes(b""),
    ):
        change()
        assert not verifies(model, public, algorithm)
        with pytest.raises(IntegrityError):
            oms.verify_files(raw, [key.public_key], digests(model, algorithm))
        (model / "extra.py").unlink(missing_ok=True)
        (model / "config.json").write_bytes(CONTENTS["config.json"])
    assert verifies(model, public, algorithm)


@pytest.mark.parametrize("algorithm", HASHERS)
def test_it_refuses_another_key(model, tmp_path, algorithm):
    (model / "model.sig").write_bytes(
        oms.sign_files("llama", digests(model, algorithm), PrivateKey.generate())
    )
    public = tmp_path / "other.pub"
    public.write_bytes(PrivateKey.generate().public_key.pem)
    assert not verifies(model, public, algorithm)


@pytest.mark.parametrize(("kind", "algorithm"), CASES)
def test_we_verify_its(model, tmp_path, kind, algorithm):
    key = PrivateKey.generate(kind)
    private = tmp_path / "key.pem"
    private.write_bytes(key.to_pem(None))
    signature = model / "model.sig"
    library(SIGN, model, signature, private, algorithm).check_returncode()
    raw = signature.read_bytes()
    signed = oms.verify_files(raw, [key.public_key], digests(model, algorithm))
    assert signed.model == "llama"
    assert signed.algorithm == algorithm
    with pytest.raises(PolicyError):
        oms.verify_files(raw, [PrivateKey.generate().public_key], digests(model, algorithm))
    (model / "a.txt").write_bytes(b"4")
    with pytest.raises(IntegrityError, match=r"changed: 'a\.txt'"):
        oms.verify_files(raw, [key.public_key], digests(model, algorithm))
