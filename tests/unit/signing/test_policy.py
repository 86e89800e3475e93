from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from modelpack.digest import Digest
from modelpack.errors import PolicyError
from modelpack.reference import parse_reference
from modelpack.signing import dsse, statement
from modelpack.signing.bundle import key_bundle
from modelpack.signing.history import Accepted
from modelpack.signing.keys import PrivateKey
from modelpack.signing.policy import (
    AttestationRule,
    Facts,
    FormatRule,
    Freshness,
    Policy,
    Rule,
    evaluate,
    evaluate_content,
    signers_of,
)
from modelpack.signing.verify import IdentitySigner, KeySigner, verify_bundle
from modelpack.unsafe.finding import Finding

KEYS = {name: PrivateKey.generate() for name in ("ada", "ben", "cy", "stranger")}
ADA, BEN, CY, STRANGER = (KeySigner(name=name, key=key.public_key) for name, key in KEYS.items())
DIGEST = Digest.of(b"manifest")
NOW = datetime(2026, 6, 1, tzinfo=UTC)
NAME = "registry.example/team/llama"
SBOM = statement.CYCLONEDX
RULE = Rule(match="registry.example/team/**", signers=(ADA, BEN, CY))


def said(signer, payload, accepted=(ADA, BEN, CY)):
    key = KEYS[signer.name]
    raw = key_bundle(dsse.sign(payload, key), key.public_key.cosign_hint)
    return verify_bundle(raw, subject=DIGEST, signers=list(accepted))


def consent(signer, **options):
    return said(signer, statement.signature_statement(DIGEST), **options)


def attest(signer, predicate_type=SBOM, **options):
    return said(signer, statement.attestation(DIGEST, predicate_type, {}), **options)


def facts(*signatures, reference=f"{NAME}:v1", **changes):
    return Facts(
        reference=parse_reference(reference),
        digest=DIGEST,
        now=NOW,
        signatures=signatures,
        **changes,
    )


def judge(rule, given):
    return evaluate(Policy(rules=(rule,)), given)


def failed(verdicts):
    return [verdict.rule for verdict in verdicts.rules if not verdict.ok]


def test_one_signature_by_one_of_the_signers():
    verdicts = judge(RULE, facts(consent(BEN)))
    assert verdicts.ok
    assert [verdict.to_json() for verdict in verdicts.rules] == [
        {"rule": "match", "ok": True, "detail": "'registry.example/team/**' is about it"},
        {"rule": "signers", "ok": True, "detail": "1 of 1 needed, by ben"},
    ]
    verdicts.require("x")


def test_no_rule_is_a_refusal():
    verdicts = judge(RULE, facts(consent(ADA), reference="elsewhere.example/llama:v1"))
    assert failed(verdicts) == ["match"]
    with pytest.raises(PolicyError, match=r"x is refused: match: no rule is about elsewhere"):
        verdicts.require("x")
    assert not evaluate(Policy(rules=()), facts()).ok


def test_the_first_match_decides():
    deny = Rule(match=NAME, deny="withdrawn; use llama-2")
    rules = (deny, RULE)
    given = facts(consent(ADA))
    assert str(evaluate(Policy(rules=rules), given)).endswith("withdrawn; use llama-2")
    assert failed(evaluate(Policy(rules=rules), given)) == ["deny"]
    assert evaluate(Policy(rules=rules[::-1]), given).ok


REFUSED = {
    "nothing": ((), "nothing is signed"),
    "stranger": ((consent(STRANGER),), "by the key"),
    "sbom-replayed": ((attest(ADA),), "a https://cyclonedx.org/bom attestation"),
    "unknown-predicate": ((attest(ADA, "https://example.com/x"),), "example.com/x attestation"),
    "another-manifest": (
        (said(ADA, statement.signature_statement(Digest.of(b"other"))),),
        "about another manifest",
    ),
}


@pytest.mark.parametrize(("signatures", "detail"), REFUSED.values(), ids=REFUSED)
def test_no_consent(signatures, detail):
    verdicts = judge(RULE, facts(*signatures))
    assert failed(verdicts) == ["signers"]
    assert detail in str(verdicts)
    assert "0 of 1 needed" in str(verdicts)


@pytest.mark.parametrize(
    ("signatures", "ok"),
    [
        ((consent(ADA),), False),
        ((consent(ADA), consent(ADA)), False),
        ((consent(ADA), attest(BEN)), False),
        ((consent(ADA), consent(STRANGER)), False),
        ((consent(ADA), consent(CY)), True),
        ((consent(ADA), consent(BEN), consent(CY)), True),
    ],
    ids=["one", "one-twice", "an-attestation", "a-stranger", "two", "three"],
)
def test_two_of_three(signatures, ok):
    assert judge(replace(RULE, threshold=2), facts(*signatures)).ok is ok


def test_the_same_key_under_two_names_is_one_signer():
    alias = KeySigner(name="alias", key=ADA.key)
    rule = replace(RULE, signers=(ADA, alias), threshold=2)
    both = [consent(ADA, accepted=(signer,)) for signer in (ADA, alias)]
    assert all(verdict.ok for verdict in both)
    assert not judge(rule, facts(*both)).ok


def test_rotation_accepts_the_old_key_and_the_new():
    rule = replace(RULE, signers=(ADA, BEN))
    assert judge(rule, facts(consent(ADA))).ok
    assert judge(rule, facts(consent(BEN))).ok
    assert not judge(replace(RULE, signers=(BEN,)), facts(consent(ADA))).ok


def test_attestations_by_type_and_signer():
    rule = replace(
        RULE,
        attestations=(
            AttestationRule(predicate_type=SBOM),
            AttestationRule(predicate_type=statement.SLSA_PROVENANCE, signers=(STRANGER,)),
        ),
    )
    everyone = (ADA, BEN, CY, STRANGER)
    assert set(signers_of(rule)) == set(everyone)
    provenance = attest(STRANGER, statement.SLSA_PROVENANCE, accepted=everyone)
    assert judge(rule, facts(consent(ADA), attest(BEN), provenance)).ok
    by_team = attest(ADA, statement.SLSA_PROVENANCE, accepted=everyone)
    assert failed(judge(rule, facts(consent(ADA), attest(BEN), by_team))) == [
        "attestation https://slsa.dev/provenance/v1"
    ]
    by_stranger = attest(STRANGER, accepted=everyone)
    assert failed(judge(rule, facts(consent(ADA), by_stranger, provenance))) == [
        "attestation https://cyclonedx.org/bom"
    ]
    # Whoever only attests does not consent.
    strangers_consent = consent(STRANGER, accepted=everyone)
    assert "signers" in failed(judge(rule, facts(strangers_consent, attest(BEN), provenance)))


def test_an_attestation_threshold():
    wanted = AttestationRule(predicate_type=SBOM, threshold=2)
    rule = replace(RULE, attestations=(wanted,))
    assert not judge(rule, facts(consent(ADA), attest(ADA), attest(ADA))).ok
    assert judge(rule, facts(consent(ADA), attest(ADA), attest(BEN))).ok


def test_unsigned_must_be_asked_for():
    rule = Rule(match="registry.example/team/**", unsigned=True)
    assert judge(rule, facts()).ok
    # Values made in code cannot turn an empty list of signers into permission.
    assert not judge(Rule(match="**"), facts()).ok
    assert not judge(Rule(match="**", threshold=0), facts()).ok


def test_pinning():
    rule = replace(RULE, require_digest=True)
    assert failed(judge(rule, facts(consent(ADA)))) == ["require_digest"]
    assert f"@{DIGEST}" in str(judge(rule, facts(consent(ADA))))
    assert judge(rule, facts(consent(ADA), reference=f"{NAME}@{DIGEST}")).ok
    wrong = facts(consent(ADA), reference=f"{NAME}@{Digest.of(b'other')}")
    assert failed(judge(RULE, wrong)) == ["digest"]


def test_listed_digests():
    assert judge(replace(RULE, digests=(Digest.of(b"x"), DIGEST)), facts(consent(ADA))).ok
    verdicts = judge(replace(RULE, digests=(Digest.of(b"x"),)), facts(consent(ADA)))
    assert failed(verdicts) == ["digests"]


def test_a_signed_model_cannot_stand_in_for_another():
    rule = replace(RULE, annotations={"org.opencontainers.image.title": "llama"})
    good = facts(consent(ADA), annotations={"org.opencontainers.image.title": "llama"})
    assert judge(rule, good).ok
    for annotations in ({}, {"org.opencontainers.image.title": "mistral"}):
        verdicts = judge(rule, facts(consent(ADA), annotations=annotations))
        assert failed(verdicts) == ["annotation org.opencontainers.image.title"]


@pytest.mark.parametrize(
    ("created", "ok"),
    [
        ("2026-05-30T00:00:00Z", True),
        ("2026-01-01T00:00:00Z", False),
        ("2026-06-02T00:00:00Z", False),
        ("2026-06-01T00:05:00Z", True),
        ("soon", False),
        (None, False),
    ],
    ids=["recent", "old", "to-come", "clock-skew", "not-a-time", "unknown"],
)
def test_age(created, ok):
    rule = replace(RULE, freshness=Freshness(max_age=timedelta(days=90)))
    annotations = {"org.opencontainers.image.created": created} if created else {}
    verdicts = judge(rule, facts(consent(ADA), annotations=annotations))
    assert failed(verdicts) == ([] if ok else ["freshness.max_age"])


def test_rollback():
    before = Accepted(digest=Digest.of(b"newer"), version="2.0", created=None)
    annotations = {"org.opencontainers.image.version": "1.0"}
    given = facts(consent(ADA), annotations=annotations, accepted=(before,))
    verdicts = judge(RULE, given)
    assert failed(verdicts) == ["freshness.rollback"]
    assert "version 1.0 is older than 2.0" in str(verdicts)
    assert judge(replace(RULE, freshness=Freshness(rollback="allow")), given).ok
    newer = replace(given, annotations={"org.opencontainers.image.version": "2.1"})
    assert judge(RULE, newer).ok


def finding(kind, danger):
    return Finding(path="model.bin", kind=kind, danger=danger, detail="why")


CLEAN_PICKLE = finding("pickle", "note")
BAD_PICKLE = finding("pickle", "unsafe")
ODD_PICKLE = finding("pickle", "unscannable")
TRICK = finding("archive", "unsafe")
SEALED = finding("archive", "unscannable")
LAMBDA = finding("keras", "unsafe")
H5 = finding("hdf5", "unscannable")
AUTO_MAP = finding("remote-code", "note")
TEMPLATE = finding("chat-template", "note")

DEFAULT = FormatRule()
FORMATS = {
    "default-clean-pickle": (DEFAULT, CLEAN_PICKLE, None),
    "default-pickle": (DEFAULT, BAD_PICKLE, "formats.pickle"),
    "default-odd-pickle": (DEFAULT, ODD_PICKLE, "formats.unscannable"),
    "default-zip-trick": (DEFAULT, TRICK, "formats.pickle"),
    "default-sealed": (DEFAULT, SEALED, "formats.unscannable"),
    "default-lambda": (DEFAULT, LAMBDA, "formats.keras_lambda"),
    "default-hdf5": (DEFAULT, H5, "formats.unscannable"),
    "default-auto-map": (DEFAULT, AUTO_MAP, None),
    "default-template": (DEFAULT, TEMPLATE, None),
    "refuse-clean-pickle": (FormatRule(pickle="refuse"), CLEAN_PICKLE, "formats.pickle"),
    "refuse-zip-trick": (FormatRule(pickle="refuse"), TRICK, "formats.pickle"),
    "allow-pickle": (FormatRule(pickle="allow"), BAD_PICKLE, None),
    "allow-lambda": (FormatRule(keras_lambda="allow"), LAMBDA, None),
    "allow-lambda-not-pickle": (FormatRule(keras_lambda="allow"), BAD_PICKLE, "formats.pickle"),
    "allow-unscannable": (FormatRule(unscannable="allow"), H5, None),
    "allow-unscannable-not-pickle": (FormatRule(unscannable="allow"), BAD_PICKLE, "formats.pickle"),
    "refuse-auto-map": (FormatRule(remote_code="refuse"), AUTO_MAP, "formats.remote_code"),
}


@pytest.mark.parametrize(("formats", "found", "refused"), FORMATS.values(), ids=FORMATS)
def test_formats(formats, found, refused):
    rule = replace(RULE, formats=formats)
    expected = [] if refused is None else [refused]
    assert failed(judge(rule, facts(consent(ADA), findings=(TEMPLATE, found)))) == expected
    assert failed(evaluate_content(rule, (found,))) == expected


def test_content_that_is_not_known_yet_is_evaluated_later():
    rules = [verdict.rule for verdict in judge(RULE, facts(consent(ADA))).rules]
    assert not any(rule.startswith("formats") for rule in rules)
    rules = [verdict.rule for verdict in judge(RULE, facts(consent(ADA), findings=())).rules]
    assert sum(rule.startswith("formats") for rule in rules) == 4


def test_refused_files_are_named_and_the_rest_counted():
    many = tuple(replace(BAD_PICKLE, path=f"{number}.bin") for number in range(9))
    detail = str(evaluate_content(RULE, many))
    assert "'0.bin': why" in detail
    assert "and 6 more" in detail


def test_identities_and_keys_count_alike():
    action = IdentitySigner(identity="https://ci.example/w", issuer="https://issuer.example")
    same = IdentitySigner(identity="https://ci.example/w", issuer="https://other.example")
    rule = replace(RULE, signers=(ADA, action), threshold=2)
    by_action = replace(consent(ADA), signer=action)
    assert judge(rule, facts(consent(ADA), by_action)).ok
    assert not judge(rule, facts(consent(ADA), replace(by_action, signer=same))).ok
