import itertools
import json

import pytest

from modelpack.digest import Digest
from modelpack.errors import FormatError, NetworkError, PolicyError
from modelpack.signing import dsse, oms, simplesigning, statement, verify
from modelpack.signing.bundle import key_bundle
from modelpack.signing.keys import PrivateKey
from modelpack.signing.verify import (
    IdentitySigner,
    KeySigner,
    distinct_signers,
    verify_bundle,
    verify_bundles,
    verify_simple,
)

KEY, SECOND, STRANGER = (PrivateKey.generate() for _ in range(3))
TEAM = KeySigner(name="team.pub", key=KEY.public_key)
OTHER = KeySigner(name="other.pub", key=SECOND.public_key)
ACTION = IdentitySigner(identity="https://example.com/workflow", issuer="https://issuer.example")
DIGEST = Digest.of(b"manifest")


def bundle(payload, key=KEY, hint=None, **options):
    envelope = dsse.sign(payload, key, **options)
    return key_bundle(envelope, key.public_key.cosign_hint if hint is None else hint)


SIGNATURE = bundle(statement.signature_statement(DIGEST))
SBOM = bundle(statement.attestation(DIGEST, statement.CYCLONEDX, {"bomFormat": "CycloneDX"}))


def check(raw, signers=(TEAM,), **options):
    return verify_bundle(raw, subject=DIGEST, signers=list(signers), source="sha256:x", **options)


def test_a_signature():
    verdict = check(SIGNATURE, [OTHER, TEAM])
    assert verdict.ok
    assert verdict.kind == "signature"
    assert verdict.signer == TEAM
    assert verdict.to_json() == {
        "ok": True,
        "kind": "signature",
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "signer": f"key:sha256:{KEY.public_key.fingerprint}",
        "signerName": "team.pub",
        "detail": "signature by team.pub",
        "source": "sha256:x",
    }


def test_an_attestation_is_no_signature():
    verdict = check(SBOM)
    assert verdict.ok
    assert verdict.kind == "attestation"
    assert verdict.predicate_type == "https://cyclonedx.org/bom"
    assert verdict.predicate == {"bomFormat": "CycloneDX"}


@pytest.mark.parametrize(
    "predicate_type",
    [
        "https://example.com/unknown",
        "https://sigstore.dev/cosign/sign/v2",
        "https://sigstore.dev/cosign/sign/v1 ",
        "HTTPS://sigstore.dev/cosign/sign/v1",
        "",
    ],
)
def test_no_other_predicate_type_is_a_signature(predicate_type):
    verdict = check(bundle(statement.attestation(DIGEST, predicate_type, {})))
    assert verdict.ok
    assert verdict.kind == "attestation"


OTHER_DIGEST = Digest.of(b"another manifest")
ALGORITHM = json.dumps(
    {
        "_type": statement.STATEMENT_V1,
        "subject": [{"digest": {"sha512": DIGEST.hex}}],
        "predicateType": statement.COSIGN_SIGN,
    }
).encode()
FILES = oms.sign_files("m", [oms.FileDigest(name="a", algorithm="sha256", digest=bytes(32))], KEY)

REFUSED = {
    "another-key": (bundle(statement.signature_statement(DIGEST), STRANGER), "not by team.pub"),
    "another-manifest": (
        bundle(statement.signature_statement(OTHER_DIGEST)),
        "about another manifest",
    ),
    "subject-under-another-algorithm": (bundle(ALGORITHM), "about another manifest"),
    "files-signature": (FILES, "about another manifest"),
    "not-a-statement": (bundle(b"{}", payload_type="text/plain"), "is not a statement"),
    "malformed-statement": (bundle(b"{}"), "has no _type"),
    "hint-of-another-key": (
        bundle(statement.signature_statement(DIGEST), hint=STRANGER.public_key.cosign_hint),
        "signed by the key",
    ),
    "malformed-bundle": (b"{}", "not a sigstore bundle"),
    "empty": (b"", "not valid JSON"),
}


@pytest.mark.parametrize(("raw", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(raw, said):
    verdict = check(raw)
    assert not verdict.ok
    assert verdict.kind == "unknown"
    assert said in verdict.detail
    assert verdict.predicate is None


def test_without_a_hint_the_key_alone_decides():
    assert check(bundle(statement.signature_statement(DIGEST), hint="")).ok


def test_nothing_inside_an_unverified_envelope_is_parsed(monkeypatch):
    monkeypatch.setattr(statement.Statement, "parse", pytest.fail)
    assert not check(bundle(b"anything", STRANGER)).ok


def test_several_bundles_keep_their_order_and_source():
    found = [("sha256:1", SBOM), ("sha256:2", b"{}"), ("sha256:3", SIGNATURE)]
    verdicts = verify_bundles(found, subject=DIGEST, signers=[TEAM])
    assert [(verdict.source, verdict.ok) for verdict in verdicts] == [
        ("sha256:1", True),
        ("sha256:2", False),
        ("sha256:3", True),
    ]


def test_a_flood_is_refused_before_any_of_it_is_verified(monkeypatch):
    monkeypatch.setattr(verify, "verify_bundle", pytest.fail)
    many = [("sha256:0", SIGNATURE)] * (verify.MAX_BUNDLES + 1)
    large = [("sha256:0", bytes(verify.MAX_BUNDLES_BYTES // 8))] * 9
    for found in (many, large):
        with pytest.raises(PolicyError, match="more than are verified"):
            verify_bundles(found, subject=DIGEST, signers=[TEAM])


@pytest.mark.parametrize("bit", [0x01, 0x20], ids=["bit", "case"])
def test_no_byte_of_a_bundle_can_be_changed(bit):
    raw = bundle(statement.signature_statement(DIGEST))
    assert check(raw).ok
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= bit
        assert not check(bytes(changed)).ok, (
            position,
            bytes(changed[position - 10 : position + 10]),
        )


def test_no_signers_accept_nothing():
    assert "anyone who is accepted" in check(SIGNATURE, []).detail


def with_certificate(raw):
    value = json.loads(raw)
    value["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}}
    return json.dumps(value).encode()


class Certificates:
    """Answers as a certificate verifier would."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def verify(self, raw, signers):
        self.asked.append(signers)
        if isinstance(self.answer, Exception):
            raise self.answer
        return signers[0], *self.answer


def test_a_certificate_goes_to_its_verifier_with_the_identities_only():
    certificates = Certificates((dsse.IN_TOTO, statement.signature_statement(DIGEST)))
    verdict = check(with_certificate(SIGNATURE), [TEAM, ACTION], certificates=certificates)
    assert verdict.ok
    assert verdict.kind == "signature"
    assert verdict.signer == ACTION
    assert certificates.asked == [[ACTION]]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((dsse.IN_TOTO, statement.signature_statement(OTHER_DIGEST)), "another manifest"),
        (("text/plain", b""), "is not a statement"),
        (PolicyError("the log has no such entry"), "the log has no such entry"),
        (FormatError("no certificate"), "no certificate"),
    ],
    ids=["another-manifest", "another-type", "refused", "malformed"],
)
def test_what_a_certificate_signed_is_judged_all_the_same(answer, said):
    verdict = check(with_certificate(SIGNATURE), [ACTION], certificates=Certificates(answer))
    assert not verdict.ok
    assert said in verdict.detail


def test_a_certificate_where_only_keys_count():
    for signers, certificates in (((TEAM,), Certificates(None)), ((ACTION,), None)):
        verdict = check(with_certificate(SIGNATURE), signers, certificates=certificates)
        assert verdict.detail == "signed with a certificate, but only keys are accepted"


def test_a_failing_network_is_no_verdict():
    with pytest.raises(NetworkError):
        check(
            with_certificate(SIGNATURE),
            [ACTION],
            certificates=Certificates(NetworkError("unreachable")),
        )


NAME = "registry.example/team/llama"


def simple(signature, signers=(TEAM,), repository=NAME, subject=DIGEST):
    return verify_simple(signature, subject=subject, repository=repository, signers=list(signers))


def test_the_older_signature():
    signed = simplesigning.sign(NAME, DIGEST, KEY)
    verdict = simple(signed, [ACTION, OTHER, TEAM])
    assert verdict.ok
    assert verdict.kind == "signature"
    assert verdict.signer == TEAM


@pytest.mark.parametrize(
    ("signed", "said"),
    [
        (simplesigning.sign(NAME, DIGEST, STRANGER), "by another key"),
        (simplesigning.sign(NAME, OTHER_DIGEST, KEY), "another manifest"),
        (simplesigning.sign("registry.example/elsewhere", DIGEST, KEY), "elsewhere"),
        (
            simplesigning.SimpleSignature(payload=b"{}", signature=KEY.sign(b"{}")),
            "has no critical",
        ),
        (
            simplesigning.SimpleSignature(
                payload=statement.signature_statement(DIGEST),
                signature=KEY.sign(statement.signature_statement(DIGEST)),
            ),
            "signed payload has no critical",
        ),
    ],
    ids=["another-key", "another-manifest", "another-repository", "malformed", "a-statement"],
)
def test_older_signatures_that_are_refused(signed, said):
    verdict = simple(signed)
    assert not verdict.ok
    assert said in verdict.detail


def count(verdicts, signers):
    return distinct_signers(
        verdicts, signers=signers, accepts=lambda verdict: verdict.kind == "signature"
    )


def test_each_signer_counts_once():
    mine, again = check(SIGNATURE), check(bundle(statement.signature_statement(DIGEST)))
    theirs = check(bundle(statement.signature_statement(DIGEST), SECOND), [OTHER])
    alias = KeySigner(name="same-key.pub", key=KEY.public_key)
    assert count([mine, again], [TEAM, OTHER]) == (TEAM,)
    assert count([mine, again], [TEAM, alias]) == (alias,)
    assert count([theirs, mine], [TEAM, OTHER]) == (TEAM, OTHER)
    assert count([theirs], [TEAM]) == ()
    assert count([check(SBOM)], [TEAM]) == ()
    assert count([check(b"")], [TEAM]) == ()


def test_no_key_takes_a_signature_of_another_kind():
    """Whatever hint it comes with, and whichever scheme a key would try."""
    made = {kind: PrivateKey.generate(kind) for kind in ("ecdsa-p256", "ecdsa-p384", "ed25519")}
    made["rsa-3072"] = PrivateKey.generate("rsa-3072")
    for ours, victim in itertools.permutations(made.values(), 2):
        signer = KeySigner(name="victim", key=victim.public_key)
        for hint in (victim.public_key.cosign_hint, victim.public_key.oms_hint, ""):
            raw = bundle(statement.signature_statement(DIGEST), ours, hint=hint)
            assert not check(raw, [signer]).ok
        assert not simple(simplesigning.sign(NAME, DIGEST, ours), [signer]).ok


def test_no_signature_of_one_form_is_one_of_another():
    said = statement.signature_statement(DIGEST)
    older = simplesigning.sign(NAME, DIGEST, KEY)
    # The envelope's signature is over its encoding, which is no payload of the older form.
    encoded = dsse.pae(dsse.IN_TOTO, said)
    taken = simplesigning.SimpleSignature(payload=encoded, signature=KEY.sign(encoded))
    assert "not valid JSON" in simple(taken).detail
    # And the older form's payload, put into an envelope with its signature, is not what was signed.
    envelope = dsse.Envelope(
        payload_type=dsse.IN_TOTO,
        payload=older.payload,
        signatures=(dsse.EnvelopeSignature(value=older.signature),),
    )
    raw = key_bundle(envelope, KEY.public_key.cosign_hint)
    assert "not by team.pub" in check(raw).detail
