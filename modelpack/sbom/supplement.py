"""What only people know of a model: who made it, on what, for what, with what limits.

Owns the values of a supplement. Leaves out the file they are read from (``supplementfile.py``) and
where a format puts them.

Everything is optional, and what is left out stays unknown. Texts are free of control characters,
links and package URLs are valid, times are in UTC: the reader of the file proves that.

    Supplement(model=Model(version="1.2", producer=Party(name="Example")))
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Party:
    """An organization, or a person."""

    name: str
    url: str | None = None
    email: str | None = None
    person: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A document elsewhere; ``type`` is one of CycloneDX's external reference types."""

    type: str
    url: str
    comment: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Risk:
    """A risk, and what is done against it."""

    name: str
    mitigation: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """The model itself. What is set here counts before what the model's files say."""

    name: str | None = None
    version: str | None = None
    released: datetime | None = None
    description: str | None = None
    purl: str | None = None
    producer: Party | None = None
    supplier: Party | None = None
    licenses: tuple[str, ...] = ()
    family: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    use_cases: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    tradeoffs: tuple[str, ...] = ()
    risks: tuple[Risk, ...] = ()
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """What an activity consumed, in kilowatt-hours and tonnes of CO2 equivalent."""

    activity: str
    kwh: float
    co2_tonnes: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How the weights came to be."""

    approach: str | None = None
    """One of CycloneDX's learning types."""
    description: str | None = None
    preprocessing: tuple[str, ...] = ()
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    energy: tuple[Energy, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A dataset; one that the model card names too gets these facts, others are added."""

    name: str
    version: str | None = None
    built: datetime | None = None
    released: datetime | None = None
    producer: Party | None = None
    description: str | None = None
    content: tuple[str, ...] = ()
    """What it is made of: text, image, audio, ..."""
    identifier: str | None = None
    url: str | None = None
    sha256: str | None = None
    provenance: str | None = None
    statistics: str | None = None
    classification: str | None = None
    sensitive: tuple[str, ...] | None = None
    """What is sensitive in it; empty means that nothing is, None that it is unknown."""
    licenses: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A measured result; ``kind`` is ``operational`` or ``security``."""

    name: str
    value: str
    slice: str | None = None
    kind: str = "operational"


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """The AI system that the model is shipped for."""

    name: str
    version: str | None = None
    released: datetime | None = None
    producer: Party | None = None
    data_flow: str | None = None
    data_usage: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    application_area: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Software:
    """Software that the model needs to run."""

    name: str
    version: str | None = None
    purl: str | None = None
    description: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Hardware that the model needs to run."""

    name: str
    description: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Vulnerability:
    """A known vulnerability; ``state`` is one of CycloneDX's impact analysis states."""

    id: str
    source: str | None = None
    url: str | None = None
    detail: str | None = None
    recommendation: str | None = None
    state: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Security:
    """How the model is protected, and what is known against it."""

    controls: tuple[str, ...] = ()
    compliance: tuple[str, ...] = ()
    policy: str | None = None
    """Link to the policy for reporting vulnerabilities."""
    contact: str | None = None
    """Link: a page, or ``mailto:``."""
    vulnerabilities: tuple[Vulnerability, ...] | None = None
    """Empty means that none is known, None that nobody looked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Supplement:
    """All of it."""

    author: Party | None = None
    """Who answers for the SBOM."""
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    datasets: tuple[Dataset, ...] = ()
    metrics: tuple[Metric, ...] = ()
    system: System | None = None
    software: tuple[Software, ...] = ()
    hardware: tuple[Hardware, ...] = ()
    security: Security = field(default_factory=Security)
    unknown: tuple[str, ...] = ()
    """Minimum elements, by their identifiers, that are declared to be unknown."""
