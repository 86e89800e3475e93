import json
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_TAR,
    OCI_MANIFEST,
    Descriptor,
)
from modelpack.digest import Digest
from modelpack.errors import FormatError
from modelpack.manifest import (
    MAX_LAYERS,
    Index,
    Manifest,
    canonical_json,
    load_json,
    parse_manifest,
)

CONFIG = Descriptor.of(b"{}", media_type=OCI_CONFIG)
LAYERS = [Descriptor.of(bytes([n]), media_type=OCI_LAYER_TAR) for n in range(3)]


def document(**members):
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": CONFIG.to_json(),
        "layers": [layer.to_json() for layer in LAYERS],
    }
    value.update(members)
    return json.dumps({key: item for key, item in value.items() if item is not ...}).encode()


def listing(**members):
    value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [CONFIG.to_json()]}
    value.update(members)
    return json.dumps({key: item for key, item in value.items() if item is not ...}).encode()


def test_what_was_built_is_parsed():
    subject = Descriptor.of(b"subject", media_type=OCI_MANIFEST)
    built = Manifest.build(
        config=CONFIG,
        layers=LAYERS,
        annotations={"b": "2", "a": "1"},
        artifact_type="application/x",
        subject=subject,
    )
    parsed = parse_manifest(built.raw, OCI_MANIFEST)
    assert parsed == built
    assert parsed.digest == Digest.of(built.raw)
    assert list(json.loads(built.raw)) == [
        *("schemaVersion", "mediaType", "artifactType", "config", "layers", "subject"),
        "annotations",
    ]
    assert list(json.loads(built.raw)["annotations"]) == ["a", "b"]
    index = Index.build([built.descriptor()], {"k": "v"})
    assert parse_manifest(index.raw, OCI_INDEX) == index


def test_a_referrer_without_artifact_type_is_known_by_its_config():
    """distribution-spec, "Listing Referrers": the config's media type stands in."""
    subject = Descriptor.of(b"subject", media_type=OCI_MANIFEST)
    plain = Manifest.build(config=CONFIG, layers=[])
    assert plain.descriptor().artifact_type is None
    assert (
        Manifest.build(config=CONFIG, layers=[], subject=subject).descriptor().artifact_type
        == OCI_CONFIG
    )


def test_the_raw_bytes_stay_what_they_were():
    """The digest is over the bytes that came, white space and unknown members included."""
    raw = b"\n " + document(unknown=[1]).replace(b", ", b" ,  ") + b"\n"
    parsed = parse_manifest(raw, OCI_MANIFEST)
    assert parsed.raw == raw
    assert parsed.digest == Digest.of(raw)


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        (document(mediaType=...), OCI_MANIFEST),
        (document(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST),
        (document(layers=[]), OCI_MANIFEST),
        (document(annotations=None, subject=None, artifactType=None), OCI_MANIFEST),
        (listing(mediaType=...), OCI_INDEX),
        (listing(mediaType=DOCKER_INDEX), DOCKER_INDEX),
        (listing(manifests=[]), OCI_INDEX),
    ],
)
def test_other_forms_that_are_allowed(raw, media_type):
    assert parse_manifest(raw, media_type).media_type == media_type


BAD = {
    "empty": (b"", OCI_MANIFEST),
    "not-json": (b"{", OCI_MANIFEST),
    "two-documents": (document() + document(), OCI_MANIFEST),
    "bom": (b"\xef\xbb\xbf" + document(), OCI_MANIFEST),
    "utf-16": (document().decode().encode("utf-16"), OCI_MANIFEST),
    "not-utf-8": (document(annotations={"a": "x"}).replace(b'"x"', b'"\xff"'), OCI_MANIFEST),
    "nan": (document(size=float("nan")), OCI_MANIFEST),
    "duplicate-key": (document().replace(b"{", b'{"layers": [], ', 1), OCI_MANIFEST),
    "duplicate-key-inside": (
        document().replace(b'"size": 2', b'"size": 1, "size": 2', 1),
        OCI_MANIFEST,
    ),
    "nested": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", OCI_MANIFEST),
    "long-number": (document(x=0).replace(b'"x": 0', b'"x": ' + b"9" * 5000), OCI_MANIFEST),
    "list": (b"[]", OCI_MANIFEST),
    "null": (b"null", OCI_MANIFEST),
    "schema-1": (document(schemaVersion=1), OCI_MANIFEST),
    "no-schema": (document(schemaVersion=...), OCI_MANIFEST),
    "other-type": (document(mediaType=DOCKER_MANIFEST), OCI_MANIFEST),
    "type-number": (document(mediaType=1), OCI_MANIFEST),
    "unknown-type": (document(mediaType="text/html"), "text/html"),
    "no-type": (document(mediaType=...), "application/octet-stream"),
    # CVE-2021-41190: one document, two meanings
    "manifest-with-manifests": (document(manifests=[]), OCI_MANIFEST),
    "index-with-layers": (listing(layers=[]), OCI_INDEX),
    "index-with-config": (listing(config=CONFIG.to_json()), OCI_INDEX),
    "no-config": (document(config=...), OCI_MANIFEST),
    "config-null": (document(config=None), OCI_MANIFEST),
    "no-layers": (document(layers=...), OCI_MANIFEST),
    "layers-object": (document(layers={}), OCI_MANIFEST),
    "layer-null": (document(layers=[None]), OCI_MANIFEST),
    "layer-bad": (document(layers=[{"mediaType": "a"}]), OCI_MANIFEST),
    "subject-bad": (document(subject={}), OCI_MANIFEST),
    "annotations-list": (document(annotations=[]), OCI_MANIFEST),
    "annotation-number": (document(annotations={"a": 1}), OCI_MANIFEST),
    "artifact-type-list": (document(artifactType=[]), OCI_MANIFEST),
    "no-manifests": (listing(manifests=...), OCI_INDEX),
    "manifests-text": (listing(manifests="x"), OCI_INDEX),
    "index-annotation": (listing(annotations={"a": []}), OCI_INDEX),
    "too-many-layers": (
        document(layers=[]).replace(b"[]", b"[" + b",".join([b"{}"] * (MAX_LAYERS + 1)) + b"]"),
        OCI_MANIFEST,
    ),
    "too-large": (document() + b" " * MAX_MANIFEST_BYTES, OCI_MANIFEST),
}


@pytest.mark.parametrize(("raw", "media_type"), BAD.values(), ids=BAD)
def test_what_is_refused(raw, media_type):
    started = time.perf_counter()
    with pytest.raises(FormatError) as caught:
        parse_manifest(raw, media_type)
    assert time.perf_counter() - started < 5
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@given(st.binary(), st.sampled_from([OCI_MANIFEST, OCI_INDEX]))
@settings(deadline=None)
def test_any_bytes_give_a_manifest_or_our_error(raw, media_type):
    try:
        parse_manifest(raw, media_type)
    except FormatError:
        return


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "schemaVersion",
                "mediaType",
                "config",
                "layers",
                "manifests",
                "annotations",
                "subject",
                "artifactType",
            ]
        ),
        JSON,
        max_size=3,
    ),
    st.sampled_from([OCI_MANIFEST, OCI_INDEX]),
)
@settings(max_examples=200, deadline=None)
def test_any_members_give_a_manifest_or_our_error(members, media_type):
    raw = document(**members) if media_type == OCI_MANIFEST else listing(**members)
    try:
        parsed = parse_manifest(raw, media_type)
    except FormatError:
        return
    assert parsed.raw == raw
    assert isinstance(parsed, Manifest) is (media_type == OCI_MANIFEST)


@given(JSON)
@settings(deadline=None)
def test_canonical_json_is_json_and_stable(value):
    raw = canonical_json(value)
    assert json.loads(raw) == value
    assert canonical_json(json.loads(raw)) == raw


def test_canonical_json_by_the_letter():
    """docs/format.md, section 2."""
    assert canonical_json({"b": [1, -2, True, None], "a": {}}) == b'{"b":[1,-2,true,null],"a":{}}'
    everything = "".join(map(chr, range(0x80))) + "é\u2028\U0001f600"
    escapes = {'"': '\\"', "\\": "\\\\"}
    escapes |= {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
    for code in range(0x20):
        escapes.setdefault(chr(code), f"\\u{code:04x}")
    assert set(escapes).isdisjoint(string.ascii_letters)
    expected = '"' + "".join(escapes.get(letter, letter) for letter in everything) + '"'
    assert canonical_json(everything) == expected.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_is_not_json_is_not_written(value):
    with pytest.raises(ValueError):
        canonical_json(value)


def test_load_json_names_the_document():
    with pytest.raises(FormatError, match="the receipt is not valid JSON"):
        load_json(b"{]", "the receipt")
    assert load_json(b' {"a": [1]} ', "x") == {"a": [1]}
