import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.unsafe.configs import judge_config, keras_reasons


def judged(value):
    return judge_config("config.json", json.dumps(value).encode())


def layer(name="Dense", module="keras.layers", **config):
    return {"class_name": name, "module": module, "config": config, "registered_name": None}


def network(*layers):
    return layer("Sequential", "keras", layers=list(layers))


HARMLESS = {
    "layers": network(layer(), layer("ReLU")),
    "initializer": network(layer(kernel=layer("GlorotUniform", "keras.initializers"))),
    "source-module": layer("Functional", "keras.src.models.functional"),
    "tf-keras": layer("Dense", "tensorflow.keras.layers"),
    "activation-by-name": layer("function", "builtins"),
    "no-module": layer(module=None),
    "dtype-policy": layer("DTypePolicy", "keras"),
    "no-keras-at-all": {"architectures": ["LlamaForCausalLM"], "hidden_size": 4096},
}


@pytest.mark.parametrize("value", HARMLESS.values(), ids=HARMLESS)
def test_plain_architectures(value):
    assert judged(value) == ()


UNSAFE = {
    "lambda": (network(layer("Lambda")), "Lambda layer"),
    "lambda-function": (network(layer(function=layer("__lambda__", "builtins"))), "Lambda layer"),
    "lambda-without-module": ({"config": [{"class_name": "Lambda"}]}, "Lambda layer"),
    "module-of-python": (layer("function", "os"), "'os', class 'function'"),
    "class-of-builtins": (layer("exec", "builtins"), "'builtins', class 'exec'"),
    "subprocess": (network(layer("Popen", "subprocess")), "'subprocess'"),
    "keras-utility": (layer("function", "keras.utils"), "'keras.utils'"),
    "keras-loader": (layer("function", "keras.src.saving.saving_lib"), "saving_lib"),
    "keras-lookalike": (layer("Dense", "keras_evil.layers"), "'keras_evil.layers'"),
    "keras-legacy": (layer("Dense", "keras.src.legacy.saving"), "legacy"),
    "module-of-another-kind": (layer("Dense", ["keras.layers"]), "Dense"),
    "deep": ({"a": [{"b": [network(network(layer("Lambda")))]}]}, "Lambda layer"),
}


@pytest.mark.parametrize(("value", "said"), UNSAFE.values(), ids=UNSAFE)
def test_architectures_that_run_code(value, said):
    [finding] = judged(value)
    assert (finding.kind, finding.danger) == ("keras", "unsafe")
    assert said in finding.detail


def test_a_repeated_key_hides_nothing():
    for raw in (
        b'{"class_name": "Dense", "class_name": "Lambda"}',
        b'{"class_name": "Lambda", "class_name": "Dense"}',
    ):
        [finding] = judge_config("config.json", raw)
        assert finding.danger == "unsafe"


def test_remote_code_and_templates_are_reported():
    value = {"auto_map": {"AutoModel": "modeling.Net"}, "chat_template": "{{ x }}"}
    assert [(finding.kind, finding.danger) for finding in judged(value)] == [
        ("remote-code", "note"),
        ("chat-template", "note"),
    ]
    nested = {"text_config": {"auto_map": {}}}
    assert [finding.kind for finding in judged(nested)] == ["remote-code"]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[1, 2]", b"\xff", b"nul", b"[" * 100_000, b'"auto_map"'], ids=repr
)
def test_other_files_say_nothing(raw):
    assert judge_config("x.json", raw) == ()


def test_reasons_are_bounded():
    many = network(*(layer("X", f"evil{number}") for number in range(1000)))
    assert len(keras_reasons(many)) == 8


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.text(max_size=5) | st.sampled_from(["Lambda", "keras.layers", "os"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["class_name", "module", "config", "x"]), inner)
        ),
        max_leaves=12,
    )
)
def test_a_lambda_anywhere_is_found(value):
    found = [finding for finding in judged({"config": value}) if "bytecode" in finding.detail]
    assert bool(found) == ('"class_name": "Lambda"' in json.dumps(value))
