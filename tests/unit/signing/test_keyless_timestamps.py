"""The second generation of Rekor, which gives no time, and the timestamp authority that does."""

import datetime as dt
import json

import pytest

from modelpack.errors import AuthError, NetworkError, PolicyError
from modelpack.signing import statement
from tests.unit.signing.keyless_support import (
    DIGEST,
    ENTRY,
    changed,
    check,
    flipped,
    sign,
    sign_unchecked,
    signer_of,
)
from tests.unit.signing.sigstore_services import TIMESTAMPS, Deployment
from tests.unit.signing.timestamp_service import TimestampAuthority

STAMPS = ("verificationMaterial", "timestampVerificationData", "rfc3161Timestamps")


@pytest.fixture
def sigstore():
    with Deployment(rekor=2) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def shared():
    with Deployment(rekor=2) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def signed(shared):
    # Not the first entry, so that the inclusion proof has hashes in it.
    return [sign(shared) for _ in range(3)][-1]


def test_what_is_signed_verifies_by_its_timestamp_alone(shared, signed):
    material = json.loads(signed)["verificationMaterial"]
    [entry] = material["tlogEntries"]
    assert entry["kindVersion"] == {"kind": "hashedrekord", "version": "0.0.2"}
    assert "inclusionPromise" not in entry
    assert len(material["timestampVerificationData"]["rfc3161Timestamps"]) == 1
    verdict = check(shared, signed)
    assert verdict.ok, verdict.detail
    assert verdict.signer == signer_of(shared)


def flipped_stamp(one):
    return one | {"signedTimestamp": flipped(one["signedTimestamp"])}


TAMPERED = {
    "payload": (("dsseEnvelope", "payload"), flipped),
    "signature": (("dsseEnvelope", "signatures", 0, "sig"), flipped),
    "timestamp": ((*STAMPS, 0), flipped_stamp),
    "no-timestamp": (STAMPS, lambda _: []),
    "no-timestamp-data": (STAMPS[:2], lambda _: None),
    "twice-the-timestamp": (STAMPS, lambda stamps: stamps * 2),
    "too-many-timestamps": (STAMPS, lambda stamps: stamps * 40),
    "junk-timestamp": (STAMPS, lambda _: [{"signedTimestamp": "AAAA"}]),
    "log-body": ((*ENTRY, "canonicalizedBody"), flipped),
    "log-kind": ((*ENTRY, "kindVersion", "kind"), lambda _: "dsse"),
    "log-version": ((*ENTRY, "kindVersion", "version"), lambda _: "0.0.1"),
    "proof-hash": ((*ENTRY, "inclusionProof", "hashes", 0), flipped),
    "proof-root": ((*ENTRY, "inclusionProof", "rootHash"), flipped),
    "checkpoint": (
        (*ENTRY, "inclusionProof", "checkpoint", "envelope"),
        lambda note: note.replace("127.0.0.1", "127.0.0.2", 1),
    ),
    "no-log-entry": (("verificationMaterial", "tlogEntries"), lambda _: []),
}


@pytest.mark.parametrize(("path", "change"), TAMPERED.values(), ids=TAMPERED)
def test_tampered_bundles_are_refused(shared, signed, path, change):
    verdict = check(shared, changed(signed, path, change))
    assert not verdict.ok
    assert verdict.kind == "unknown"
    assert "\n" not in verdict.detail


def test_a_time_that_nobody_promised_is_none(shared, signed):
    """Anybody can write an integration time into a bundle; without a promise it is not signed."""
    claimed = changed(signed, (*ENTRY, "integratedTime"), lambda _: "1900000000")
    assert check(shared, claimed).ok
    assert not check(shared, changed(claimed, STAMPS, lambda _: [])).ok


@pytest.mark.parametrize("part", [STAMPS, ENTRY[:2]], ids=["timestamp", "log entry"])
def test_12_what_belongs_to_another_signature_is_refused(shared, signed, part):
    raw = sign(shared, statement.attestation(DIGEST, "https://x", {}, name=""))
    other = json.loads(raw)
    for name in part:
        other = other[name]
    assert not check(shared, changed(signed, part, lambda _: other)).ok


def test_a_timestamp_authority_that_is_not_trusted(shared, sigstore, signed):
    foreign = sigstore.trusted_root()["timestampAuthorities"]
    assert not check(shared, signed, timestampAuthorities=foreign).ok
    assert not check(shared, signed, timestampAuthorities=[]).ok


@pytest.mark.parametrize("hours", [-1, 1], ids=["before", "after"])
def test_a_clock_outside_the_certificates_life(sigstore, hours):
    real = sigstore.timestamps.clock
    sigstore.timestamps.clock = lambda: real() + dt.timedelta(hours=hours)
    assert not check(sigstore, sign_unchecked(sigstore)).ok
    with pytest.raises(PolicyError, match="does not hold"):
        sign(sigstore)


def test_a_timestamp_before_its_authority_was_trusted(sigstore):
    raw = sign(sigstore)
    later = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    [authority] = sigstore.trusted_root()["timestampAuthorities"]
    moved = authority | {"validFor": {"start": later}}
    assert not check(sigstore, raw, timestampAuthorities=[moved]).ok


def test_a_timestamp_over_something_else(sigstore):
    other = TimestampAuthority()
    sigstore.timestamps.imprint_for = lambda imprint: imprint[:-1] + bytes([imprint[-1] ^ 1])
    assert not check(sigstore, sign_unchecked(sigstore)).ok
    with pytest.raises(PolicyError):
        sign(sigstore)
    # Nor one by a stranger who is asked in its place.
    sigstore.timestamps.answer = other.answer
    assert not check(sigstore, sign_unchecked(sigstore)).ok


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        (TIMESTAMPS, 500, NetworkError),
        (TIMESTAMPS, 403, NetworkError),
        ("/api/v2/log/entries", 400, AuthError),
        ("/api/v2/log/entries", 503, NetworkError),
    ],
)
def test_services_that_fail(sigstore, path, status, expected):
    sigstore.fail[path] = status
    with pytest.raises(expected) as caught:
        sign(sigstore)
    assert "\n" not in str(caught.value)


def test_a_log_that_does_not_take_a_signature(sigstore):
    sigstore.entry_for = lambda _: None
    with pytest.raises(AuthError, match="the log refused"):
        sign(sigstore)


def test_members_that_are_zero_need_not_be_written(sigstore):
    """The JSON of protocol buffers leaves them out, as cosign does; the first entry has them."""
    raw = sign(sigstore)
    value = json.loads(raw)
    [entry] = value["verificationMaterial"]["tlogEntries"]
    assert entry.pop("logIndex") == entry["inclusionProof"].pop("logIndex") == "0"
    assert entry["inclusionProof"].pop("hashes") == []
    assert check(sigstore, json.dumps(value).encode()).ok
    # Of any other entry they are missing.
    second = json.loads(sign(sigstore))
    second["verificationMaterial"]["tlogEntries"][0]["inclusionProof"].pop("hashes")
    assert not check(sigstore, json.dumps(second).encode()).ok
