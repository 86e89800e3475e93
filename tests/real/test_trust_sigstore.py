"""Without keys at the real services: Fulcio, Rekor and the timestamp authority, on loopback.

The tests' own services stand in for them elsewhere (``test_keyless*.py``); here these are shown to be
what the real ones are. Tokens and the issuance log are the tests' own.
"""

import json

import pytest

from modelpack.digest import Digest
from modelpack.errors import AuthError
from modelpack.signing import statement
from modelpack.signing.keyless import SigstoreSigner, SigstoreVerifier
from modelpack.signing.verify import IdentitySigner, verify_bundle
from tests.support.models import write_files
from tests.support.sigstore import EMAIL, PROGRAMS, SigstoreServices
from tests.support.trust import TrustCommand, cosign
from tests.unit.signing.keyless_support import ENTRY, changed, flipped
from tests.unit.signing.sigstore_services import Deployment, new_key

pytestmark = pytest.mark.real(*PROGRAMS)

DIGEST = Digest.of(b"manifest")
STAMPS = ("verificationMaterial", "timestampVerificationData", "rfc3161Timestamps")


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with Deployment() as around:
        running = SigstoreServices(around, tmp_path_factory.mktemp("sigstore"))
        try:
            running.start()
            yield running
        finally:
            running.stop()


def sign(services, name="", predicate_type=statement.COSIGN_SIGN):
    said = statement.attestation(DIGEST, predicate_type, {}, name=name)
    return SigstoreSigner(services.token(), trust_config=services.trust_config()).sign(said)


@pytest.fixture(scope="module")
def signed(services):
    return [sign(services) for _ in range(2)][-1]


def check(services, raw, identity=EMAIL):
    return verify_bundle(
        raw,
        subject=DIGEST,
        signers=[IdentitySigner(identity=identity, issuer=services.around.url)],
        certificates=SigstoreVerifier(services.trust_config()),
    )


def test_what_is_signed_verifies(services, signed):
    verdict = check(services, signed)
    assert (verdict.ok, verdict.kind) == (True, "signature"), verdict.detail
    assert EMAIL in check(services, signed, "somebody@ci.example").detail


def test_tokens_that_the_authority_refuses(services):
    config = services.trust_config()
    for changes in ({"expires": -60}, {"audience": "other"}, {"key": new_key()}):
        token = services.token(**changes)
        with pytest.raises(AuthError) as caught:
            SigstoreSigner(token, trust_config=config).sign(statement.signature_statement(DIGEST))
        assert token not in str(caught.value)


TAMPERED = {
    "no-log-entry": (ENTRY[:2], lambda _: []),
    "log-body": ((*ENTRY, "canonicalizedBody"), flipped),
    "proof": ((*ENTRY, "inclusionProof", "rootHash"), flipped),
    "no-timestamp": (STAMPS, lambda _: []),
    "timestamp": ((*STAMPS, 0, "signedTimestamp"), flipped),
    "certificate": (("verificationMaterial", "certificate", "rawBytes"), flipped),
}


@pytest.mark.parametrize(("path", "change"), TAMPERED.values(), ids=TAMPERED)
def test_tampered_bundles_are_refused(services, signed, path, change):
    assert not check(services, changed(signed, path, change)).ok


@pytest.mark.parametrize("part", [ENTRY[:2], STAMPS], ids=["log entry", "timestamp"])
def test_what_belongs_to_another_signature_is_refused(services, signed, part):
    other = json.loads(sign(services, name="other"))
    for name in part:
        other = other[name]
    assert not check(services, changed(signed, part, lambda _: other)).ok


@pytest.mark.real("cosign", "docker-registry")
def test_a_model_that_cosign_verifies_too(services, docker_registry, tmp_path):
    command = TrustCommand(tmp_path)
    config, token = tmp_path / "trust.json", tmp_path / "token"
    config.write_bytes(services.trust_config())
    token.write_text(services.token())
    root = tmp_path / "root.json"
    root.write_text(json.dumps(json.loads(services.trust_config())["trustedRoot"]))
    model = write_files(tmp_path / "model", {"config.json": b"{}"})
    pushed = command.json(
        *("push", model, f"{docker_registry.host}/sigstore/model:v1", "--sign"),
        *("--identity-token", token, "--trust-config", config),
    )
    issuer = services.around.url
    for identity, accepted in ((EMAIL, True), ("somebody@ci.example", False)):
        ours = command.run(
            *("verify", pushed["reference"], "--identity", identity, "--issuer", issuer),
            *("--trust-config", config),
        )
        assert ours.returncode == (0 if accepted else 6), ours.stderr
        theirs = cosign(
            *("verify", "--certificate-identity", identity, "--certificate-oidc-issuer", issuer),
            *("--trusted-root", root, "--new-bundle-format=true", "--allow-http-registry"),
            f"{pushed['reference'].rpartition(':')[0]}@{pushed['digest']}",
            check=False,
        )
        assert (theirs.returncode == 0) is accepted, theirs.stderr
