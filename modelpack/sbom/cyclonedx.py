"""Write CycloneDX 1.6: the model with its card, its files, what it was made from and needs.

Owns the document as a whole and its components. Leaves out the model's own component
(``modelcomponent.py``) and what counts for a fact (``subject.py``).

The same subject gives the same bytes: nothing is dated unless the subject is, and the serial number
is made from the content.

    write_cyclonedx(Subject(facts=facts, index=index))
"""

from collections.abc import Iterator
from typing import Any

from blake3 import blake3

from modelpack.chunkindex import encode_index
from modelpack.manifest import canonical_json
from modelpack.metadata import CHUNKS
from modelpack.paths import METADATA_DIR
from modelpack.sbom.cdxparts import (
    known,
    license_choice,
    organization,
    producer,
    properties,
)
from modelpack.sbom.modelcomponent import dataset_ref, model_component, software_ref
from modelpack.sbom.subject import GENERATOR, GENERATOR_VERSION, Subject
from modelpack.sbom.supplement import Dataset, Hardware, Software, System, Vulnerability
from modelpack.sbom.texts import absolute_uri, content_uuid, package_url, time_text

MEDIA_TYPE = "application/vnd.cyclonedx+json"
SPEC_VERSION = "1.6"
_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_MODEL, _SYSTEM = "model", "system"


def write_cyclonedx(subject: Subject) -> bytes:
    """Return the SBOM of a model as CycloneDX 1.6 JSON, in its one canonical spelling.

    Up to ``MAX_LISTED_FILES`` files are components of their own, each with its BLAKE3. More are
    represented by one component, the chunk index, which lists them and their hashes, and the
    composition is marked as incomplete. Facts that nobody states are left out.
    """
    document: dict[str, Any] = {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": _metadata(subject),
        "components": [*_files(subject), *_others(subject)],
        "dependencies": _dependencies(subject),
        "compositions": None
        if subject.lists_files
        else [{"aggregate": "incomplete", "assemblies": [_MODEL]}],
        "vulnerabilities": _vulnerabilities(subject),
    }
    document = {name: value for name, value in document.items() if value is not None}
    serial = content_uuid(canonical_json(document))
    head = {name: document.pop(name) for name in ("$schema", "bomFormat", "specVersion")}
    return canonical_json({**head, "serialNumber": f"urn:uuid:{serial}", **document}) + b"\n"


def _metadata(subject: Subject) -> dict[str, Any]:
    return known(
        timestamp=time_text(subject.timestamp) if subject.timestamp else None,
        lifecycles=[{"phase": "post-build"}],
        tools={
            "components": [{"type": "application", "name": GENERATOR, "version": GENERATOR_VERSION}]
        },
        **producer(subject.supplement.author),
        component=model_component(subject, _MODEL),
        supplier=organization(subject.supplement.model.supplier),
        properties=properties(("unknown", each) for each in subject.unknown),
    )


# --- components ----------------------------------------------------------------------------------


def _files(subject: Subject) -> Iterator[dict[str, Any]]:
    if not subject.lists_files:
        yield {
            "type": "file",
            "name": f"{METADATA_DIR}/{CHUNKS}",
            "description": f"lists the {len(subject.index.files)} files of the model",
            "hashes": [_hash("BLAKE3", blake3(encode_index(subject.index)).hexdigest())],
        }
        return
    for file in subject.index.files:
        hashes = [_hash("BLAKE3", file.blake3.hex())]
        if file.path in subject.sha256:
            hashes.append(_hash("SHA-256", subject.sha256[file.path]))
        yield {"type": "file", "name": file.path, "hashes": hashes}


def _hash(algorithm: str, value: str) -> dict[str, str]:
    return {"alg": algorithm, "content": value}


def _others(subject: Subject) -> Iterator[dict[str, Any]]:
    for number, dataset in enumerate(subject.datasets):
        yield _dataset(dataset, dataset_ref(number))
    for number, software in enumerate(subject.software):
        yield _software(software, software_ref(number))
    for hardware in dict.fromkeys(subject.supplement.hardware):  # no two components may be equal
        yield _hardware(hardware)
    if subject.supplement.system:
        yield _system(subject.supplement.system)


def _dataset(dataset: Dataset, ref: str) -> dict[str, Any]:
    identifier = dataset.identifier
    purl = package_url(identifier) if identifier else None
    url = dataset.url or absolute_uri(dataset.name)
    sensitive = dataset.sensitive
    return known(
        type="data",
        **{"bom-ref": ref},
        **producer(dataset.producer),
        name=dataset.name,
        version=dataset.version,
        description=dataset.description,
        hashes=[_hash("SHA-256", dataset.sha256)] if dataset.sha256 else None,
        licenses=license_choice(dataset.licenses),
        purl=purl,
        externalReferences=[{"type": "distribution", "url": url}] if url else None,
        data=[
            known(
                type="dataset",
                name=dataset.name,
                contents={"url": url} if url else None,
                classification=dataset.classification,
                sensitiveData=None if sensitive is None else list(sensitive),
                description=dataset.description,
            )
        ],
        properties=properties(
            [
                ("identifier", None if purl else identifier),
                ("built", time_text(dataset.built) if dataset.built else None),
                ("released", time_text(dataset.released) if dataset.released else None),
                *(("content", each) for each in dataset.content),
                ("provenance", dataset.provenance),
                ("statistics", dataset.statistics),
            ]
        ),
    )


def _software(software: Software, ref: str) -> dict[str, Any]:
    return known(
        type="library",
        **{"bom-ref": ref},
        name=software.name,
        version=software.version,
        description=software.description,
        purl=software.purl,
    )


def _hardware(hardware: Hardware) -> dict[str, Any]:
    return known(type="device", name=hardware.name, description=hardware.description)


def _system(system: System) -> dict[str, Any]:
    return known(
        type="application",
        **{"bom-ref": _SYSTEM},
        **producer(system.producer),
        name=system.name,
        version=system.version,
        properties=properties(
            [
                ("released", time_text(system.released) if system.released else None),
                ("data-flow", system.data_flow),
                ("data-usage", system.data_usage),
                *(("input", each) for each in system.inputs),
                *(("output", each) for each in system.outputs),
                *(("application-area", each) for each in system.application_area),
            ]
        ),
    )


# --- relations, vulnerabilities ------------------------------------------------------------------


def _dependencies(subject: Subject) -> list[dict[str, Any]] | None:
    """Say what depends on what; None when nothing is known, which is not the same as nothing."""
    found = [dataset_ref(number) for number in range(len(subject.datasets))]
    found += [software_ref(number) for number in range(len(subject.software))]
    relations = []
    if subject.supplement.system:
        relations.append({"ref": _SYSTEM, "dependsOn": [_MODEL]})
    if found:
        relations.append({"ref": _MODEL, "dependsOn": found})
    return relations or None


def _vulnerabilities(subject: Subject) -> list[dict[str, Any]] | None:
    """List the known vulnerabilities; an empty list says that somebody looked and found none."""
    listed = subject.supplement.security.vulnerabilities
    return None if listed is None else [_vulnerability(each) for each in dict.fromkeys(listed)]


def _vulnerability(vulnerability: Vulnerability) -> dict[str, Any]:
    source = known(url=vulnerability.url, name=vulnerability.source)
    return known(
        id=vulnerability.id,
        source=source or None,
        detail=vulnerability.detail,
        recommendation=vulnerability.recommendation,
        analysis={"state": vulnerability.state} if vulnerability.state else None,
        affects=[{"ref": _MODEL}],
    )
