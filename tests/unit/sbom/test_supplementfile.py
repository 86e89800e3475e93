import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import UsageError
from modelpack.sbom.elements import ELEMENTS
from modelpack.sbom.supplement import Energy, Party, Supplement
from modelpack.sbom.supplementfile import MAX_ITEMS, MAX_LINE, MAX_TEXT, parse_supplement
from tests.unit.sbom.subjects import FULL, FULL_TEXT

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "schemas/sbom-supplement.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def parse(text):
    return parse_supplement(text.encode(), "s.yaml")


def plain(value):
    """Return parsed YAML as JSON has it: dates as texts."""
    return json.loads(json.dumps(value, default=lambda each: each.isoformat()))


def test_the_documentations_example_holds_everything():
    assert FULL.author == Party(name="Example Security", email="sbom@example.org")
    assert FULL.model.released == datetime(2026, 1, 31, tzinfo=UTC)
    assert FULL.training.energy == (Energy(activity="training", kwh=12.5, co2_tonnes=0.004),)
    assert FULL.training.hyperparameters == {
        "learning_rate": "0.0003",
        "batch_size": "64",
        "optimizer": "adamw",
    }
    assert FULL.datasets[0].sensitive == ()
    assert FULL.metrics[0].value == "0.91"
    assert FULL.security.vulnerabilities == ()
    empty = [
        name
        for part in (FULL, FULL.model, FULL.training, FULL.datasets[0], FULL.system, FULL.security)
        for name in part.__dataclass_fields__
        if getattr(part, name) is None
    ]
    assert empty == []


def test_the_schema_takes_the_example():
    VALIDATOR.check_schema(SCHEMA)
    VALIDATOR.validate(plain(yaml.safe_load(FULL_TEXT)))


def test_the_schema_names_every_element():
    assert SCHEMA["properties"]["unknown"]["items"]["enum"] == [each.id for each in ELEMENTS]


def test_an_empty_mapping_adds_nothing():
    assert parse("{}") == Supplement()
    assert parse("version: 1") == Supplement()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml: the file is not a mapping"),
        ("[]", "s.yaml: the file is not a mapping"),
        ("version: 2", "s.yaml: version is not 1; a newer modelpack may read it"),
        ("version: true", "s.yaml: version is not 1"),
        ("colour: blue", "s.yaml: colour is not known"),
        ("model: []", "s.yaml: model is not a mapping"),
        ("model: {colour: blue}", "s.yaml: model.colour is not known"),
        ("model: {version: 1.2}", "s.yaml: model.version is not a text; put it in quotes"),
        ("model: {version: ''}", "s.yaml: model.version is not a text of 1 to 1024 characters"),
        ("model: {version: ' '}", "s.yaml: model.version is not a text of 1 to"),
        ('model: {version: "a\\nb"}', "s.yaml: model.version holds invisible characters or line"),
        ('model: {description: "a\\x07"}', "s.yaml: model.description holds invisible characters"),
        ('model: {description: "\\ud800"}', "s.yaml"),
        ("model: {released: yesterday}", "s.yaml: model.released is not a date, or a time in UTC"),
        ("model: {released: '2026-02-30'}", "s.yaml: model.released is not a date"),
        ("model: {released: '2026-01-01T25:00:00Z'}", "s.yaml: model.released is not a date"),
        ("model: {released: 1969-12-31}", "s.yaml: model.released lies before 1970"),
        ("model: {released: 0001-01-01T00:00:00+02:00}", "s.yaml: model.released is not a date"),
        ("model: {released: 5}", "s.yaml: model.released is not a date"),
        ("model: {purl: org/model}", "s.yaml: model.purl is not a package URL such as"),
        ("model: {licenses: MIT}", "s.yaml: model.licenses is not a list"),
        ("model: {licenses: [1]}", "s.yaml: model.licenses[0] is not a text"),
        ("model: {producer: Me}", "s.yaml: model.producer is not a mapping"),
        ("model: {producer: {}}", "s.yaml: model.producer.name is missing"),
        ("model: {producer: {name: A, email: a}}", "model.producer.email is not an e-mail address"),
        ("model: {producer: {name: A, url: LICENSE}}", "model.producer.url is not a URL"),
        ("model: {producer: {name: A, person: 1}}", "model.producer.person is neither true nor"),
        ("model: {links: [{type: blog, url: 'https://a'}]}", "model.links[0].type is not one of vcs,"),
        ("model: {links: [{type: vcs}]}", "s.yaml: model.links[0].url is missing"),
        ("model: {risks: [{mitigation: x}]}", "s.yaml: model.risks[0].name is missing"),
        ("training: {approach: magic}", "s.yaml: training.approach is not one of supervised,"),
        ("training: {approach: [magic]}", "s.yaml: training.approach is not one of supervised,"),
        ("training: {hyperparameters: []}", "s.yaml: training.hyperparameters is not a mapping"),
        ("training: {hyperparameters: {a: []}}", "s.yaml: training.hyperparameters.a is not a text"),
        ("training: {energy: [{activity: training}]}", "s.yaml: training.energy[0].kwh is missing"),
        (
            "training: {energy: [{activity: training, kwh: -1}]}",
            "s.yaml: training.energy[0].kwh is not a number from 0 to 10^15",
        ),
        ("training: {energy: [{activity: training, kwh: .nan}]}", "energy[0].kwh is not a number from"),
        ("training: {energy: [{activity: training, kwh: .inf}]}", "energy[0].kwh is not a number from"),
        ("training: {energy: [{activity: training, kwh: true}]}", "energy[0].kwh is not a number"),
        (
            f"training: {{energy: [{{activity: training, kwh: 1{'0' * 400}}}]}}",
            "energy[0].kwh is not a number from",
        ),
        ("datasets: [{}]", "s.yaml: datasets[0].name is missing"),
        ("datasets: [{name: a}, {name: b, licence: x}]", "s.yaml: datasets[1].licence is not known"),
        ("datasets: [{name: a, sha256: A}]", "datasets[0].sha256 is not 64 lower-case hexadecimal"),
        ("metrics: [{name: a}]", "s.yaml: metrics[0].value is missing"),
        ("metrics: [{name: a, value: 1, kind: x}]", "metrics[0].kind is not one of operational, se"),
        ("system: {version: '1'}", "s.yaml: system.name is missing"),
        ("security: {contact: me}", "s.yaml: security.contact is not a URL"),
        ("security: {vulnerabilities: [{}]}", "s.yaml: security.vulnerabilities[0].id is missing"),
        ("unknown: [everything]", "s.yaml: unknown[0] is not one of sbom-author,"),
        (f"unknown: [{', '.join(['model-name'] * (MAX_ITEMS + 1))}]", "unknown has more than 256"),
        ("model: {name: a, name: b}", "s.yaml is not valid YAML: a key occurs twice"),
        ("a: &x [1]\nb: *x", "s.yaml is not valid YAML: aliases are not accepted"),
        ("model: {name: !!python/name:os.system x}", "s.yaml is not valid YAML: tags are not accepted"),
        ("model: {", "s.yaml is not valid YAML"),
        ("---\n{}\n---\n{}", "s.yaml is not valid YAML"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_path(text, message):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", "2026-01-31T00:00:00"),
        ("'2026-01-31'", "2026-01-31T00:00:00"),
        ("2026-01-31T12:30:00Z", "2026-01-31T12:30:00"),
        ("'2026-01-31T12:30:00Z'", "2026-01-31T12:30:00"),
        ("2026-01-31T12:30:00+02:00", "2026-01-31T10:30:00"),
        ("2026-01-31 12:30:00", "2026-01-31T12:30:00"),
    ],
)
def test_times(text, moment):
    found = parse(f"model: {{released: {text}}}").model.released
    assert found == datetime.fromisoformat(moment + "+00:00")


def test_bounds():
    assert len(parse(f"model: {{name: {'x' * MAX_LINE}}}").model.name) == MAX_LINE
    with pytest.raises(UsageError, match=r"model\.name"):
        parse(f"model: {{name: {'x' * (MAX_LINE + 1)}}}")
    with pytest.raises(UsageError, match=r"model\.description"):
        parse(f"model: {{description: {'x' * (MAX_TEXT + 1)}}}")
    with pytest.raises(UsageError, match="larger than"):
        parse("#" * (1024 * 1024 + 1))


def test_several_lines_are_allowed_where_prose_is():
    found = parse("model:\n  description: |\n    a\n    b\n")
    assert found.model.description == "a\nb"


NAMES = sorted(
    {
        "version",
        *SCHEMA["properties"],
        *(name for each in SCHEMA["properties"].values() for name in each.get("properties", {})),
        *("url", "type", "kwh", "activity", "value", "id", "sha256"),
    }
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 10**16),
        st.floats(),
        st.text(max_size=8),
        st.dates(),
        st.sampled_from(
            ["https://example.org", "training", "1.2", "a\nb", "pkg:a/b", "2026-01-01"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_anything_is_a_supplement_or_a_mistake(value):
    text = yaml.safe_dump(value, allow_unicode=True)
    try:
        found = parse(text)
    except UsageError:
        return
    assert isinstance(found, Supplement)
    # What the program takes, the schema takes: but for numbers that JSON does not have.
    if ".nan" not in text and ".inf" not in text:
        VALIDATOR.validate(plain(yaml.safe_load(text)))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_supplement_or_a_mistake(raw):
    try:
        parse_supplement(raw)
    except UsageError as error:
        assert str(error).startswith("supplement")  # noqa: PT017
