import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.errors import FormatError, ModelpackError
from modelpack.signing import bundle, dsse, statement
from modelpack.signing.bundle import parse_bundle
from modelpack.signing.keys import PrivateKey
from modelpack.signing.verify import KeySigner, verify_bundle

KEY = PrivateKey.generate()
DIGEST = Digest.of(b"manifest")
ENVELOPE = dsse.sign(statement.signature_statement(DIGEST), KEY)
RAW = bundle.key_bundle(ENVELOPE, KEY.public_key.cosign_hint)
VALUE = json.loads(RAW)


def changed(**changes):
    value = {**VALUE, **changes}
    return json.dumps({key: item for key, item in value.items() if item is not ...}).encode()


def with_material(material):
    return changed(verificationMaterial=material)


def test_a_key_bundle_is_cosigns_shape():
    assert VALUE.keys() == {"mediaType", "verificationMaterial", "dsseEnvelope"}
    assert VALUE["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert VALUE["verificationMaterial"] == {"publicKey": {"hint": KEY.public_key.cosign_hint}}
    assert VALUE["dsseEnvelope"]["payloadType"] == "application/vnd.in-toto+json"
    assert list(VALUE["dsseEnvelope"]["signatures"][0]) == ["sig"]


def test_reading_it_back():
    parsed = parse_bundle(RAW)
    assert parsed.envelope == ENVELOPE
    assert parsed.hint == KEY.public_key.cosign_hint
    assert parsed.certificate is None
    assert parsed.raw == RAW


def test_what_counts_is_what_was_parsed_not_its_text():
    spaced = json.dumps(dict(reversed(VALUE.items())), indent=2).encode()
    assert parse_bundle(spaced).envelope == ENVELOPE


@pytest.mark.parametrize(
    ("raw", "hint", "certificate"),
    [
        (changed(mediaType=bundle.ACCEPTED_MEDIA_TYPES[1]), KEY.public_key.cosign_hint, None),
        (with_material({"publicKey": {}}), "", None),
        (with_material({"publicKey": {"hint": "x"}, "tlogEntries": []}), "x", None),
        (with_material({"certificate": {"rawBytes": "AAAA"}}), None, bytes(3)),
        (
            with_material(
                {
                    "certificate": {"rawBytes": "AAAA"},
                    "tlogEntries": [{}],
                    "timestampVerificationData": {},
                }
            ),
            None,
            bytes(3),
        ),
    ],
    ids=["older-spelling", "no-hint", "with-log", "certificate", "certificate-and-log"],
)
def test_what_is_read(raw, hint, certificate):
    parsed = parse_bundle(raw)
    assert (parsed.hint, parsed.certificate) == (hint, certificate)


BAD = {
    "not-json": b"{",
    "a-list": b"[]",
    "no-media-type": changed(mediaType=...),
    "too-old": changed(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.2"),
    "unknown-version": changed(mediaType="application/vnd.dev.sigstore.bundle.v0.4+json"),
    "media-type-is-a-list": changed(mediaType=[]),
    "bare-bytes-signed": changed(messageSignature={}, dsseEnvelope=...),
    "both-contents": changed(messageSignature={}),
    "no-envelope": changed(dsseEnvelope=...),
    "unknown-member": changed(other=1),
    "thousands-of-values": changed(other=[[]] * 30_000),
    "no-signature": changed(dsseEnvelope={**VALUE["dsseEnvelope"], "signatures": []}),
    "two-signatures": changed(
        dsseEnvelope={
            **VALUE["dsseEnvelope"],
            "signatures": VALUE["dsseEnvelope"]["signatures"] * 2,
        }
    ),
    "no-material": with_material({}),
    "two-materials": with_material({"publicKey": {}, "certificate": {"rawBytes": ""}}),
    "chain-of-old-versions": with_material({"x509CertificateChain": {"certificates": []}}),
    "key-inside": with_material({"publicKey": {"hint": "", "rawBytes": "AA=="}}),
    "hint-is-a-number": with_material({"publicKey": {"hint": 1}}),
    "hint-too-long": with_material({"publicKey": {"hint": "x" * 600}}),
    "certificate-too-long": with_material(
        {"certificate": {"rawBytes": base64.b64encode(bytes(70_000)).decode()}}
    ),
    "log-flood": with_material({"publicKey": {}, "tlogEntries": [{}] * 33}),
    "repeated-key": RAW.replace(b'"mediaType"', b'"mediaType":"x","mediaType"', 1),
    "deep": b'{"mediaType":' + b"[" * 200_000,
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_malformed_bundles(raw):
    with pytest.raises(FormatError):
        parse_bundle(raw)


def test_an_oversize_bundle_is_not_even_parsed(monkeypatch):
    monkeypatch.setattr(bundle, "load_json", pytest.fail)
    with pytest.raises(FormatError, match="larger than"):
        parse_bundle(b" " * (bundle.MAX_BUNDLE_BYTES + 1))


@pytest.mark.parametrize("bit", range(8))
def test_one_changed_byte_anywhere_is_refused(bit):
    signer = KeySigner(name="team", key=KEY.public_key)
    assert verify_bundle(RAW, subject=DIGEST, signers=[signer]).ok
    accepted = []
    for position in range(len(RAW)):
        flipped = bytearray(RAW)
        flipped[position] ^= 1 << bit
        if verify_bundle(bytes(flipped), subject=DIGEST, signers=[signer]).ok:
            accepted.append(position)
    assert accepted == []


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_mutation_gives_a_bundle_or_an_error_of_ours(data):
    start = data.draw(st.integers(0, len(RAW)))
    length = data.draw(st.integers(0, 40))
    raw = RAW[:start] + data.draw(st.binary(max_size=20)) + RAW[start + length :]
    try:
        parsed = parse_bundle(raw)
    except ModelpackError:
        return
    assert (parsed.hint is None) != (parsed.certificate is None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(bundle.MEDIA_TYPE),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("mediaType", "verificationMaterial", "dsseEnvelope", "publicKey", "hint"),
                    *("certificate", "rawBytes", "payload", "payloadType", "signatures", "sig"),
                ]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(VALUE)), JSON))
def test_any_json_gives_a_bundle_or_an_error_of_ours(value):
    try:
        parse_bundle(json.dumps(VALUE | value).encode())
    except ModelpackError:
        return
