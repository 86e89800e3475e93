"""Write SPDX 3.0.1 as JSON-LD: an AI package, its files, datasets, licences and what it came from.

Owns the document and its relationships. Leaves out the elements of a model and a dataset
(``spdxelements.py``), the rules of the profiles (``spdxrules.py``) and what counts for a fact
(``subject.py``).

    write_spdx(subject, created=datetime.now(UTC))
"""

from datetime import datetime
from typing import Any

from blake3 import blake3

from modelpack.chunkindex import encode_index
from modelpack.filekinds import file_kind
from modelpack.manifest import canonical_json
from modelpack.metadata import CHUNKS
from modelpack.paths import METADATA_DIR
from modelpack.sbom import spdxelements as elements
from modelpack.sbom.cdxparts import known
from modelpack.sbom.cyclonedx import write_cyclonedx
from modelpack.sbom.licenses import License, licenses_of
from modelpack.sbom.spdxelements import NO_ASSERTION_LICENSE, Graph, hash_of
from modelpack.sbom.spdxrules import ai_gaps, dataset_gaps
from modelpack.sbom.subject import GENERATOR, GENERATOR_VERSION, NO_ASSERTION, Subject
from modelpack.sbom.texts import content_uuid, hub_purl, time_text

MEDIA_TYPE = "application/spdx+json"
SPEC_VERSION = "3.0.1"
CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
_PURPOSES = {
    "weight": "model",
    "weight.config": "configuration",
    "doc": "documentation",
    "code": "source",
    "dataset": "data",
}


def write_spdx(subject: Subject, *, created: datetime) -> bytes:
    """Return the SBOM of a model as SPDX 3.0.1 JSON-LD.

    ``created`` is when it is made, which the format requires. The same subject and time give the
    same bytes. The document claims the profiles ``ai`` and ``dataset`` only when what it holds
    meets their rules; ``spdxrules`` names what is missing. Licences are declared, never concluded:
    the conclusion is always that none is asserted.
    """
    graph = Graph(_namespace(subject, created))
    author = elements.author(graph, subject.supplement.author)
    tool = graph.add("Tool", "tool", name=f"{GENERATOR} {GENERATOR_VERSION}")
    model = elements.model(graph, subject)
    _licensed(graph, model, subject.licenses)
    _files(graph, model, subject)
    _origins(graph, model, subject)
    _needs(graph, model, subject)
    _vulnerabilities(graph, model, subject)
    profiles = ["core", "software", "simpleLicensing"]
    profiles += ["ai"] if not ai_gaps(graph.items) else []
    profiles += ["dataset"] if subject.datasets and not dataset_gaps(graph.items) else []
    return (
        canonical_json(
            {
                "@context": CONTEXT,
                "@graph": [
                    {
                        "type": "CreationInfo",
                        "@id": elements.CREATION,
                        "specVersion": SPEC_VERSION,
                        "created": time_text(created),
                        "createdBy": [author],
                        "createdUsing": [tool],
                    },
                    *_collections(graph, model, subject.name or NO_ASSERTION, profiles),
                    *graph.items,
                ],
            }
        )
        + b"\n"
    )


def _namespace(subject: Subject, created: datetime) -> str:
    seed = write_cyclonedx(subject) + f"{subject.location} {time_text(created)}".encode()
    return f"urn:uuid:{content_uuid(seed)}"


def _collections(graph: Graph, model: str, name: str, profiles: list[str]) -> list[dict[str, Any]]:
    """Return the document and the SBOM in it."""
    members = [item["spdxId"] for item in graph.items]
    sbom = graph.element(
        "software_Sbom",
        "sbom",
        name=name,
        profileConformance=profiles,
        rootElement=[model],
        element=members,
        software_sbomType=["analyzed"],
    )
    document = graph.element(
        "SpdxDocument",
        "document",
        name=name,
        profileConformance=profiles,
        rootElement=[sbom["spdxId"]],
        element=[sbom["spdxId"], *members],
    )
    return [document, sbom]


def _licensed(graph: Graph, subject: str, licenses: tuple[License, ...]) -> None:
    """Relate an element to its declared licence and to its concluded one, once each."""
    declared = _declared(graph, licenses) if licenses else NO_ASSERTION_LICENSE
    graph.relate(subject, "hasDeclaredLicense", [declared])
    graph.relate(subject, "hasConcludedLicense", [NO_ASSERTION_LICENSE])


def _declared(graph: Graph, licenses: tuple[License, ...]) -> str:
    """Add one expression for all licences; all of them apply, as in the image's annotation."""
    parts = []
    custom: list[dict[str, str]] = []
    for each in licenses:
        if each.name is not None:
            text = graph.add(
                "simplelicensing_SimpleLicensingText",
                "license-text",
                name=each.name,
                comment=f"see {each.url}" if each.url else None,
                simplelicensing_licenseText=NO_ASSERTION,
            )
            reference = f"LicenseRef-{len(custom) + 1}"
            custom.append({"type": "DictionaryEntry", "key": reference, "value": text})
            parts.append(reference)
        elif each.expression is not None and len(licenses) > 1:
            parts.append(f"({each.expression})")
        else:
            parts.append(each.label)
    return graph.add(
        "simplelicensing_LicenseExpression",
        "license",
        simplelicensing_licenseExpression=" AND ".join(parts),
        simplelicensing_customIdToUri=custom or None,
    )


def _files(graph: Graph, model: str, subject: Subject) -> None:
    if not subject.lists_files:
        whole = graph.add(
            "software_File",
            "file",
            name=f"{METADATA_DIR}/{CHUNKS}",
            description=f"lists the {len(subject.index.files)} files of the model",
            verifiedUsing=[hash_of("blake3", blake3(encode_index(subject.index)).hexdigest())],
            software_primaryPurpose="manifest",
        )
        graph.relate(model, "contains", [whole], completeness="incomplete")
        return
    added = []
    for file in subject.index.files:
        hashes = [hash_of("blake3", file.blake3.hex())]
        if file.path in subject.sha256:
            hashes.append(hash_of("sha256", subject.sha256[file.path]))
        added.append(
            graph.add(
                "software_File",
                "file",
                name=file.path,
                verifiedUsing=hashes,
                software_primaryPurpose=_PURPOSES[file_kind(file.path)],
            )
        )
    graph.relate(model, "contains", added, completeness="complete")


def _origins(graph: Graph, model: str, subject: Subject) -> None:
    bases = [
        graph.add(
            "software_Package",
            "base-model",
            name=name,
            software_packageUrl=hub_purl(name),
            software_primaryPurpose="model",
        )
        for name in subject.base_models
    ]
    graph.relate(model, "descendantOf", bases, comment=subject.facts.base_model_relation)
    datasets = []
    for dataset in subject.datasets:
        datasets.append(elements.dataset(graph, dataset))
        _licensed(graph, datasets[-1], licenses_of(dataset.licenses))
    graph.relate(model, "trainedOn", datasets)


def _needs(graph: Graph, model: str, subject: Subject) -> None:
    software = [
        graph.add(
            "software_Package",
            "software",
            name=each.name,
            description=each.description,
            software_packageVersion=each.version,
            software_packageUrl=each.purl,
            software_primaryPurpose="library",
        )
        for each in subject.software
    ]
    graph.relate(model, "dependsOn", software)
    hardware = [
        graph.add(
            "software_Package",
            "hardware",
            name=each.name,
            description=each.description,
            software_primaryPurpose="device",
        )
        for each in dict.fromkeys(subject.supplement.hardware)
    ]
    graph.relate(model, "hasPrerequisite", hardware)
    if subject.supplement.system:
        graph.relate(elements.system(graph, subject.supplement.system), "dependsOn", [model])


def _vulnerabilities(graph: Graph, model: str, subject: Subject) -> None:
    listed = subject.supplement.security.vulnerabilities or ()
    found = [
        graph.add(
            "security_Vulnerability",
            "vulnerability",
            name=each.id,
            description=each.detail,
            externalIdentifier=[
                known(
                    type="ExternalIdentifier",
                    externalIdentifierType="cve" if each.id.startswith("CVE-") else "securityOther",
                    identifier=each.id,
                    identifierLocator=[each.url] if each.url else None,
                )
            ],
        )
        for each in dict.fromkeys(listed)
    ]
    graph.relate(model, "hasAssociatedVulnerability", found)
