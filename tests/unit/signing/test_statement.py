import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.errors import FormatError, ModelpackError
from modelpack.signing import statement
from modelpack.signing.statement import Statement

DIGEST = Digest.of(b"manifest")


def test_the_signature_statement_is_cosigns_to_the_byte():
    assert statement.signature_statement(DIGEST) == (
        b'{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"'
        + DIGEST.hex.encode()
        + b'"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}'
    )


def test_an_empty_name_for_clients_that_want_the_member():
    value = json.loads(statement.signature_statement(DIGEST, name=""))
    assert value["subject"] == [{"name": "", "digest": {"sha256": DIGEST.hex}}]


def test_an_attestation():
    raw = statement.attestation(DIGEST, statement.CYCLONEDX, {"a": [1]}, name="host/model")
    parsed = Statement.parse(raw)
    assert parsed.predicate_type == "https://cyclonedx.org/bom"
    assert parsed.predicate == {"a": [1]}
    assert parsed.subjects[0].name == "host/model"
    assert parsed.names(DIGEST)
    assert not parsed.names(Digest.of(b"other"))


def encoded(**changes):
    value = {
        "_type": statement.STATEMENT_V1,
        "subject": [{"digest": {"sha256": DIGEST.hex}}],
        "predicateType": "https://example.com/p",
        "predicate": {},
        **changes,
    }
    return json.dumps({key: item for key, item in value.items() if item is not ...}).encode()


@pytest.mark.parametrize(
    ("raw", "predicate"),
    [
        (encoded(_type=statement.STATEMENT_V01), {}),
        (encoded(predicate=...), {}),
        (encoded(extra={"x": 1}), {}),
        (encoded(predicate=[1]), [1]),
        (encoded(subject=[{"name": "n", "uri": "u", "digest": {"sha256": DIGEST.hex}}]), {}),
    ],
    ids=["v0.1", "no-predicate", "unknown-member", "predicate-of-any-kind", "uri-in-subject"],
)
def test_what_is_read(raw, predicate):
    parsed = Statement.parse(raw)
    assert parsed.names(DIGEST)
    assert parsed.predicate == predicate


def test_one_of_many_subjects_is_enough_and_algorithms_do_not_mix():
    other = {"digest": {"sha512": DIGEST.hex}}
    assert not Statement.parse(encoded(subject=[other])).names(DIGEST)
    mine = {"digest": {"sha256": DIGEST.hex, "sha512": "00"}}
    assert Statement.parse(encoded(subject=[other, mine])).names(DIGEST)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        encoded(_type="https://in-toto.io/Statement/v2"),
        encoded(_type=["x"]),
        encoded(_type=...),
        encoded(subject=[]),
        encoded(subject={}),
        encoded(subject=[{"digest": {}}]),
        encoded(subject=[{"digest": {"sha256": 1}}]),
        encoded(subject=[{"name": 1, "digest": {"sha256": "00"}}]),
        encoded(subject=[{"digest": {"sha256": "00"}}] * (statement.MAX_SUBJECTS + 1)),
        encoded(subject=[{"digest": {str(n): "00" for n in range(99)}}]),
        encoded(predicateType=None),
        encoded(predicateType=...),
        encoded().replace(b'"predicate":', b'"predicateType":'),
    ],
    ids=lambda raw: raw[:60].decode("latin-1"),
)
def test_what_is_refused(raw):
    with pytest.raises(FormatError):
        Statement.parse(raw)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=80)
    | st.dictionaries(
        st.sampled_from(["_type", "subject", "predicateType", "predicate"]),
        st.sampled_from([statement.STATEMENT_V1, [], [{}], [{"digest": {"sha256": "00"}}], 1, {}]),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_give_a_statement_or_an_error_of_ours(raw):
    try:
        parsed = Statement.parse(raw)
    except ModelpackError:
        return
    assert parsed.subjects
