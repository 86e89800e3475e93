import hashlib
import json

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import FormatError, IntegrityError, ModelpackError, PolicyError, UsageError
from modelpack.signing import dsse, oms, statement
from modelpack.signing.bundle import key_bundle, parse_bundle
from modelpack.signing.keys import PrivateKey
from modelpack.signing.oms import FileDigest

KEY = PrivateKey.generate()
CONTENTS = {"config.json": b"{}", "weights/1.safetensors": b"one", "weights-2.bin": b"two"}


def files(contents=None, algorithm="blake3"):
    hasher = {"blake3": blake3, "sha256": hashlib.sha256}[algorithm]
    return [
        FileDigest(name=name, algorithm=algorithm, digest=hasher(data).digest())
        for name, data in (contents or CONTENTS).items()
    ]


def predicate_of(raw):
    return json.loads(parse_bundle(raw).envelope.payload)


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_the_statement(algorithm):
    value = json.loads(oms.files_statement("llama", files(algorithm=algorithm)))
    resources = value["predicate"]["resources"]
    # Sorted part by part: "/" comes before any other character.
    assert [item["name"] for item in resources] == [
        "config.json",
        "weights/1.safetensors",
        "weights-2.bin",
    ]
    assert {item["algorithm"] for item in resources} == {algorithm}
    joined = b"".join(bytes.fromhex(item["digest"]) for item in resources)
    assert value["subject"] == [
        {"name": "llama", "digest": {"sha256": hashlib.sha256(joined).hexdigest()}}
    ]
    assert value["predicateType"] == "https://model_signing/signature/v1.0"
    assert value["predicate"]["serialization"] == {
        "method": "files",
        "hash_type": algorithm,
        "allow_symlinks": False,
        "ignore_paths": ["model.sig", ".git", ".gitattributes", ".github", ".gitignore"],
    }


def test_it_depends_on_nothing_but_the_files():
    assert oms.files_statement("m", files()) == oms.files_statement("m", reversed(files()))


def test_the_bundle_names_its_key_as_oms_does():
    assert parse_bundle(oms.sign_files("m", files(), KEY)).hint == KEY.public_key.oms_hint


def test_signed_files_verify():
    raw = oms.sign_files("llama", files(), KEY, ignored=["cache"])
    present = [
        *files(),
        *files({"model.sig": b"", ".git/HEAD": b"", "cache/x": b"", ".gitignore": b""}),
    ]
    signed = oms.verify_files(raw, [PrivateKey.generate().public_key, KEY.public_key], present)
    assert signed.model == "llama"
    assert len(signed.files) == 3


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({**CONTENTS, "config.json": b"{ }"}, "changed: 'config.json'"),
        ({k: v for k, v in CONTENTS.items() if k != "config.json"}, "missing: 'config.json'"),
        ({**CONTENTS, "extra.py": b""}, "extra: 'extra.py'"),
        (
            {"weights-2.bin": b"x", "new": b""},
            "missing: 'config.json', 'weights/1.safetensors'; changed: 'weights-2.bin'; extra: 'new'",
        ),
        ({**CONTENTS, **{f"{n:03}": b"" for n in range(9)}}, "'004' and 4 more"),
    ],
    ids=["changed", "missing", "extra", "all", "many"],
)
def test_other_files_are_named(contents, said):
    raw = oms.sign_files("llama", files(), KEY)
    with pytest.raises(IntegrityError) as caught:
        oms.verify_files(raw, [KEY.public_key], files(contents))
    assert said in str(caught.value)


def test_the_same_digest_under_another_algorithm_is_a_change():
    raw = oms.sign_files("llama", files(algorithm="sha256"), KEY)
    relabelled = [
        FileDigest(name=file.name, algorithm="blake3", digest=file.digest)
        for file in files(algorithm="sha256")
    ]
    with pytest.raises(IntegrityError, match="changed"):
        oms.verify_files(raw, [KEY.public_key], relabelled)


def test_another_key():
    raw = oms.sign_files("llama", files(), KEY)
    with pytest.raises(PolicyError, match="none of the 1 given keys"):
        oms.verify_files(raw, [PrivateKey.generate().public_key], files())
    with pytest.raises(PolicyError, match="none of the 0 given keys"):
        oms.verify_files(raw, [], files())


def test_a_hint_of_another_key():
    envelope = dsse.sign(oms.files_statement("m", files()), KEY)
    raw = key_bundle(envelope, PrivateKey.generate().public_key.oms_hint)
    with pytest.raises(PolicyError, match="none of the 1 given keys"):
        oms.verify_files(raw, [KEY.public_key], files())


def test_a_manifest_signature_is_no_file_signature():
    raw = key_bundle(dsse.sign(statement.attestation(_digest(), "https://x", {}), KEY), "")
    with pytest.raises(FormatError, match="not a signature over files"):
        oms.verify_signature(raw, [KEY.public_key])


def test_a_certificate_is_pointed_out():
    value = json.loads(oms.sign_files("m", files(), KEY))
    value["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}}
    with pytest.raises(PolicyError, match="certificate"):
        oms.verify_signature(json.dumps(value).encode(), [KEY.public_key])


def _digest():
    from modelpack.digest import Digest

    return Digest.of(b"")


def resigned(change):
    value = json.loads(oms.files_statement("m", files()))
    change(value)
    return key_bundle(dsse.sign(json.dumps(value).encode(), KEY), KEY.public_key.oms_hint)


def reorder(value):
    value["predicate"]["resources"].reverse()


BAD = {
    "subject-of-other-files": lambda v: v["subject"][0]["digest"].update(sha256="0" * 64),
    "order-changed": reorder,
    "two-subjects": lambda v: v["subject"].append(v["subject"][0]),
    "resource-dropped": lambda v: v["predicate"]["resources"].pop(),
    "path-escapes": lambda v: v["predicate"]["resources"][0].update(name="../x"),
    "path-absolute": lambda v: v["predicate"]["resources"][0].update(name="/etc/passwd"),
    "name-twice": lambda v: v["predicate"]["resources"][0].update(name="weights-2.bin"),
    "mixed-algorithms": lambda v: v["predicate"]["resources"][0].update(algorithm="sha256"),
    "digest-upper-case": lambda v: v["predicate"]["resources"][0].update(digest="A" * 64),
    "digest-short": lambda v: v["predicate"]["resources"][0].update(digest="00"),
    "shards": lambda v: v["predicate"]["serialization"].update(method="shards"),
    "blake2b": lambda v: v["predicate"]["serialization"].update(hash_type="blake2b"),
    "hash-type-list": lambda v: v["predicate"]["serialization"].update(hash_type=[]),
    "ignore-paths-text": lambda v: v["predicate"]["serialization"].update(ignore_paths="x"),
    "no-serialization": lambda v: v["predicate"].pop("serialization"),
    "resources-object": lambda v: v["predicate"].update(resources={}),
    "older-predicate": lambda v: v.update(predicateType="https://model_signing/Digests/v0.1"),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_signed_but_malformed(change):
    with pytest.raises(FormatError):
        oms.verify_signature(resigned(change), [KEY.public_key])


def test_another_payload_type():
    envelope = dsse.sign(oms.files_statement("m", files()), KEY, payload_type="text/plain")
    with pytest.raises(FormatError, match="text/plain"):
        oms.verify_signature(key_bundle(envelope, ""), [KEY.public_key])


def test_what_cannot_be_signed():
    with pytest.raises(UsageError, match="no file"):
        oms.files_statement("m", files({"model.sig": b"", ".git/x": b""}))
    with pytest.raises(UsageError, match="all be sha256 or all be blake3"):
        oms.files_statement("m", [*files(), *files({"z": b""}, "sha256")])
    with pytest.raises(UsageError):
        oms.files_statement("m", [FileDigest(name="a", algorithm="md5", digest=bytes(16))])
    with pytest.raises(FormatError):
        oms.files_statement("m", files({"../a": b""}))


NAMES = st.lists(st.sampled_from("ab-._/"), min_size=1, max_size=6).map("".join)


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(NAMES, st.binary(max_size=4), max_size=5), st.sampled_from(["blake3", "sha256"])
)
def test_whatever_is_signed_verifies_and_nothing_else(contents, algorithm):
    listed = files(contents, algorithm) if contents else []
    try:
        raw = oms.sign_files("m", listed, KEY)
    except ModelpackError:
        return
    signed = oms.verify_files(raw, [KEY.public_key], listed)
    assert not oms.compare(signed, listed)
    assert oms.compare(signed, listed[1:]) or not oms.covered(listed[0].name)
