import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.errors import FormatError, ModelpackError
from modelpack.signing import simplesigning
from modelpack.signing.keys import PrivateKey
from modelpack.signing.names import signature_tag
from modelpack.signing.simplesigning import parse_annotation, parse_payload

KEY = PrivateKey.generate()
DIGEST = Digest.of(b"manifest")
SIGNED = simplesigning.sign("registry.example/team/llama", DIGEST, KEY)


def test_the_payload_is_cosigns_to_the_byte():
    assert (
        SIGNED.payload
        == (
            '{"critical":{"identity":{"docker-reference":"registry.example/team/llama"},'
            f'"image":{{"docker-manifest-digest":"{DIGEST}"}},'
            '"type":"cosign container image signature"},"optional":null}'
        ).encode()
    )
    assert KEY.public_key.verifies(SIGNED.signature, SIGNED.payload)


def test_reading_it_back():
    image = parse_payload(SIGNED.payload)
    assert (image.reference, image.digest) == ("registry.example/team/llama", DIGEST)
    assert parse_annotation(SIGNED.annotation) == SIGNED.signature


def test_the_tag():
    assert signature_tag(DIGEST) == f"sha256-{DIGEST.hex}.sig"


def changed(where, **changes):
    value = json.loads(SIGNED.payload)
    target = value
    for name in where:
        target = target[name]
    target.update(changes)
    return json.dumps(value).encode()


def test_optional_may_hold_anything():
    assert parse_payload(changed((), optional={"creator": "x", "n": 1})).digest == DIGEST


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"{}",
        changed((), extra=1),
        changed(("critical",), type="atomic container signature"),
        changed(("critical",), extra=1),
        changed(("critical", "image"), **{"docker-manifest-digest": "sha256:00"}),
        changed(("critical", "image"), extra=""),
        changed(("critical", "identity"), **{"docker-reference": 1}),
        b" " * (simplesigning.MAX_PAYLOAD_BYTES + 1),
    ],
    ids=lambda raw: raw[:70].decode(),
)
def test_malformed_payloads(raw):
    with pytest.raises(FormatError):
        parse_payload(raw)


@pytest.mark.parametrize("value", [None, "%", "AA=", "A" * 4000], ids=str)
def test_malformed_annotations(value):
    with pytest.raises(FormatError):
        parse_annotation(value)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_mutation_gives_a_value_or_an_error_of_ours(data):
    start = data.draw(st.integers(0, len(SIGNED.payload)))
    noise = data.draw(st.binary(max_size=12))
    try:
        parse_payload(SIGNED.payload[:start] + noise + SIGNED.payload[start + len(noise) :])
    except ModelpackError:
        return
