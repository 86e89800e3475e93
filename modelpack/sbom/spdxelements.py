"""The elements of SPDX documents: the model, datasets, agents, and the graph that they form.

Owns where each fact goes in an ``ai_AIPackage`` and a ``dataset_DatasetPackage``. Leaves out the
document around them (``spdx.py``).

    graph = Graph("urn:uuid:...")
    package = model(graph, subject)
    graph.relate(package, "trainedOn", [dataset(graph, each) for each in subject.datasets])
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from modelpack.sbom.cdxparts import known
from modelpack.sbom.subject import MAX_LISTED_FACTS, NO_ASSERTION, Subject, technical_facts
from modelpack.sbom.supplement import Dataset, Energy, Model, Party, Security, System
from modelpack.sbom.texts import absolute_uri, package_url, time_text

CREATION = "_:creation"
NO_ASSERTION_LICENSE = "https://spdx.org/rdf/3.0.1/terms/ExpandedLicensing/NoAssertionLicense"
_DATASET_TYPES = frozenset(
    {
        *("audio", "categorical", "graph", "image", "numeric", "sensor"),
        *("structured", "syntactic", "text", "timeseries", "timestamp", "video"),
    }
)
_CONFIDENTIALITY = frozenset({"red", "amber", "green", "clear"})
# CycloneDX's types of links that have one of SPDX's meaning; the others become "other".
_LINK_TYPES = {
    "vcs": "vcs",
    "issue-tracker": "issueTracker",
    "website": "altWebPage",
    "advisories": "securityAdvisory",
    "documentation": "documentation",
    "model-card": "documentation",
    "support": "support",
    "distribution": "altDownloadLocation",
    "license": "license",
    "release-notes": "releaseNotes",
    "risk-assessment": "riskAssessment",
    "threat-model": "securityThreatModel",
    "adversary-model": "securityAdversaryModel",
    "pentest-report": "securityPenTestReport",
    "certification-report": "certificationReport",
    "quality-metrics": "metrics",
    "vulnerability-assertion": "vulnerabilityDisclosureReport",
    "exploitability-statement": "vulnerabilityExploitabilityAssessment",
}


class Graph:
    """Elements in order, each with an identifier in the document's namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._counts: Counter[str] = Counter()
        self._agents: dict[Party, str] = {}
        self.items: list[dict[str, Any]] = []

    def element(self, type_: str, kind: str, **members: Any) -> dict[str, Any]:
        """Return an element with an identifier of its own, without adding it."""
        self._counts[kind] += 1
        number = self._counts[kind]
        return known(
            type=type_,
            spdxId=f"{self._namespace}#{kind}-{number}",
            creationInfo=CREATION,
            **members,
        )

    def add(self, type_: str, kind: str, **members: Any) -> str:
        """Add an element and return its identifier; members that are None are left out."""
        made = self.element(type_, kind, **members)
        self.items.append(made)
        return str(made["spdxId"])

    def agent(self, party: Party) -> str:
        """Add a person or an organization, once however often it is named; return its identifier."""
        if party not in self._agents:
            identifiers = []
            if party.email:
                identifiers.append(_identifier("email", party.email))
            if party.url:
                identifiers.append(_identifier("urlScheme", party.url))
            self._agents[party] = self.add(
                "Person" if party.person else "Organization",
                "agent",
                name=party.name,
                externalIdentifier=identifiers or None,
            )
        return self._agents[party]

    def relate(self, subject: str, relation: str, objects: Sequence[str], **members: Any) -> None:
        """Add a relationship, unless there is nothing to relate to."""
        if objects:
            self.add(
                "Relationship",
                "relationship",
                **{"from": subject},
                relationshipType=relation,
                to=list(objects),
                **members,
            )


def hash_of(algorithm: str, value: str) -> dict[str, str]:
    """Return an integrity method."""
    return {"type": "Hash", "algorithm": algorithm, "hashValue": value}


def author(graph: Graph, party: Party | None) -> str:
    """Add who made the document: a person or organization, else this program."""
    if party is None:
        return graph.add("SoftwareAgent", "agent", name="modelpack")
    return graph.agent(party)


def _identifier(kind: str, value: str) -> dict[str, str]:
    return {
        "type": "ExternalIdentifier",
        "externalIdentifierType": kind,
        "identifier": value,
    }


def model(graph: Graph, subject: Subject) -> str:
    """Add the model and return its identifier."""
    added = subject.supplement.model
    training = subject.supplement.training
    system = subject.supplement.system
    return graph.add(
        "ai_AIPackage",
        "model",
        name=subject.name or NO_ASSERTION,
        description=added.description,
        comment="\n".join(f"{name}: {value}" for name, value in technical_facts(subject.facts))
        or None,
        externalRef=_links(added, subject.supplement.security) or None,
        originatedBy=[graph.agent(added.producer)] if added.producer else None,
        suppliedBy=graph.agent(added.supplier) if added.supplier else None,
        releaseTime=time_text(added.released) if added.released else None,
        software_primaryPurpose="model",
        software_packageVersion=added.version,
        software_packageUrl=added.purl,
        software_downloadLocation=subject.location,
        ai_typeOfModel=_types(subject) or None,
        ai_domain=list(system.application_area) or None if system else None,
        ai_informationAboutApplication=_lines([*added.use_cases, *added.users]),
        ai_informationAboutTraining=_lines(
            [each for each in (training.approach, training.description) if each]
        ),
        ai_limitation=_lines(added.limitations),
        ai_modelDataPreprocessing=list(training.preprocessing) or None,
        ai_hyperparameter=_entries(training.hyperparameters.items()),
        ai_metric=_entries((each.name, each.value) for each in subject.supplement.metrics),
        ai_standardCompliance=list(subject.supplement.security.compliance) or None,
        ai_energyConsumption=_energy(training.energy),
    )


def _types(subject: Subject) -> list[str]:
    found = [subject.family, subject.facts.pipeline_tag]
    architectures = subject.facts.architectures[:MAX_LISTED_FACTS]
    return list(dict.fromkeys(each for each in (*found, *architectures) if each))


def _links(added: Model, security: Security) -> list[dict[str, Any]]:
    found = [(_LINK_TYPES.get(link.type, "other"), link.url) for link in added.links]
    found += [("securityPolicy", security.policy)] if security.policy else []
    found += [("securityOther", security.contact)] if security.contact else []
    return [
        {"type": "ExternalRef", "externalRefType": kind, "locator": [url]} for kind, url in found
    ]


def _lines(texts: Iterable[str]) -> str | None:
    return "\n".join(texts) or None


def _entries(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]] | None:
    return [{"type": "DictionaryEntry", "key": key, "value": value} for key, value in pairs] or None


def _energy(energy: Sequence[Energy]) -> dict[str, Any] | None:
    """Sort consumption into the three kinds of the profile; other activities have no place."""
    members = {
        "ai_trainingEnergyConsumption": "training",
        "ai_finetuningEnergyConsumption": "fine-tuning",
        "ai_inferenceEnergyConsumption": "inference",
    }
    found = {
        member: [
            {
                "type": "ai_EnergyConsumptionDescription",
                "ai_energyQuantity": each.kwh,
                "ai_energyUnit": "kilowattHour",
            }
            for each in energy
            if each.activity == activity
        ]
        for member, activity in members.items()
    }
    listed = {member: each for member, each in found.items() if each}
    return {"type": "ai_EnergyConsumption", **listed} if listed else None


def dataset(graph: Graph, given: Dataset) -> str:
    """Add a dataset and return its identifier."""
    types = sorted({each.lower() for each in given.content} & _DATASET_TYPES)
    if not types:
        types = ["other"] if given.content else ["noAssertion"]
    level = (given.classification or "").lower()
    identifier = given.identifier
    purl = package_url(identifier) if identifier else None
    return graph.add(
        "dataset_DatasetPackage",
        "dataset",
        name=given.name,
        description=given.description,
        comment=_lines(
            f"{name}: {value}"
            for name, value in (
                ("statistics", given.statistics),
                ("sensitive", ", ".join(given.sensitive or ())),
            )
            if value
        ),
        externalIdentifier=[_identifier("other", identifier)] if identifier and not purl else None,
        verifiedUsing=[hash_of("sha256", given.sha256)] if given.sha256 else None,
        originatedBy=[graph.agent(given.producer)] if given.producer else None,
        builtTime=time_text(given.built) if given.built else None,
        releaseTime=time_text(given.released) if given.released else None,
        software_primaryPurpose="data",
        software_packageVersion=given.version,
        software_packageUrl=purl,
        software_downloadLocation=given.url or absolute_uri(given.name),
        dataset_datasetType=types,
        dataset_dataCollectionProcess=given.provenance,
        dataset_confidentialityLevel=level if level in _CONFIDENTIALITY else None,
    )


def system(graph: Graph, given: System) -> str:
    """Add the system that the model is for and return its identifier."""
    return graph.add(
        "software_Package",
        "system",
        name=given.name,
        description=given.data_usage,
        comment=f"data flow: {given.data_flow}" if given.data_flow else None,
        suppliedBy=graph.agent(given.producer) if given.producer else None,
        releaseTime=time_text(given.released) if given.released else None,
        software_primaryPurpose="application",
        software_packageVersion=given.version,
    )
