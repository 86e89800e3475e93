"""The minimum elements of an SBOM for AI, and where a CycloneDX document holds each.

Owns the list of "Software Bill of Materials for AI: Minimum Elements" (G7 Cybersecurity Working
Group, 12 May 2026: fifty elements in seven clusters, none of them mandatory). Leaves out finding
them (``finders.py``), judging (``completeness.py``) and SPDX.

    >>> [element.id for element in ELEMENTS if element.cluster == "infrastructure"]
    ['infrastructure-software', 'infrastructure-hardware']
"""

from collections.abc import Mapping
from dataclasses import dataclass

from modelpack.sbom import finders
from modelpack.sbom.finders import Find
from modelpack.sbom.modelcomponent import SECURITY_POLICY

CLUSTERS: Mapping[str, str] = {
    "metadata": "Metadata",
    "system": "System level properties",
    "models": "Models",
    "datasets": "Dataset properties",
    "infrastructure": "Infrastructure",
    "security": "Security properties",
    "kpi": "Key performance indicators",
}
"""The paper's clusters by the identifiers used here, in its order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Element:
    """One minimum element."""

    id: str
    cluster: str
    name: str
    """As the paper calls it."""
    find: Find | None
    """None for what cannot be inside the document."""
    source: str
    """What to do for it: usually the member of the supplement."""


def _element(cluster: str, name: str, find: Find | None, source: str) -> Element:
    identifier = name.lower().replace("/", "-").replace(" ", "-")
    return Element(id=identifier, cluster=cluster, name=name, find=find, source=source)


# --- the list, in the paper's order --------------------------------------------------------------

_SET = "set SOURCE_DATE_EPOCH"
_ALWAYS = "always written"
ELEMENTS: tuple[Element, ...] = (
    _element(
        "metadata", "SBOM author", finders.party("authors", "manufacturer", of="metadata"), "author"
    ),
    _element("metadata", "SBOM version", finders.at("version"), _ALWAYS),
    _element("metadata", "SBOM data format name", finders.at("bomFormat"), _ALWAYS),
    _element("metadata", "SBOM data format version", finders.at("specVersion"), _ALWAYS),
    _element("metadata", "SBOM author signature", None, "beside the document: modelpack verify"),
    _element("metadata", "SBOM tool name", finders.tool("name"), _ALWAYS),
    _element("metadata", "SBOM tool version", finders.tool("version"), _ALWAYS),
    _element("metadata", "SBOM generation context", finders.context, _ALWAYS),
    _element("metadata", "SBOM timestamp", finders.at("metadata", "timestamp"), _SET),
    _element("metadata", "SBOM dependency relationship", finders.relations, "datasets, software"),
    _element("system", "System name", finders.of_system("name"), "system.name"),
    _element("system", "System components", finders.components, "system"),
    _element(
        "system", "System producer", finders.party("manufacturer", of="system"), "system.producer"
    ),
    _element("system", "System version", finders.of_system("version"), "system.version"),
    _element(
        "system",
        "System timestamp",
        finders.property_of("released", of="system"),
        "system.released",
    ),
    _element(
        "system",
        "System data flow",
        finders.property_of("data-flow", of="system"),
        "system.data_flow",
    ),
    _element(
        "system",
        "System data usage",
        finders.property_of("data-usage", of="system"),
        "system.data_usage",
    ),
    _element(
        "system",
        "System input/output properties",
        finders.system_formats,
        "system.inputs, system.outputs",
    ),
    _element(
        "system",
        "Intended application area",
        finders.property_of("application-area", of="system"),
        "system.application_area",
    ),
    _element("models", "Model name", finders.of_model("name"), "model.name"),
    _element("models", "Model identifier", lambda d: finders.identifiers(d.model, d), "model.purl"),
    _element("models", "Model version", finders.of_model("version"), "model.version"),
    _element(
        "models", "Model timestamp", finders.property_of("released", of="model"), "model.released"
    ),
    _element(
        "models",
        "Model producer",
        finders.party("manufacturer", "authors", of="metadata.component"),
        "model.producer",
    ),
    _element("models", "Model description", finders.of_model("description"), "model.description"),
    _element("models", "Model hash value", finders.hashes("content"), _ALWAYS),
    _element("models", "Model hash algorithm", finders.hashes("alg"), _ALWAYS),
    _element("models", "Model properties", finders.parameters, "model.family"),
    _element(
        "models", "Model input/output properties", finders.formats, "model.inputs, model.outputs"
    ),
    _element("models", "Model training properties", finders.training, "training"),
    _element("models", "Model license", lambda d: finders.licenses(d.model, d), "model.licenses"),
    _element("models", "Model external references", finders.links, "model.links"),
    _element("datasets", "Dataset name", finders.dataset_names, "datasets[].name"),
    _element(
        "datasets",
        "Dataset description",
        finders.each_dataset(lambda each, d: d.text("description", of=each)),
        "datasets[].description",
    ),
    _element(
        "datasets", "Dataset content", finders.dataset_property("content"), "datasets[].content"
    ),
    _element(
        "datasets",
        "Dataset identifier",
        finders.each_dataset(
            lambda each, d: (
                finders.identifiers(each, d)
                or d.properties("identifier", of=each)
                or d.items("externalReferences", of=each)
            )
        ),
        "datasets[].identifier",
    ),
    _element(
        "datasets",
        "Dataset hash",
        finders.each_dataset(lambda each, d: d.items("hashes", of=each)),
        "datasets[].sha256",
    ),
    _element(
        "datasets",
        "Dataset provenance",
        finders.dataset_property("provenance"),
        "datasets[].provenance",
    ),
    _element(
        "datasets",
        "Dataset statistical properties",
        finders.dataset_property("statistics"),
        "datasets[].statistics",
    ),
    _element(
        "datasets",
        "Dataset sensitivity",
        finders.each_dataset(finders.sensitivity),
        "datasets[].sensitive",
    ),
    _element("datasets", "Dataset dependency relationship", finders.used_datasets, "datasets"),
    _element(
        "datasets", "Dataset license", finders.each_dataset(finders.licenses), "datasets[].licenses"
    ),
    _element(
        "infrastructure",
        "Infrastructure software",
        finders.named("library", "framework", "platform", "operating-system", "container"),
        "software",
    ),
    _element("infrastructure", "Infrastructure hardware", finders.named("device"), "hardware"),
    _element(
        "security",
        "Security controls",
        finders.property_of("security-control", of="model"),
        "security.controls",
    ),
    _element(
        "security",
        "Security compliance",
        finders.property_of("security-compliance", of="model"),
        "security.compliance",
    ),
    _element(
        "security",
        "Cybersecurity policy information",
        lambda d: finders.joined(
            d.links("other", comment=SECURITY_POLICY) + d.links("security-contact")
        ),
        "security.policy",
    ),
    _element(
        "security", "Vulnerability referencing", finders.vulnerabilities, "security.vulnerabilities"
    ),
    _element("kpi", "Security metrics", finders.metrics(security=True), "metrics, kind: security"),
    _element("kpi", "Operational performance KPIs", finders.metrics(security=False), "metrics"),
)
