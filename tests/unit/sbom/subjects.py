"""Models to describe in tests: one of which little is known, one of which everything is.

write_cyclonedx(subject(FACTS, supplement=FULL))
"""

import re
from pathlib import Path

from modelpack.facts import ModelFacts
from modelpack.sbom import Subject
from modelpack.sbom.supplementfile import parse_supplement
from tests.support.indexes import make_index

PAGE = Path(__file__).parents[3] / "docs/sbom.md"
# The documentation's example has every member that a supplement can have.
FULL_TEXT = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[1].encode()
FULL = parse_supplement(FULL_TEXT)
INDEX = make_index([("model.safetensors", [1000]), ("README.md", [10]), ("config.json", [20])])
FACTS = ModelFacts(
    name="tiny-facts",
    formats=("safetensors",),
    parameters=1000,
    parameters_by_dtype={"BF16": 900, "F32": 100},
    tensor_count=3,
    precision="bfloat16",
    quantization="gptq-4bit",
    architectures=("LlamaForCausalLM",),
    model_type="llama",
    hidden_size=8,
    layer_count=2,
    attention_heads=4,
    vocabulary_size=100,
    context_length=128,
    chat_template=True,
    remote_code=("AutoModel: code.Tiny",),
    licenses=("apache-2.0",),
    license_link="https://example.org/LICENSE",
    base_models=("example/base", "https://huggingface.co/example/other", "a name"),
    base_model_relation="finetune",
    datasets=("example/text", "https://data.example.org/web"),
    languages=("en", "de"),
    pipeline_tag="text-generation",
    library_name="transformers",
    tags=("demo",),
)


def subject(facts=FACTS, **members):
    """Return a subject over the small index."""
    return Subject(**{"facts": facts, "index": INDEX, **members})
