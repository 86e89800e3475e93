"""What SBOMs are held against: the official schemas, as published packages ship them.

check_cyclonedx(raw)
check_spdx(raw)  # or read_spdx(raw), many times as fast
"""

import json
from functools import cache
from importlib.resources import files

import jsonschema
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_python_model import load_data

_CYCLONEDX = JsonStrictValidator(SchemaVersion.V1_6)


def check_cyclonedx(raw: bytes) -> dict:
    """Require a valid CycloneDX 1.6 document with unique references that lead somewhere; return it."""
    error = _CYCLONEDX.validate_str(raw.decode())
    assert error is None, error
    document = json.loads(raw)
    references = list(_members(document, "bom-ref"))
    assert len(references) == len(set(references))
    for relation in document.get("dependencies", ()):
        assert {relation["ref"], *relation["dependsOn"]} <= set(references)
    for each in _members(document, "ref"):
        assert each in references
    return document


def check_spdx(raw: bytes) -> list[dict]:
    """Require what ``read_spdx`` does, and the official JSON schema, which takes half a second."""
    graph = read_spdx(raw)
    error = jsonschema.exceptions.best_match(_spdx_schema().iter_errors(json.loads(raw)))
    assert error is None, error
    return graph


def read_spdx(raw: bytes) -> list[dict]:
    """Require SPDX 3.0.1 that fits the model's classes, with unique identifiers that lead somewhere.

    Returns its graph.
    """
    document = json.loads(raw)
    _, objects = load_data(document)  # checks types, cardinalities and vocabularies of the model
    unresolved = objects.link()
    assert all(each.startswith("https://spdx.org/") for each in unresolved), unresolved
    graph = document["@graph"]
    identifiers = [item["spdxId"] for item in graph if "spdxId" in item]
    assert len(identifiers) == len(set(identifiers))
    return graph


def of_type(graph: list[dict], kind: str) -> list[dict]:
    """Return the elements of a type."""
    return [item for item in graph if item["type"] == kind]


def related(graph: list[dict], kind: str) -> list[tuple[str, list[str]]]:
    """Return the relationships of a kind, by the names of what they relate."""
    names = {
        item["spdxId"]: item.get("name", item.get("simplelicensing_licenseExpression"))
        for item in graph
        if "spdxId" in item
    }
    return [
        (names[item["from"]], [names.get(each, each.rpartition("/")[2]) for each in item["to"]])
        for item in of_type(graph, "Relationship")
        if item["relationshipType"] == kind
    ]


@cache
def _spdx_schema() -> jsonschema.Draft202012Validator:
    schema = json.loads(files("lib4sbom").joinpath("schemas/spdx/3.0-schema.json").read_text())
    assert schema["properties"]["@context"]["const"].startswith("https://spdx.org/rdf/3.0.1/")
    return jsonschema.Draft202012Validator(schema)


def _members(value, name):
    if isinstance(value, dict):
        for key, item in value.items():
            if key == name:
                yield item
            yield from _members(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _members(item, name)
