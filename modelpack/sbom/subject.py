"""What an SBOM is written from: facts, files and what people added, joined before any format.

Owns which source counts for which fact, and the bounds on how much is listed. Leaves out how a
format says it (``cyclonedx.py``, ``spdx.py``) and where the sources are (``sources.py``).

    subject = Subject(facts=facts, index=index, supplement=Supplement())
    subject.name, subject.licenses, [dataset.name for dataset in subject.datasets]
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from modelpack.chunkindex import ChunkIndex
from modelpack.facts import ModelFacts
from modelpack.sbom.licenses import License, licenses_of, says_unknown
from modelpack.sbom.supplement import Dataset, Software, Supplement

GENERATOR = "modelpack-sbom"
GENERATOR_VERSION = "1"
"""The version of what this package writes. It changes when the same model would get another
document, and only then: the document is part of the artifact, whose digest must not change because
another release of modelpack pushed it (docs/adr/0010-sbom-in-band.md)."""

MAX_LISTED_FILES = 100_000
"""More files than any real model has; validators and viewers need some 1 KiB of memory for each."""

MAX_LISTED_FACTS = 256
"""Of one list of facts, such as datasets: real ones are shorter, and the document stays bounded."""

NO_ASSERTION = "NOASSERTION"
"""What both formats call a required text that nobody stated."""

# What goes in and out, by the definition of the tasks (Hugging Face's pipeline tags). Tasks whose
# modalities depend on the model (any-to-any, feature-extraction) are not here.
_MODALITIES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text-generation": (("text",), ("text",)),
    "text2text-generation": (("text",), ("text",)),
    "translation": (("text",), ("text",)),
    "summarization": (("text",), ("text",)),
    "question-answering": (("text",), ("text",)),
    "fill-mask": (("text",), ("text",)),
    "text-classification": (("text",), ("label",)),
    "token-classification": (("text",), ("label",)),
    "zero-shot-classification": (("text",), ("label",)),
    "text-ranking": (("text",), ("score",)),
    "sentence-similarity": (("text",), ("embedding",)),
    "text-to-image": (("text",), ("image",)),
    "text-to-video": (("text",), ("video",)),
    "text-to-audio": (("text",), ("audio",)),
    "text-to-speech": (("text",), ("audio",)),
    "image-to-text": (("image",), ("text",)),
    "image-text-to-text": (("image", "text"), ("text",)),
    "visual-question-answering": (("image", "text"), ("text",)),
    "document-question-answering": (("image", "text"), ("text",)),
    "audio-text-to-text": (("audio", "text"), ("text",)),
    "video-text-to-text": (("video", "text"), ("text",)),
    "image-to-image": (("image",), ("image",)),
    "image-classification": (("image",), ("label",)),
    "object-detection": (("image",), ("label", "region")),
    "image-segmentation": (("image",), ("region",)),
    "depth-estimation": (("image",), ("depth map",)),
    "automatic-speech-recognition": (("audio",), ("text",)),
    "audio-classification": (("audio",), ("label",)),
    "audio-to-audio": (("audio",), ("audio",)),
    "video-classification": (("video",), ("label",)),
    "time-series-forecasting": (("time series",), ("time series",)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A model, and all that is known of it."""

    facts: ModelFacts
    index: ChunkIndex
    supplement: Supplement = field(default_factory=Supplement)
    sha256: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of files by their paths, where it is known."""
    timestamp: datetime | None = None
    """What the document is dated with."""
    location: str | None = None
    """A URI of where the artifact lies, if it was read from there."""

    @property
    def name(self) -> str | None:
        """The model's name, if anybody states it."""
        return self.supplement.model.name or self.facts.name

    @property
    def licenses(self) -> tuple[License, ...]:
        """The declared licences; none if they are not stated or stated to be unknown."""
        if self.supplement.model.licenses:
            return licenses_of(self.supplement.model.licenses)
        return licenses_of(
            self.facts.licenses[:MAX_LISTED_FACTS],
            other_name=self.facts.license_name,
            other_link=self.facts.license_link,
        )

    @property
    def unknown(self) -> tuple[str, ...]:
        """Identifiers of minimum elements that somebody declares to be unknown, sorted."""
        declared = set(self.supplement.unknown)
        if not self.licenses and says_unknown(self.facts.licenses):
            declared.add("model-license")
        return tuple(sorted(declared))

    @property
    def base_models(self) -> tuple[str, ...]:
        """The models that this one was made from, as they are stated: ids, URLs or names."""
        return self.facts.base_models[:MAX_LISTED_FACTS]

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The datasets that the files name, with what the supplement adds to them, and its own."""
        added = {dataset.name: dataset for dataset in self.supplement.datasets}
        named = {name: Dataset(name=name) for name in self.facts.datasets[:MAX_LISTED_FACTS]}
        return tuple({**named, **added}.values())

    @property
    def software(self) -> tuple[Software, ...]:
        """The software that the model needs: what its card names, and the supplement's own."""
        added = {each.name: each for each in self.supplement.software}
        library = self.facts.library_name
        named = {library: Software(name=library)} if library else {}
        return tuple({**named, **added}.values())

    @property
    def family(self) -> str | None:
        """The family of architectures, such as llama."""
        return self.supplement.model.family or self.facts.model_type

    @property
    def inputs(self) -> tuple[str, ...]:
        """Modalities of the input."""
        return self.supplement.model.inputs or self._modalities()[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Modalities of the output."""
        return self.supplement.model.outputs or self._modalities()[1]

    @property
    def lists_files(self) -> bool:
        """Whether the files are few enough to be listed one by one."""
        return len(self.index.files) <= MAX_LISTED_FILES

    def _modalities(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return _MODALITIES.get(self.facts.pipeline_tag or "", ((), ()))


def technical_facts(facts: ModelFacts) -> list[tuple[str, str]]:
    """Return what the files say of the model's build, as names and texts, in a fixed order."""
    counts = sorted(facts.parameters_by_dtype.items())[:MAX_LISTED_FACTS]
    pairs: list[tuple[str, object]] = [
        ("parameters", facts.parameters),
        *((f"parameters:{dtype}", count) for dtype, count in counts),
        ("tensors", facts.tensor_count),
        ("precision", facts.precision),
        ("quantization", facts.quantization),
        *(("format", each) for each in facts.formats[:MAX_LISTED_FACTS]),
        ("hidden-size", facts.hidden_size),
        ("layers", facts.layer_count),
        ("attention-heads", facts.attention_heads),
        ("vocabulary-size", facts.vocabulary_size),
        ("context-length", facts.context_length),
        ("chat-template", facts.chat_template),
        *(("remote-code", each) for each in facts.remote_code[:MAX_LISTED_FACTS]),
        *(("language", each) for each in facts.languages[:MAX_LISTED_FACTS]),
    ]
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in pairs
        if value is not None
    ]
