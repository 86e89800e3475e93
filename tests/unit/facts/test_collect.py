import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.facts import ModelFacts, collect_facts
from modelpack.facts.collect import MAX_DOCUMENT_BYTES
from modelpack.tensors import bytes_reader, probe
from tests.support import tensorfiles as raw
from tests.support.tensorfiles import gguf_file, gguf_pair, safetensors_file


class Stored:
    """A file in memory that notes what is read of it."""

    def __init__(self, data):
        self.data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.size = len(self.data)
        self.asked = []

    def read(self, offset, length):
        self.asked.append((offset, length))
        return self.data[offset : offset + length]


def collect(files, tensor_files=None):
    return collect_facts({path: Stored(data) for path, data in files.items()}, tensor_files)


def weights(*tensors):
    return safetensors_file(
        [(name, dtype, (length,), bytes(length * width)) for name, dtype, width, length in tensors]
    )


CARD = b"""---
license: apache-2.0
base_model: example/base-7b
base_model_relation: finetune
datasets: [example/data, "other/data"]
language:
- en
- no
pipeline_tag: text-generation
library_name: transformers
tags:
- chat
---
# A model
"""

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


def test_a_language_model():
    facts = collect(
        {
            "README.md": CARD,
            "config.json": LLAMA,
            "tokenizer_config.json": {"chat_template": "{{ messages }}"},
            "model-00001-of-00002.safetensors": weights(("a", "BF16", 2, 10), ("b", "F32", 4, 3)),
            "model-00002-of-00002.safetensors": weights(("c", "BF16", 2, 5)),
        }
    )
    assert facts == ModelFacts(
        formats=("safetensors",),
        parameters=18,
        parameters_by_dtype={"BF16": 15, "F32": 3},
        tensor_count=3,
        precision="bfloat16",
        architectures=("LlamaForCausalLM",),
        model_type="llama",
        hidden_size=64,
        layer_count=2,
        attention_heads=4,
        vocabulary_size=1000,
        context_length=2048,
        chat_template=True,
        licenses=("apache-2.0",),
        base_models=("example/base-7b",),
        base_model_relation="finetune",
        datasets=("example/data", "other/data"),
        languages=("en", "no"),
        pipeline_tag="text-generation",
        library_name="transformers",
        tags=("chat",),
    )


GGUF_PAIRS = [
    gguf_pair("general.architecture", raw.STRING, "llama"),
    gguf_pair("general.name", raw.STRING, "Tiny"),
    gguf_pair("general.license", raw.STRING, "mit"),
    gguf_pair("general.languages", raw.ARRAY, (raw.STRING, ["en"])),
    gguf_pair("general.base_model.count", raw.U32, 1),
    gguf_pair("general.base_model.0.name", raw.STRING, "Base"),
    gguf_pair("general.base_model.0.repo_url", raw.STRING, "https://models.example/base"),
    gguf_pair("general.file_type", raw.U32, 15),
    gguf_pair("llama.context_length", raw.U32, 4096),
    gguf_pair("llama.embedding_length", raw.U32, 256),
    gguf_pair("llama.block_count", raw.U32, 1),
    gguf_pair("llama.attention.head_count", raw.U32, 8),
    gguf_pair("tokenizer.chat_template", raw.STRING, "{{ messages }}"),
]


def a_gguf(*pairs, name="x", kind=12, length=144):
    return gguf_file([(name, (256,), kind, bytes(length))], pairs)


def test_a_gguf_model_of_one_file():
    assert collect({"tiny.gguf": a_gguf(*GGUF_PAIRS)}) == ModelFacts(
        name="Tiny",
        formats=("gguf",),
        parameters=256,
        parameters_by_dtype={"Q4_K": 256},
        tensor_count=1,
        quantization="Q4_K_M",
        model_type="llama",
        hidden_size=256,
        layer_count=1,
        attention_heads=8,
        context_length=4096,
        chat_template=True,
        licenses=("mit",),
        base_models=("https://models.example/base",),
        languages=("en",),
    )


@pytest.mark.parametrize(
    ("name", "pairs", "kind", "length", "expected"),
    [
        ("m-Q8_0.gguf", [gguf_pair("general.file_type", raw.U32, 7)], 12, 144, "Q8_0"),
        ("m-q4_k_s.gguf", [], 12, 144, "Q4_K_S"),
        ("m.IQ2_XXS.gguf", [gguf_pair("general.file_type", raw.U32, 1024)], 12, 144, "IQ2_XXS"),
        ("m.gguf", [], 12, 144, "Q4_K"),
        ("m-Q4_K_MORE.gguf", [], 12, 144, "Q4_K"),
        ("m.gguf", [gguf_pair("general.file_type", raw.U32, 1)], 1, 512, None),
        ("m-BF16.gguf", [], 30, 512, None),
        ("m.gguf", [gguf_pair("general.file_type", raw.STRING, "7")], 0, 1024, None),
    ],
)
def test_the_quantization_of_a_gguf_file(name, pairs, kind, length, expected):
    assert collect({name: a_gguf(*pairs, kind=kind, length=length)}).quantization == expected


def one(name):
    return weights((name, "U8", 1, 1))


@pytest.mark.parametrize(
    ("files", "parameters", "left_out"),
    [
        ({"model.safetensors": one("a"), "2_Dense/model.safetensors": one("a")}, 2, []),
        ({"unet/w.safetensors": one("a"), "vae/w.safetensors": one("b")}, 2, []),
        ({"model.safetensors": one("a"), "adapter_model.safetensors": one("b")}, 2, []),
        (
            {"model.safetensors": one("a"), "model.fp16.safetensors": one("a")},
            1,
            ["model.fp16.safetensors"],
        ),
        (
            {"a.safetensors": one("a"), "model.safetensors": one("a")},
            1,
            ["a.safetensors"],
        ),
        (
            {"model-00001-of-00001.safetensors": one("a"), "consolidated.safetensors": one("b")},
            1,
            ["consolidated.safetensors"],
        ),
        ({"consolidated.safetensors": one("b")}, 1, []),
        (
            {"model.safetensors": one("a"), "original/model.safetensors": one("b")},
            1,
            ["original/model.safetensors"],
        ),
        ({"original/model.safetensors": one("b")}, 1, []),
        ({"original/a/w.safetensors": one("b"), "original/b/w.safetensors": one("b")}, 2, []),
        ({"model.safetensors": one("a"), "model.gguf": a_gguf()}, 1, ["model.gguf"]),
        ({"m-Q4.gguf": a_gguf(), "m-Q8.gguf": a_gguf()}, 256, ["m-Q8.gguf"]),
        ({"m.gguf": a_gguf(), "mmproj.gguf": a_gguf(name="v")}, 512, []),
    ],
)
def test_each_weight_is_counted_once(files, parameters, left_out):
    facts = collect(files)
    assert facts.parameters == parameters
    assert [warning.split(":")[0] for warning in facts.warnings] == [repr(p) for p in left_out]


@pytest.mark.parametrize(
    ("settings_", "expected"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq-4bit"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes-4bit"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes-8bit"),
        ({"bits": 4}, None),
        ("gptq", None),
        ({"quant_method": ["gptq"]}, None),
    ],
    ids=str,
)
def test_the_quantization_in_the_configuration(settings_, expected):
    assert collect({"config.json": {"quantization_config": settings_}}).quantization == expected


def test_the_language_model_inside_a_model_of_several_modalities():
    facts = collect({"config.json": {"model_type": "llava", "text_config": LLAMA}})
    assert (facts.model_type, facts.hidden_size, facts.precision) == ("llava", 64, "bfloat16")


def test_a_diffusion_pipeline():
    facts = collect({"model_index.json": {"_class_name": "FluxPipeline"}})
    assert (facts.architectures, facts.library_name) == (("FluxPipeline",), "diffusers")


@pytest.mark.parametrize(
    ("path", "document", "expected"),
    [
        (
            "config.json",
            {"auto_map": {"AutoModel": "modeling_x.Model", "AutoConfig": "config_x.Config"}},
            ("AutoConfig: config_x.Config", "AutoModel: modeling_x.Model"),
        ),
        (
            "tokenizer_config.json",
            {"auto_map": {"AutoTokenizer": ["slow.T", None]}},
            ("AutoTokenizer: slow.T",),
        ),
        ("tokenizer_config.json", {"auto_map": ["slow.T", "fast.T"]}, ("AutoTokenizer: fast.T", "AutoTokenizer: slow.T")),
        ("preprocessor_config.json", {"auto_map": {"AutoProcessor": "p.P"}}, ("AutoProcessor: p.P",)),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "p.P"}}, ("AutoProcessor: p.P",)),
        (
            "config.json",
            {"custom_pipelines": {"task": {"impl": "pipe.P", "pt": []}}},
            ("task: pipe.P",),
        ),
        ("model_index.json", {"_class_name": ["pipeline", "P"]}, ("Pipeline: P", "Pipeline: pipeline")),
        # Odd entries are shown, escaped: they must not hide that there is code.
        ("config.json", {"auto_map": {"Auto\x1b[2KModel": "m.M"}}, (r"'Auto\x1b[2KModel: m.M'",)),
        ("config.json", {"auto_map": {"AutoModel": {"a": 1}}}, ("AutoModel: {'a': 1}",)),
        ("config.json", {"auto_map": {}}, ()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_code_shipped_with_the_model_is_reported(path, document, expected):
    assert collect({path: document}).remote_code == expected


def test_code_of_several_files_adds_up():
    facts = collect(
        {
            "config.json": {"auto_map": {"AutoModel": "m.M"}},
            "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["t.T", None]}},
        }
    )
    assert facts.remote_code == ("AutoModel: m.M", "AutoTokenizer: t.T")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"tokenizer_config.json": {}}, False),
        ({"tokenizer_config.json": {"chat_template": ""}}, False),
        ({"tokenizer_config.json": {"chat_template": "{{ x }}"}}, True),
        ({"tokenizer_config.json": {"chat_template": [{"name": "default"}]}}, True),
        ({"tokenizer_config.json": {}, "chat_template.jinja": b"{{ x }}"}, True),
        ({"tokenizer_config.json": {}, "chat_template.json": {"chat_template": "x"}}, True),
        ({"m.gguf": a_gguf()}, None),
    ],
    ids=str,
)
def test_the_chat_template(files, expected):
    assert collect(files).chat_template is expected


def test_the_card_counts_before_the_weights():
    facts = collect({"README.md": CARD, "m.gguf": a_gguf(*GGUF_PAIRS)})
    assert facts.licenses == ("apache-2.0",)
    assert facts.name == "Tiny"


def test_an_empty_model():
    assert collect({}) == ModelFacts()
    assert ModelFacts().to_json() == {"version": 1}


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("config.json", b"{", "not valid JSON"),
        ("config.json", b"\xff\xfe", "not valid JSON"),
        ("config.json", b"[" * 100_000, "not valid JSON"),
        ("config.json", b'{"a":' * 100_000, "not valid JSON"),
        ("config.json", b'{"vocab_size":' + b"9" * 5_000 + b"}", "not valid JSON"),
        ("config.json", b"[]", "not a JSON object"),
        ("config.json", b" " * (MAX_DOCUMENT_BYTES + 1), "is over"),
        ("tokenizer_config.json", b"null", "not a JSON object"),
        ("README.md", b"---\nlicense: [\n---\n", "not valid YAML"),
        ("a.safetensors", b"nothing like it", "too short|over the limit"),
        ("a.gguf", b"GGUF", "too short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_left_out_with_a_warning(path, data, reason):
    facts = collect({path: data, "processor_config.json": {"auto_map": {"A": "b.C"}}})
    assert facts.remote_code == ("A: b.C",)  # the other files still count
    assert len(facts.warnings) == 1
    assert path in facts.warnings[0]
    assert re.search(reason, facts.warnings[0])


def test_odd_values_are_left_out():
    facts = collect(
        {
            "config.json": {
                "model_type": "x" * 2_000,
                "architectures": ["Good", "Bad\x1b[31m", 7, None, "Good"],
                "hidden_size": -1,
                "num_hidden_layers": True,
                "vocab_size": 2**70,
                "max_position_embeddings": 1.5,
                "torch_dtype": "float16\nforged: line",
            }
        }
    )
    assert facts == ModelFacts(architectures=("Good",))


def test_headers_that_are_parsed_already_are_not_read_again():
    data = one("a")
    content = Stored(data)
    parsed = probe("model.safetensors", bytes_reader(data), len(data))
    facts = collect_facts({"model.safetensors": content}, {"model.safetensors": parsed})
    assert facts.parameters == 1
    assert content.asked == []


def test_only_what_is_needed_is_read():
    card = Stored(CARD + b"x" * 5_000_000)
    other = Stored(b"x" * 1000)
    facts = collect_facts({"README.md": card, "pytorch_model.bin": other, "docs/README.md": other})
    assert facts.licenses == ("apache-2.0",)
    assert card.asked == [(0, 512 * 1024)]
    assert other.asked == []


def test_errors_of_the_reads_pass_through():
    class Broken:
        size = 10

        def read(self, offset, length):
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        collect_facts({"config.json": Broken()})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
members = st.sampled_from(
    ["architectures", "model_type", "torch_dtype", "quantization_config", "text_config", "auto_map",
     "custom_pipelines", "hidden_size", "chat_template", "_class_name", "vocab_size"]
)  # fmt: skip
documents = st.sampled_from(
    ["config.json", "model_index.json", "tokenizer_config.json", "processor_config.json"]
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(documents, st.dictionaries(members, json_values, max_size=6), min_size=1))
def test_any_documents_give_facts_that_survive_json(files):
    facts = collect(files)
    assert ModelFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(documents | st.sampled_from(["README.md", "a.gguf"]), st.binary(max_size=60))
)
def test_any_bytes_give_facts_that_survive_json(files):
    facts = collect(files)
    assert ModelFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
