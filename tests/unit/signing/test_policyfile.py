import json
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.errors import UsageError
from modelpack.signing.keys import PrivateKey
from modelpack.signing.policyfile import MAX_POLICY_BYTES, load_yaml, parse_policy
from modelpack.signing.verify import IdentitySigner

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "schemas/policy.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PEMS = {name: PrivateKey.generate().public_key.pem for name in ("a.pub", "b.pub", "c.pub")}
DIGEST = str(Digest.of(b"manifest"))


def read_key(path):
    if path not in PEMS:
        raise UsageError(f"{path} cannot be read: No such file or directory")
    return PEMS[path]


def parse(text):
    return parse_policy(text.encode(), read_key, "policy.yaml")


SMALLEST = """
rules:
  - match: "registry.example/team/**"
    signers:
      - {key: a.pub}
      - {identity: https://github.com/o/r/.github/workflows/release.yml@refs/heads/main, issuer: https://token.actions.githubusercontent.com}
    threshold: 1
    attestations: [https://cyclonedx.org/bom]
"""


def test_the_smallest_policy():
    [rule] = parse(SMALLEST).rules
    assert rule.match == "registry.example/team/**"
    assert rule.signers[0].name == "a.pub"
    assert rule.signers[0].key.pem == PEMS["a.pub"]
    assert rule.signers[1] == IdentitySigner(
        identity="https://github.com/o/r/.github/workflows/release.yml@refs/heads/main",
        issuer="https://token.actions.githubusercontent.com",
    )
    assert rule.threshold == 1
    assert [wanted.predicate_type for wanted in rule.attestations] == ["https://cyclonedx.org/bom"]
    assert rule.formats.pickle == "allowlist"
    assert rule.freshness.rollback == "refuse"
    VALIDATOR.validate(yaml.safe_load(SMALLEST))


FULL = f"""
version: 1
trust_config: /etc/trust.json
rules:
  - match: "registry.example/prod/*:v*"
    signers: [{{key: a.pub}}, {{key: b.pub}}]
    threshold: 2
    unsigned: false
    attestations:
      - https://cyclonedx.org/bom
      - {{type: https://slsa.dev/provenance/v1, signers: [{{key: b.pub}}, {{key: c.pub}}], threshold: 2}}
    formats: {{pickle: refuse, keras_lambda: allow, unscannable: allow, remote_code: refuse}}
    require_digest: true
    digests: ["{DIGEST}"]
    annotations: {{org.opencontainers.image.title: llama}}
    freshness: {{max_age: 90d, rollback: allow}}
  - {{match: "oci:**", unsigned: true}}
  - {{match: "**", deny: no}}
"""


def test_everything_at_once():
    text = FULL.replace("deny: no", "deny: 'not here'")
    policy = parse(text)
    first = policy.rules[0]
    assert policy.trust_config == "/etc/trust.json"
    assert first.threshold == 2
    assert len(first.attestations[1].signers) == first.attestations[1].threshold == 2
    assert first.formats.pickle == "refuse"
    assert first.require_digest
    assert [str(digest) for digest in first.digests] == [DIGEST]
    assert first.annotations == {"org.opencontainers.image.title": "llama"}
    assert first.freshness.max_age == timedelta(days=90)
    assert policy.rules[1].unsigned
    assert policy.rules[2].deny == "not here"
    VALIDATOR.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1w", 604800)],
)
def test_durations(text, expected):
    policy = parse(f"rules: [{{match: a/b, unsigned: true, freshness: {{max_age: {text}}}}}]")
    assert policy.rules[0].freshness.max_age == timedelta(seconds=expected)


# What is wrong, the message, and whether the schema sees it as well. The schema cannot compare two
# members, read keys, or know patterns in full; everything else it must refuse too.
BAD = {
    "not-a-mapping": ("[]", "the file is not a mapping", True),
    "empty": ("", "the file is not a mapping", True),
    "no-rules": ("version: 1", "rules is missing", True),
    "empty-rules": ("rules: []", "rules is empty", True),
    "rules-mapping": ("rules: {}", "rules is not a list", True),
    "unknown-top": ("rules: [{match: a/b, unsigned: true}]\nrule: 1", "rule is not known", True),
    "newer-version": ("version: 2\nrules: [{match: a/b, unsigned: true}]", "version", True),
    "version-text": ("version: '1'\nrules: [{match: a/b, unsigned: true}]", "version", True),
    "trust-config": ("trust_config: 1\nrules: [{match: a/b, unsigned: true}]", "trust_conf", True),
    "rule-text": ("rules: [x]", "rules[0] is not a mapping", True),
    "no-match": ("rules: [{unsigned: true}]", "rules[0].match is missing", True),
    "match-number": ("rules: [{match: 1, unsigned: true}]", "rules[0].match is not a text", True),
    "match-digest": ("rules: [{match: 'a/b@sha256:0', unsigned: true}]", "rules[0].match", True),
    "match-stars": ("rules: [{match: 'a/b**', unsigned: true}]", "whole segment", False),
    "no-signers": ("rules: [{match: a/b}]", "rules[0] needs either signers", True),
    "empty-signers": ("rules: [{match: a/b, signers: []}]", "rules[0].signers is empty", True),
    "signers-and-unsigned": (
        "rules: [{match: a/b, unsigned: true, signers: [{key: a.pub}]}]",
        "rules[0] needs either signers",
        True,
    ),
    "unsigned-text": ("rules: [{match: a/b, unsigned: 'yes'}]", "rules[0].unsigned", True),
    "misspelt": ("rules: [{match: a/b, unsigned: true, treshold: 1}]", "rules[0].treshold", True),
    "deny-and-more": (
        "rules: [{match: a/b, deny: why, threshold: 1}]",
        "rules[0].threshold is not known beside deny",
        True,
    ),
    "deny-true": ("rules: [{match: a/b, deny: true}]", "rules[0].deny is not a text", True),
    "signer-text": ("rules: [{match: a/b, signers: [a.pub]}]", "rules[0].signers[0]", True),
    "signer-both": (
        "rules: [{match: a/b, signers: [{key: a.pub, issuer: x}]}]",
        "rules[0].signers[0].issuer is not known",
        True,
    ),
    "no-issuer": (
        "rules: [{match: a/b, signers: [{key: a.pub}, {identity: x}]}]",
        "rules[0].signers[1].issuer is missing",
        True,
    ),
    "identity-empty": (
        "rules: [{match: a/b, signers: [{identity: '', issuer: x}]}]",
        "rules[0].signers[0].identity is not a text",
        True,
    ),
    "key-missing": (
        "rules: [{match: a/b, signers: [{key: gone.pub}]}]",
        "rules[0].signers[0].key: gone.pub cannot be read",
        False,
    ),
    "key-twice": (
        "rules: [{match: a/b, signers: [{key: a.pub}, {key: a.pub}]}]",
        "rules[0].signers[1] is the same signer",
        True,
    ),
    "threshold-zero": (
        "rules: [{match: a/b, signers: [{key: a.pub}], threshold: 0}]",
        "rules[0].threshold",
        True,
    ),
    "threshold-true": (
        "rules: [{match: a/b, signers: [{key: a.pub}], threshold: true}]",
        "rules[0].threshold",
        True,
    ),
    "threshold-too-high": (
        "rules: [{match: a/b, signers: [{key: a.pub}], threshold: 2}]",
        "rules[0].threshold is 2, with 1 signers",
        False,
    ),
    "attestation-number": (
        "rules: [{match: a/b, signers: [{key: a.pub}], attestations: [1]}]",
        "rules[0].attestations[0]",
        True,
    ),
    "attestation-untyped": (
        "rules: [{match: a/b, signers: [{key: a.pub}], attestations: [{}]}]",
        "rules[0].attestations[0].type is missing",
        True,
    ),
    "attestation-by-nobody": (
        "rules: [{match: a/b, unsigned: true, attestations: [https://x]}]",
        "rules[0].attestations[0] needs signers",
        True,
    ),
    "format-unknown": (
        "rules: [{match: a/b, unsigned: true, formats: {pickles: refuse}}]",
        "rules[0].formats.pickles is not known",
        True,
    ),
    "format-value": (
        "rules: [{match: a/b, unsigned: true, formats: {pickle: true}}]",
        "rules[0].formats.pickle is not one of refuse, allowlist, allow",
        True,
    ),
    "format-list": (
        "rules: [{match: a/b, unsigned: true, formats: {pickle: [allow]}}]",
        "rules[0].formats.pickle",
        True,
    ),
    "digest-short": (
        "rules: [{match: a/b, unsigned: true, digests: ['sha256:00']}]",
        "rules[0].digests[0]",
        True,
    ),
    "digests-empty": (
        "rules: [{match: a/b, unsigned: true, digests: []}]",
        "rules[0].digests is empty",
        True,
    ),
    "annotation-number": (
        "rules: [{match: a/b, unsigned: true, annotations: {x: 1}}]",
        "rules[0].annotations.x",
        True,
    ),
    "age": (
        "rules: [{match: a/b, unsigned: true, freshness: {max_age: 90}}]",
        "rules[0].freshness.max_age",
        True,
    ),
    "age-unit": (
        "rules: [{match: a/b, unsigned: true, freshness: {max_age: 90y}}]",
        "rules[0].freshness.max_age is not a duration",
        True,
    ),
    "age-of-centuries": (
        "rules: [{match: a/b, unsigned: true, freshness: {max_age: 999999999w}}]",
        "rules[0].freshness.max_age is longer",
        False,
    ),
    "rollback": (
        "rules: [{match: a/b, unsigned: true, freshness: {rollback: deny}}]",
        "rules[0].freshness.rollback",
        True,
    ),
}


@pytest.mark.parametrize(("text", "said", "in_schema"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named_and_the_schema_agrees(text, said, in_schema):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value).startswith("policy.yaml: ")
    assert said in str(caught.value)
    assert VALIDATOR.is_valid(yaml.safe_load(text)) is not in_schema


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "rules: &r []\n<<: {}",
        "rules: []\nrules: []",
        "rules: !!python/object/apply:os.system [id]",
        "rules: !!timestamp x",
        "? [a]\n: 1",
        "1: 2",
        "a: b: c",
        "rules: []\n---\nrules: []",
        "[" * 50,
        "[" * 100_000,
        "\x00",
        "- " * 50 + "1",
    ],
    ids=lambda text: text[:30],
)
def test_yaml_that_is_not_plain_data(text):
    with pytest.raises(UsageError, match="not valid YAML"):
        parse(text)


def test_an_oversize_file():
    with pytest.raises(UsageError, match="larger than"):
        load_yaml(b" " * (MAX_POLICY_BYTES + 1), "policy.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "examples/policies").glob("*.yaml")), ids=str)
def test_the_examples_are_policies(path):
    made = {}

    def make_key(name):
        return made.setdefault(name, PrivateKey.generate().public_key.pem)

    assert parse_policy(path.read_bytes(), make_key, str(path)).rules
    VALIDATOR.validate(yaml.safe_load(path.read_bytes()))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(sorted(PEMS)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("match", "signers", "threshold", "unsigned", "deny", "attestations", "key"),
                    *("formats", "pickle", "identity", "issuer", "type", "freshness", "max_age"),
                    *("digests", "annotations", "require_digest", "rollback"),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, max_size=3))
def test_any_value_gives_a_policy_or_an_error_of_ours_and_the_schema_takes_every_policy(rules):
    value = {"rules": rules}
    try:
        parse(json.dumps(value))
    except UsageError:
        return
    VALIDATOR.validate(value)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.text("[]{}:,-?&*!|>'\"%#ab\n ", max_size=40))
def test_any_text_gives_a_policy_or_an_error_of_ours(text):
    try:
        parse(text)
    except UsageError:
        return
