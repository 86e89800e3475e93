"""Whatever a model's files say, its SBOM is valid."""

from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.facts import ModelFacts
from modelpack.facts.model import MAX_NUMBER, MAX_TEXT_CHARACTERS
from modelpack.sbom import Subject, write_cyclonedx
from modelpack.sbom.spdx import write_spdx
from tests.support.indexes import indexes
from tests.unit.sbom.subjects import FULL
from tests.unit.sbom.validators import check_cyclonedx, check_spdx, read_spdx

# Beyond what reading facts lets through: control characters, and texts over the bound.
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *(
                "apache-2.0",
                "other",
                "unknown",
                "MIT OR (",
                "llama3.1",
                "org/model",
                "../x",
                "a/b/c",
            ),
            *("https://huggingface.co/a/b", "https://[", "https://a b", "LICENSE", "x:y", "pkg:"),
            *(
                "text-generation",
                "\x00",
                "\x1b[31m",
                "\u202e",
                '"',
                "\\",
                "</script>",
                "NOASSERTION",
            ),
            *("urn:cdx:", "_:b", "é" * 1100, "x" * MAX_TEXT_CHARACTERS),
        ]
    ),
)
NUMBERS = st.none() | st.integers(0, MAX_NUMBER)
LISTS = st.lists(TEXTS, max_size=4).map(tuple)
FACTS = st.builds(
    ModelFacts,
    **dict.fromkeys(
        (
            *("name", "precision", "quantization", "model_type", "license_name", "license_link"),
            *("base_model_relation", "pipeline_tag", "library_name"),
        ),
        st.none() | TEXTS,
    ),
    **dict.fromkeys(
        (
            *("formats", "architectures", "remote_code", "licenses", "base_models", "datasets"),
            *("languages", "tags", "warnings"),
        ),
        LISTS,
    ),
    **dict.fromkeys(
        (
            *("parameters", "tensor_count", "hidden_size", "layer_count", "attention_heads"),
            *("vocabulary_size", "context_length"),
        ),
        NUMBERS,
    ),
    parameters_by_dtype=st.dictionaries(TEXTS, st.integers(0, MAX_NUMBER), max_size=3),
    chat_template=st.none() | st.booleans(),
)
SUBJECTS = st.builds(
    Subject,
    facts=FACTS,
    index=indexes(),
    supplement=st.sampled_from(
        [Subject.__dataclass_fields__["supplement"].default_factory(), FULL]
    ),
)
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)


@settings(max_examples=30, suppress_health_check=SLOW, deadline=None)
@given(SUBJECTS)
def test_cyclonedx_is_valid(subject):
    document = check_cyclonedx(write_cyclonedx(subject))
    assert len(document["components"]) >= len(subject.index.files)


@settings(max_examples=30, suppress_health_check=SLOW, deadline=None)
@given(SUBJECTS)
def test_spdx_fits_the_model(subject):
    read_spdx(write_spdx(subject, created=datetime(2026, 1, 1, tzinfo=UTC)))


@settings(max_examples=3, suppress_health_check=SLOW, deadline=None)
@given(SUBJECTS)
def test_spdx_fits_the_schema(subject):
    check_spdx(write_spdx(subject, created=datetime(2026, 1, 1, tzinfo=UTC)))
