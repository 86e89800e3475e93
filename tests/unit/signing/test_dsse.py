import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import FormatError, ModelpackError
from modelpack.signing import dsse
from modelpack.signing.dsse import Envelope
from modelpack.signing.keys import PrivateKey

KEY = PrivateKey.generate()
OTHER = PrivateKey.generate("ed25519")


@pytest.mark.parametrize(
    ("payload_type", "payload", "encoded"),
    [
        # The protocol document's own example.
        (
            "http://example.com/HelloWorld",
            b"hello world",
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
        ),
        ("", b"", b"DSSEv1 0  0 "),
        ("é", "é".encode(), "DSSEv1 2 é 2 é".encode()),
    ],
    ids=["specification", "empty", "lengths-are-in-bytes"],
)
def test_pae(payload_type, payload, encoded):
    assert dsse.pae(payload_type, payload) == encoded


@settings(deadline=None)
@given(st.tuples(st.text(), st.binary()), st.tuples(st.text(), st.binary()))
def test_pae_of_different_envelopes_differs(one, other):
    assert (dsse.pae(*one) == dsse.pae(*other)) == (one == other)


def test_an_envelope_survives_its_json():
    envelope = dsse.sign(b'{"a": 1}', KEY)
    assert Envelope.from_json(json.loads(json.dumps(envelope.to_json()))) == envelope


def test_who_signed():
    envelope = dsse.sign(b"payload", KEY)
    keys = [OTHER.public_key, KEY.public_key, KEY.public_key]
    assert envelope.signers(keys) == (KEY.public_key,)
    assert envelope.signers([OTHER.public_key]) == ()


def test_several_signatures_are_each_verified():
    first, second = dsse.sign(b"payload", KEY), dsse.sign(b"payload", OTHER)
    both = Envelope(
        payload_type=dsse.IN_TOTO,
        payload=b"payload",
        signatures=first.signatures + second.signatures,
    )
    assert set(both.signers([KEY.public_key, OTHER.public_key])) == {
        KEY.public_key,
        OTHER.public_key,
    }


def test_the_payload_type_is_signed():
    envelope = dsse.sign(b"payload", KEY)
    moved = Envelope(
        payload_type="text/plain", payload=envelope.payload, signatures=envelope.signatures
    )
    assert moved.signers([KEY.public_key]) == ()


GOOD = dsse.sign(b"payload", KEY).to_json()
BAD = {
    "not-an-object": [],
    "no-payload": {key: value for key, value in GOOD.items() if key != "payload"},
    "unknown-member": {**GOOD, "extra": 1},
    "payload-not-text": {**GOOD, "payload": 1},
    "payload-not-base64": {**GOOD, "payload": "%%%%"},
    "payload-with-newline": {**GOOD, "payload": GOOD["payload"] + "\n"},
    "payload-url-safe": {**GOOD, "payload": "_-8="},
    "payload-unused-bits": {**GOOD, "payload": "cGF5bG9hZC=="},
    "type-not-text": {**GOOD, "payloadType": None},
    "type-too-long": {**GOOD, "payloadType": "x" * 5000},
    "type-lone-surrogate": {**GOOD, "payloadType": "\ud800"},
    "signatures-not-a-list": {**GOOD, "signatures": {}},
    "too-many-signatures": {**GOOD, "signatures": GOOD["signatures"] * 17},
    "signature-without-sig": {**GOOD, "signatures": [{"keyid": ""}]},
    "signature-unknown-member": {**GOOD, "signatures": [{"sig": "AA==", "cert": ""}]},
    "signature-too-long": {
        **GOOD,
        "signatures": [{"sig": base64.b64encode(bytes(dsse.MAX_SIGNATURE_BYTES + 1)).decode()}],
    },
    "payload-too-long": {**GOOD, "payload": "A" * (dsse.MAX_PAYLOAD_BYTES * 4 // 3 + 8)},
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_malformed_envelopes(value):
    with pytest.raises(FormatError):
        Envelope.from_json(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["payload", "payloadType", "signatures", "sig", "keyid"]), inner
        )
    ),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json_gives_an_envelope_or_an_error_of_ours(value):
    try:
        envelope = Envelope.from_json(value)
    except ModelpackError:
        return
    assert Envelope.from_json(envelope.to_json()) == envelope
