import json
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import UsageError
from modelpack.facts import ModelFacts
from modelpack.sbom import write_cyclonedx
from modelpack.sbom.completeness import assess, required_elements
from modelpack.sbom.elements import CLUSTERS, ELEMENTS
from modelpack.sbom.supplement import Dataset, Model, Supplement
from modelpack.sbom.supplementfile import parse_supplement
from tests.unit.sbom.subjects import FACTS, FULL, PAGE, subject


def report_on(facts=FACTS, **members):
    return assess(json.loads(write_cyclonedx(subject(facts, **members))))


def statuses(report):
    return {each.element.id: each.status for each in report.assessed}


def test_the_papers_clusters_have_their_numbers_of_elements():
    assert len({element.id for element in ELEMENTS}) == len(ELEMENTS) == 50
    assert Counter(element.cluster for element in ELEMENTS) == {
        "metadata": 10,
        "system": 9,
        "models": 13,
        "datasets": 10,
        "infrastructure": 2,
        "security": 4,
        "kpi": 2,
    }
    assert list(dict.fromkeys(element.cluster for element in ELEMENTS)) == list(CLUSTERS)


def test_the_page_names_every_element():
    page = " ".join(PAGE.read_text().replace("|", " ").split()).lower()
    for title in CLUSTERS.values():
        assert f"**{title.lower()}**" in page
    for element in ELEMENTS:
        _, _, last = element.name.lower().partition(" ")
        assert last.removeprefix("hash ") in page, element.name


def test_a_full_supplement_leaves_only_what_is_outside():
    datasets = ModelFacts(datasets=("example/text",), library_name="transformers")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    report = report_on(datasets, supplement=FULL, timestamp=moment)
    assert {key: value for key, value in statuses(report).items() if value != "present"} == {
        "sbom-author-signature": "unknown"
    }


def test_what_files_alone_can_say():
    found = statuses(report_on())
    assert {key for key, value in found.items() if value == "present"} == {
        *("sbom-version", "sbom-data-format-name", "sbom-data-format-version", "sbom-tool-name"),
        *("sbom-tool-version", "sbom-generation-context", "sbom-dependency-relationship"),
        *("model-name", "model-hash-value", "model-hash-algorithm", "model-properties"),
        *("model-input-output-properties", "model-license", "model-external-references"),
        *("dataset-name", "dataset-dependency-relationship", "infrastructure-software"),
    }
    assert Counter(found.values())["unknown"] == 1


def test_of_a_bare_directory_almost_nothing_is_known():
    found = statuses(report_on(ModelFacts()))
    assert {key for key, value in found.items() if value == "present"} == {
        *("sbom-version", "sbom-data-format-name", "sbom-data-format-version", "sbom-tool-name"),
        *("sbom-tool-version", "sbom-generation-context"),
        *("model-hash-value", "model-hash-algorithm"),
    }
    assert found["model-name"] == "missing"


def test_a_declared_unknown_is_no_gap():
    added = Supplement(unknown=("dataset-hash", "model-version", "model-license"))
    found = statuses(report_on(supplement=added))
    assert found["dataset-hash"] == found["model-version"] == "unknown"
    assert found["model-license"] == "present"  # it is there, whatever is declared


def test_a_license_stated_to_be_unknown_is_unknown():
    assert statuses(report_on(ModelFacts(licenses=("unknown",))))["model-license"] == "unknown"
    assert statuses(report_on(ModelFacts()))["model-license"] == "missing"
    added = Supplement(model=Model(licenses=("mit",)))
    found = report_on(ModelFacts(licenses=("unknown",)), supplement=added)
    assert statuses(found)["model-license"] == "present"


def test_one_dataset_without_it_is_a_gap():
    added = Supplement(datasets=(Dataset(name="example/text", description="text"),))
    report = report_on(supplement=added)
    (found,) = (each for each in report.assessed if each.element.id == "dataset-description")
    assert (found.status, found.detail) == ("missing", "1 of 2 datasets; datasets[].description")
    report = report_on(ModelFacts(datasets=("example/text",)), supplement=added)
    assert statuses(report)["dataset-description"] == "present"


def test_a_gap_says_where_to_fill_it_in():
    members = {
        "author": "author: {name: A}",
        "model.version": "model: {version: '1'}",
        "system.data_flow": "system: {name: A, data_flow: x}",
        "datasets[].sensitive": "datasets: [{name: A, sensitive: []}]",
        "software": "software: [{name: A}]",
        "metrics, kind: security": "metrics: [{name: A, value: 1, kind: security}]",
        "security.vulnerabilities": "security: {vulnerabilities: []}",
    }
    for source, text in members.items():
        (element,) = (each for each in ELEMENTS if each.source == source)
        added = parse_supplement(text.encode())
        assert statuses(report_on(ModelFacts()))[element.id] == "missing"
        assert statuses(report_on(ModelFacts(), supplement=added))[element.id] == "present"


@pytest.mark.parametrize(
    ("names", "identifiers"),
    [
        (["model-license"], {"model-license"}),
        (["Model License"], {"model-license"}),
        (["System input/output properties"], {"system-input-output-properties"}),
        (["kpi"], {"security-metrics", "operational-performance-kpis"}),
        (["Infrastructure"], {"infrastructure-software", "infrastructure-hardware"}),
        (["model-name", "model-license"], {"model-name", "model-license"}),
        ([], set()),
    ],
)
def test_elements_are_required_by_name_identifier_and_cluster(names, identifiers):
    assert required_elements(names) == identifiers


def test_what_is_no_element_is_a_mistake():
    with pytest.raises(UsageError, match="'model-colour' is no minimum element"):
        required_elements(["model-colour"])


def test_lacking():
    report = report_on(ModelFacts(licenses=("unknown",)))
    lacking = report.lacking(required_elements(["model-license", "model-name", "sbom-version"]))
    assert [each.element.id for each in lacking] == ["model-name", "model-license"]


def test_json():
    value = report_on().to_json()
    assert sum(value["counts"].values()) == 50
    assert value["elements"][1] == {
        "id": "sbom-version",
        "cluster": "metadata",
        "name": "SBOM version",
        "status": "present",
        "detail": "1",
    }
    json.dumps(value)


def test_other_tools_documents_are_understood():
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.4",
        "metadata": {
            "authors": [{"name": "A"}],
            "tools": [{"name": "old-tool", "version": "9"}],
            "component": {
                "name": "m",
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
                "purl": "pkg:huggingface/a/b",
            },
        },
        "components": [{"type": "file", "name": "a.gguf"}, {"type": "file", "name": "b.gguf"}],
    }
    report = assess(document)
    found = {each.element.id: each.detail for each in report.assessed if each.status == "present"}
    assert found == {
        "sbom-author": "A",
        "sbom-data-format-name": "CycloneDX",
        "sbom-data-format-version": "1.4",
        "sbom-tool-name": "old-tool",
        "sbom-tool-version": "9",
        "model-name": "m",
        "model-identifier": "pkg:huggingface/a/b",
        "model-license": "MIT OR Apache-2.0",
    }
    document["components"][0]["hashes"] = [{"alg": "SHA-256", "content": "0" * 64}]
    assert statuses(assess(document))["model-hash-value"] == "missing"
    document["components"][1]["hashes"] = [{"alg": "SHA-256", "content": "1" * 64}]
    assert statuses(assess(document))["model-hash-value"] == "present"


KEYS = st.sampled_from(
    [
        *("metadata", "component", "components", "dependencies", "dependsOn", "type", "name"),
        *("data", "hashes", "alg", "content", "modelCard", "modelParameters", "datasets"),
        *("inputs", "format", "externalReferences", "url", "properties", "value", "licenses"),
        *("license", "vulnerabilities", "authors", "tools", "lifecycles", "pedigree", "ref"),
        *("ancestors", "bom-ref"),
    ]
)
DOCUMENTS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from(
            ["", "data", "file", "device", "system", "application", "x", "NOASSERTION"]
        ),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=6)),
    max_leaves=40,
)


@settings(max_examples=150)
@given(DOCUMENTS)
def test_any_document_gets_a_verdict(document):
    report = assess(document)
    assert len(report.assessed) == 50
    json.dumps(report.to_json())
