"""Without keys, and in cosign's default form: certificates, log entries and timestamps, both ways.

cosign and modelpack use the same services, which the tests run on loopback: a certificate authority,
a transparency log of the second generation and a timestamp authority. Neither client is patched.
"""

import hashlib
import json

import pytest

from tests.support.models import write_files
from tests.support.trust import TrustCommand, cosign
from tests.unit.signing.sigstore_services import IDENTITY, Deployment

pytestmark = [pytest.mark.real("cosign", "docker-registry")]

HTTP = "--allow-http-registry"


@pytest.fixture
def command(tmp_path):
    return TrustCommand(tmp_path)


@pytest.fixture
def reference(docker_registry, request):
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return f"{docker_registry.host}/keyless/{name}:v1"


class Sigstore:
    """A deployment as both programs are told of it, in files."""

    def __init__(self, deployment, directory):
        self.deployment = deployment
        self.token = directory / "token"
        self.token.write_text(deployment.token())
        self.trust_config = directory / "trust.json"
        self.trust_config.write_bytes(deployment.trust_config())
        self.root = directory / "root.json"
        self.root.write_text(json.dumps(deployment.trusted_root()))
        signing = directory / "signing.json"
        signing.write_text(json.dumps(deployment.signing_config()))
        self.signing = ("--signing-config", signing, "--trusted-root", self.root, HTTP, "-y")
        self.issued = ("--certificate-oidc-issuer", deployment.url)
        # How modelpack is told whom to accept.
        self.named = (
            *("--identity", IDENTITY, "--issuer", deployment.url),
            *("--trust-config", self.trust_config),
        )

    def cosign_verifies(self, target, *signer, verb=("verify",)):
        new = ("--new-bundle-format=true", "--trusted-root", self.root)
        done = cosign(*verb, *signer, *new, HTTP, target, check=False)
        return done.returncode == 0


@pytest.fixture
def sigstore(tmp_path):
    directory = tmp_path / "sigstore"
    directory.mkdir()
    with Deployment(rekor=2) as deployment:
        yield Sigstore(deployment, directory)


@pytest.fixture
def target(command, reference, tmp_path):
    """A pushed model by its digest."""
    model = write_files(tmp_path / "model", {"config.json": b'{"model_type":"llama"}'})
    pushed = command.json("push", model, reference)
    return f"{reference.rpartition(':')[0]}@{pushed['digest']}"


def test_cosign_verifies_what_an_identity_signed_here(command, target, sigstore):
    command.json(
        *("sign", target, "--identity-token", sigstore.token),
        *("--trust-config", sigstore.trust_config, "--attest", "sbom,provenance"),
    )
    ours = ("--certificate-identity", IDENTITY, *sigstore.issued)
    assert sigstore.cosign_verifies(target, *ours)
    for kind in ("cyclonedx", "slsaprovenance1"):
        attested = ("verify-attestation", "--type", kind)
        assert sigstore.cosign_verifies(target, *ours, verb=attested)
    stranger = ("--certificate-identity", IDENTITY + "x", *sigstore.issued)
    assert not sigstore.cosign_verifies(target, *stranger)
    assert command.json("verify", target, *sigstore.named)["ok"]


def test_we_verify_what_an_identity_signed_with_cosign(command, target, sigstore, tmp_path):
    cosign("sign", "--identity-token", sigstore.token, *sigstore.signing, target)
    found = command.json("verify", target, *sigstore.named)
    assert [one["signerName"] for one in found["signatures"]] == [IDENTITY]
    stranger = ("--identity", IDENTITY + "x", *sigstore.named[2:])
    assert IDENTITY in command.refuses(6, "pull", target, tmp_path / "out", *stranger)
    assert not (tmp_path / "out").exists()


def test_we_verify_a_key_in_cosigns_default_form(command, target, sigstore):
    """With a log entry and a timestamp beside the signature, which a listed key does not need."""
    private, public = command.key_pair("team")
    _, other = command.key_pair("other")
    cosign("sign", "--key", private, *sigstore.signing, target)
    assert sigstore.cosign_verifies(target, "--key", public)
    assert not sigstore.cosign_verifies(target, "--key", other)
    assert command.json("verify", target, "--key", public)["ok"]
    assert "other.pub" in command.refuses(6, "verify", target, "--key", other)
    # The log holds it, and the bundle says so.
    assert len(sigstore.deployment.tree.entries) == 1
