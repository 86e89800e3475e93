"""The model's own component in CycloneDX, with its model card.

Owns where each fact goes in a ``machine-learning-model`` component. Leaves out the document around
it (``cyclonedx.py``).

    model_component(subject, "model")["modelCard"]["modelParameters"]["task"]
"""

from collections.abc import Iterable, Sequence
from typing import Any

from modelpack.sbom.cdxparts import known, license_choice, organization, producer, properties
from modelpack.sbom.subject import (
    MAX_LISTED_FACTS,
    NO_ASSERTION,
    Subject,
    technical_facts,
)
from modelpack.sbom.supplement import Energy, Metric, Risk, Security
from modelpack.sbom.texts import absolute_uri, hub_purl, iri_reference, time_text

SECURITY_METRIC = "security:"
"""Before the type of a metric of security, since CycloneDX has one list for all metrics."""

SECURITY_POLICY = "cybersecurity policy"
"""The comment on the link to one, which has no type of its own."""


def dataset_ref(number: int) -> str:
    """Return the bom-ref of a dataset by its place among the subject's."""
    return f"dataset-{number + 1}"


def software_ref(number: int) -> str:
    """Return the bom-ref of required software by its place among the subject's."""
    return f"software-{number + 1}"


def model_component(subject: Subject, ref: str) -> dict[str, Any]:
    """Return the component that the document is about."""
    model = subject.supplement.model
    return known(
        type="machine-learning-model",
        **{"bom-ref": ref},
        supplier=organization(model.supplier),
        **producer(model.producer),
        name=subject.name or NO_ASSERTION,
        version=model.version,
        description=model.description,
        licenses=license_choice(subject.licenses),
        purl=model.purl,
        pedigree=_pedigree(subject),
        externalReferences=_links(subject) or None,
        modelCard=_model_card(subject) or None,
        tags=list(subject.facts.tags[:MAX_LISTED_FACTS]) or None,
        properties=properties(
            [
                ("released", time_text(model.released) if model.released else None),
                *_security(subject.supplement.security),
            ]
        ),
    )


def _pedigree(subject: Subject) -> dict[str, Any] | None:
    if not subject.base_models:
        return None
    relation = subject.facts.base_model_relation
    return known(
        ancestors=[_ancestor(name) for name in subject.base_models],
        notes=f"relation to the base model: {relation}" if relation else None,
    )


def _ancestor(name: str) -> dict[str, Any]:
    url = absolute_uri(name)
    return known(
        type="machine-learning-model",
        name=name,
        purl=hub_purl(name),
        externalReferences=[{"type": "distribution", "url": url}] if url else None,
    )


def _links(subject: Subject) -> list[dict[str, str]]:
    supplement = subject.supplement
    stated = subject.facts.license_link
    license_link = iri_reference(stated) if stated and not supplement.model.licenses else None
    found = [known(type="license", url=license_link)] if license_link else []
    found += [
        known(type=link.type, url=link.url, comment=link.comment) for link in supplement.model.links
    ]
    security = supplement.security
    if security.contact:
        found.append({"type": "security-contact", "url": security.contact})
    if security.policy:
        found.append({"type": "other", "url": security.policy, "comment": SECURITY_POLICY})
    return found


def _security(security: Security) -> Iterable[tuple[str, str]]:
    yield from (("security-control", each) for each in security.controls)
    yield from (("security-compliance", each) for each in security.compliance)


# --- the model card ------------------------------------------------------------------------------


def _model_card(subject: Subject) -> dict[str, Any]:
    training = subject.supplement.training
    details = [
        *technical_facts(subject.facts),
        ("training", training.description),
        *(("preprocessing", each) for each in training.preprocessing),
        *((f"hyperparameter:{name}", value) for name, value in training.hyperparameters.items()),
    ]
    return known(
        modelParameters=_parameters(subject) or None,
        quantitativeAnalysis=_analysis(subject.supplement.metrics),
        considerations=_considerations(subject) or None,
        properties=properties(details),
    )


def _parameters(subject: Subject) -> dict[str, Any]:
    approach = subject.supplement.training.approach
    datasets = [{"ref": dataset_ref(number)} for number in range(len(subject.datasets))]
    architectures = subject.facts.architectures[:MAX_LISTED_FACTS]
    return known(
        approach={"type": approach} if approach else None,
        task=subject.facts.pipeline_tag,
        architectureFamily=subject.family,
        modelArchitecture=", ".join(architectures) or None,
        datasets=datasets or None,
        inputs=_formats(subject.inputs),
        outputs=_formats(subject.outputs),
    )


def _formats(modalities: Sequence[str]) -> list[dict[str, str]] | None:
    return [{"format": each} for each in modalities] or None


def _analysis(metrics: Sequence[Metric]) -> dict[str, Any] | None:
    if not metrics:
        return None
    return {
        "performanceMetrics": [
            known(
                type=(SECURITY_METRIC if metric.kind == "security" else "") + metric.name,
                value=metric.value,
                slice=metric.slice,
            )
            for metric in metrics
        ]
    }


def _considerations(subject: Subject) -> dict[str, Any]:
    model = subject.supplement.model
    energy = subject.supplement.training.energy
    return known(
        users=list(model.users) or None,
        useCases=list(model.use_cases) or None,
        technicalLimitations=list(model.limitations) or None,
        performanceTradeoffs=list(model.tradeoffs) or None,
        ethicalConsiderations=[_risk(risk) for risk in model.risks] or None,
        environmentalConsiderations={"energyConsumptions": [_energy(each) for each in energy]}
        if energy
        else None,
    )


def _risk(risk: Risk) -> dict[str, Any]:
    return known(name=risk.name, mitigationStrategy=risk.mitigation)


def _energy(energy: Energy) -> dict[str, Any]:
    co2 = energy.co2_tonnes
    return known(
        activity=energy.activity,
        energyProviders=[],
        activityEnergyCost={"value": energy.kwh, "unit": "kWh"},
        co2CostEquivalent=None if co2 is None else {"value": co2, "unit": "tCO2eq"},
    )
