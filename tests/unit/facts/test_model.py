import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import FormatError
from modelpack.facts import ModelFacts
from modelpack.facts.model import MAX_ITEMS, MAX_TEXT_CHARACTERS, MAX_WARNINGS, clean_texts

FULL = ModelFacts(
    name="Tiny",
    formats=("safetensors",),
    parameters=3,
    parameters_by_dtype={"F32": 1, "BF16": 2},
    tensor_count=2,
    precision="bfloat16",
    quantization="gptq-4bit",
    architectures=("A",),
    model_type="llama",
    hidden_size=1,
    layer_count=2,
    attention_heads=3,
    vocabulary_size=4,
    context_length=5,
    chat_template=False,
    remote_code=("AutoModel: m.M",),
    licenses=("mit",),
    license_name="MIT",
    license_link="LICENSE",
    base_models=("b",),
    base_model_relation="adapter",
    datasets=("d",),
    languages=("en",),
    pipeline_tag="text-generation",
    library_name="transformers",
    tags=("t",),
    warnings=("w",),
)


def test_json_keeps_every_fact_in_a_fixed_order():
    text = json.dumps(FULL.to_json())
    assert ModelFacts.from_json(json.loads(text)) == FULL
    assert list(FULL.to_json())[:5] == [
        "version",
        "name",
        "formats",
        "parameters",
        "parameters_by_dtype",
    ]
    assert list(FULL.to_json()["parameters_by_dtype"]) == ["BF16", "F32"]


def test_unknown_facts_are_not_written_but_no_and_zero_are():
    facts = ModelFacts(parameters=0, tensor_count=0, chat_template=False)
    assert facts.to_json() == {
        "version": 1,
        "parameters": 0,
        "tensor_count": 0,
        "chat_template": False,
    }


def test_or_else_prefers_what_is_known():
    one = ModelFacts(name="one", licenses=("mit",), chat_template=False, warnings=("w1",))
    two = ModelFacts(name="two", tags=("t",), chat_template=True, warnings=("w2",))
    assert one.or_else(two) == ModelFacts(
        name="one", licenses=("mit",), tags=("t",), chat_template=False, warnings=("w1", "w2")
    )


def test_warnings_are_capped():
    many = ModelFacts(warnings=("w",) * 40)
    assert len(many.or_else(many).warnings) == MAX_WARNINGS


def test_members_of_a_later_minor_form_are_ignored():
    assert ModelFacts.from_json({"version": 1, "new": {}}) == ModelFacts()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"version": 2},
        {"version": "1"},
        {"version": True},
        {"version": 1, "name": 1},
        {"version": 1, "name": ""},
        {"version": 1, "name": "a\nb"},
        {"version": 1, "name": "a" * (MAX_TEXT_CHARACTERS + 1)},
        {"version": 1, "name": None},
        {"version": 1, "tags": "a"},
        {"version": 1, "tags": ["a", 1]},
        {"version": 1, "tags": [None]},
        {"version": 1, "tags": ["\x1b[31m"]},
        {"version": 1, "tags": ["a"] * (MAX_ITEMS + 1)},
        {"version": 1, "parameters": -1},
        {"version": 1, "parameters": True},
        {"version": 1, "parameters": 2**63},
        {"version": 1, "parameters": 1.0},
        {"version": 1, "parameters_by_dtype": []},
        {"version": 1, "parameters_by_dtype": {"F32": "1"}},
        {"version": 1, "parameters_by_dtype": {"": 1}},
        {"version": 1, "chat_template": 1},
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_json_is_refused(value):
    with pytest.raises(FormatError, match=r"^model facts "):
        ModelFacts.from_json(value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (None, ()),
        ("a", ("a",)),
        (" a ", ("a",)),
        ([], ()),
        (["b", "a", "b"], ("b", "a")),
        (["", " ", "\u202e", "a\tb", "ok"], ("ok",)),
        (7, ()),
        ({"a": "b"}, ("a",)),
    ],
    ids=str,
)
def test_clean_texts(values, expected):
    assert clean_texts(values) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(list(FULL.to_json())),
        st.none() | st.integers() | st.text() | st.lists(st.text() | st.integers()) | st.booleans(),
    )
)
def test_any_json_gives_facts_or_the_error(value):
    try:
        facts = ModelFacts.from_json({"version": 1} | value)
    except FormatError:
        return
    assert ModelFacts.from_json(facts.to_json()) == facts
