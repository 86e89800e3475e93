import datetime as dt
import json
import os

import pytest

from modelpack.digest import Digest
from modelpack.errors import (
    AuthError,
    FormatError,
    ModelpackError,
    NetworkError,
    PolicyError,
    UsageError,
)
from modelpack.signing import keyless, statement
from modelpack.signing.keyless import SigstoreSigner, SigstoreVerifier, find_token
from modelpack.signing.keys import PrivateKey
from modelpack.signing.verify import IdentitySigner, KeySigner
from tests.unit.signing.keyless_support import (
    DIGEST,
    ENTRY,
    STATEMENT,
    changed,
    check,
    flipped,
    sign,
    sign_unchecked,
    signer_of,
)
from tests.unit.signing.sigstore_services import IDENTITY, Deployment, new_key


@pytest.fixture
def sigstore():
    with Deployment() as deployment:
        yield deployment


@pytest.fixture(scope="module")
def shared():
    with Deployment() as deployment:
        yield deployment


@pytest.fixture(scope="module")
def signed(shared):
    # Not the first entry, so that the inclusion proof has hashes in it.
    return [sign(shared) for _ in range(3)][-1]


def test_what_is_signed_verifies(shared, signed):
    verdict = check(shared, signed)
    assert verdict.ok, verdict.detail
    assert verdict.kind == "signature"
    assert verdict.signer == signer_of(shared)


def test_one_of_several_signers(shared, signed):
    other = IdentitySigner(identity="https://ci.example/other", issuer=shared.url)
    team = KeySigner(name="team", key=PrivateKey.generate().public_key)
    verdict = check(shared, signed, [team, other, signer_of(shared)])
    assert verdict.signer == signer_of(shared)


def test_a_trusted_root_alone_verifies(shared, signed):
    root = json.dumps(json.loads(shared.trust_config())["trustedRoot"]).encode()
    payload = SigstoreVerifier(root).verify(signed, [signer_of(shared)])
    assert payload == (signer_of(shared), "application/vnd.in-toto+json", STATEMENT)


def test_an_attestation(shared):
    raw = sign(shared, statement.attestation(DIGEST, statement.CYCLONEDX, {"a": 1}, name="m"))
    verdict = check(shared, raw)
    assert (verdict.kind, verdict.predicate) == ("attestation", {"a": 1})


def test_a_statement_about_another_manifest(shared):
    raw = sign(shared, statement.signature_statement(Digest.of(b"other"), name=""))
    assert check(shared, raw).detail == "signed, but about another manifest"


@pytest.mark.parametrize(
    ("identity", "issuer"),
    [
        ("https://ci.example/other", None),
        (IDENTITY + "/", None),
        (IDENTITY.upper(), None),
        (IDENTITY[:-1], None),
        (IDENTITY, "https://issuer.example"),
    ],
    ids=["other", "suffix", "case", "prefix", "issuer"],
)
def test_another_identity_is_refused_and_the_signer_named(shared, signed, identity, issuer):
    wanted = IdentitySigner(identity=identity, issuer=issuer or shared.url)
    verdict = check(shared, signed, [wanted])
    assert not verdict.ok
    assert f"signed by {IDENTITY} (issuer {shared.url})" in verdict.detail
    assert identity in verdict.detail


def test_a_certificate_where_only_keys_count(shared, signed):
    team = KeySigner(name="team", key=PrivateKey.generate().public_key)
    assert "only keys are accepted" in check(shared, signed, [team]).detail


TAMPERED = {
    "payload": (("dsseEnvelope", "payload"), flipped),
    "signature": (("dsseEnvelope", "signatures", 0, "sig"), flipped),
    "certificate": (("verificationMaterial", "certificate", "rawBytes"), flipped),
    "log-body": ((*ENTRY, "canonicalizedBody"), flipped),
    "log-promise": ((*ENTRY, "inclusionPromise", "signedEntryTimestamp"), flipped),
    "log-time": ((*ENTRY, "integratedTime"), lambda time: str(int(time) + 1)),
    "proof-hash": ((*ENTRY, "inclusionProof", "hashes", 0), flipped),
    "proof-root": ((*ENTRY, "inclusionProof", "rootHash"), flipped),
    "proof-index": ((*ENTRY, "inclusionProof", "logIndex"), lambda _: "0"),
    "checkpoint": (
        (*ENTRY, "inclusionProof", "checkpoint", "envelope"),
        lambda note: note.replace("log.example\n", "log.exampl3\n", 1),
    ),
    "no-log-entry": (("verificationMaterial", "tlogEntries"), lambda _: []),
    "two-log-entries": (("verificationMaterial", "tlogEntries"), lambda entries: entries * 2),
    "no-proof": (ENTRY, lambda entry: {**entry, "inclusionProof": None}),
    "no-promise": (ENTRY, lambda entry: {**entry, "inclusionPromise": None}),
    "junk-certificate": (("verificationMaterial", "certificate", "rawBytes"), lambda _: "AAAA"),
    "junk-log-entry": (ENTRY, lambda _: {"x": 1}),
}


@pytest.mark.parametrize(("path", "change"), TAMPERED.values(), ids=TAMPERED)
def test_tampered_bundles_are_refused(shared, signed, path, change):
    verdict = check(shared, changed(signed, path, change))
    assert not verdict.ok
    assert verdict.kind == "unknown"
    assert "\n" not in verdict.detail


def test_12_a_log_entry_of_another_signature_is_refused(shared, signed):
    """CVE-2026-22703: the entry is genuine, and of something else."""
    another = json.loads(sign(shared, statement.attestation(DIGEST, "https://x", {}, name="")))
    entries = another["verificationMaterial"]["tlogEntries"]
    raw = changed(signed, ("verificationMaterial", "tlogEntries"), lambda _: entries)
    assert "log entry" in check(shared, raw).detail


@pytest.mark.parametrize("member", ["tlogs", "ctlogs", "certificateAuthorities"])
def test_another_root_of_trust_is_refused(shared, sigstore, signed, member):
    foreign = json.loads(sigstore.trust_config())["trustedRoot"][member]
    assert not check(shared, signed, **{member: foreign}).ok


def test_a_signature_made_outside_its_certificates_life_is_refused(sigstore):
    real = sigstore.clock
    sigstore.clock = lambda: real() + dt.timedelta(hours=1)
    future = sign(sigstore)
    integrate = sigstore.integrate

    def late(entry):
        sigstore.clock = lambda: real() + dt.timedelta(hours=2)
        return integrate(entry)

    assert check(sigstore, future).ok
    sigstore.clock, sigstore.integrate = real, late
    assert not check(sigstore, sign_unchecked(sigstore)).ok


def test_a_log_that_logs_something_else_is_refused_by_signer_and_verifier(sigstore):
    def other(entry):
        entry["spec"]["payloadHash"]["value"] = "0" * 64
        return entry

    sigstore.entry_for = other
    assert "does not match" in check(sigstore, sign_unchecked(sigstore)).detail
    with pytest.raises(PolicyError, match="does not match"):
        sign(sigstore)


def test_tokens_that_are_refused(sigstore):
    for token in (
        sigstore.token(expires=-60),
        sigstore.token(audience="other"),
        sigstore.token(key=new_key()),
        "not.a.token",
    ):
        with pytest.raises(AuthError) as caught:
            sign(sigstore, token=token)
        assert token not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/api/v2/signingCert", 400, AuthError),
        ("/api/v2/signingCert", 500, NetworkError),
        ("/api/v1/log/entries", 400, AuthError),
        ("/api/v1/log/entries", 503, NetworkError),
    ],
)
def test_services_that_fail(sigstore, path, status, expected):
    sigstore.fail[path] = status
    with pytest.raises(expected) as caught:
        sign(sigstore)
    assert "\n" not in str(caught.value)


def test_services_that_are_gone():
    with Deployment() as gone:
        token, trust = gone.token(), gone.trust_config()
    with pytest.raises(NetworkError, match="cannot be reached"):
        SigstoreSigner(token, trust_config=trust).sign(STATEMENT)


def without(config, *path):
    value = json.loads(config)
    target = value
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = []
    return json.dumps(value).encode()


def test_trust_configurations_that_cannot_be_used(shared, signed):
    good = shared.trust_config()
    for config in (
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}',
        good.replace(b"trustedroot+json;version=0.1", b"trustedroot+json;version=9"),
        without(good, "trustedRoot", "certificateAuthorities"),
        without(good, "trustedRoot", "tlogs"),
        b" " * (keyless.MAX_TRUST_CONFIG_BYTES + 1),
    ):
        with pytest.raises(UsageError, match="trust config"):
            SigstoreVerifier(config).verify(signed, [signer_of(shared)])
    for config in (b"{}", without(good, "signingConfig", "caUrls")):
        with pytest.raises(UsageError, match="trust config"):
            SigstoreSigner(shared.token(), trust_config=config).sign(STATEMENT)


def test_a_bundle_that_is_none(shared):
    for raw in (b"", b"{}", b"\xff"):
        with pytest.raises(FormatError):
            SigstoreVerifier(shared.trust_config()).verify(raw, [signer_of(shared)])


def test_a_statement_without_a_name_is_not_signed(shared):
    with pytest.raises(ModelpackError):
        sign(shared, statement.signature_statement(DIGEST))


def test_where_a_token_comes_from():
    files = {keyless.TOKEN_FILE: "from-file\n"}

    def nowhere():
        return None

    assert find_token({"SIGSTORE_ID_TOKEN": " from-env "}, files.get, nowhere) == "from-env"
    assert find_token({}, files.get, nowhere) == "from-file"
    assert find_token({}, {}.get, lambda: "from-ci") == "from-ci"
    assert find_token({}, {}.get, nowhere) is None
    assert keyless.TOKEN_FILE == "/var/run/sigstore/cosign/oidc-token"


@pytest.mark.parametrize("token", ["", "  \n", "x" * 70_000], ids=["empty", "blank", "huge"])
def test_a_token_that_is_none(token):
    with pytest.raises(AuthError, match="does not hold"):
        find_token({"SIGSTORE_ID_TOKEN": token}, {}.get)


def test_a_ci_system_that_gives_no_token(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("GITHUB_", "CI", "BUILDKITE"))]:
        monkeypatch.delenv(name)
    assert keyless.detect_ci_token() is None
    # GitHub without "id-token: write".
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with pytest.raises(AuthError, match="identity token"):
        keyless.detect_ci_token()
