import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from modelpack.facts import ModelFacts
from modelpack.sbom import subject as subjects
from modelpack.sbom.spdx import write_spdx
from modelpack.sbom.spdxrules import ai_gaps, dataset_gaps
from modelpack.sbom.supplement import Model, Party, Supplement
from tests.support.indexes import make_index
from tests.unit.sbom.subjects import FACTS, FULL, subject
from tests.unit.sbom.validators import check_spdx, of_type, read_spdx, related

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LOCATION = "oci://registry.example/team/tiny@sha256:" + "0" * 64
COMPLETE = subject(replace(FACTS, datasets=("example/text",)), supplement=FULL, location=LOCATION)


def graph_of(given, created=NOW):
    return read_spdx(write_spdx(given, created=created))


@pytest.mark.parametrize(
    "given",
    [
        subject(ModelFacts()),
        subject(FACTS),
        subject(ModelFacts(), supplement=FULL),
        subject(FACTS, supplement=FULL, sha256={"README.md": "0" * 64}, location=LOCATION),
    ],
    ids=["nothing-known", "files", "people", "everything"],
)
def test_documents_are_valid(given):
    check_spdx(write_spdx(given, created=NOW))


@pytest.mark.parametrize(
    ("kind", "member", "value"),
    [
        ("ai_AIPackage", "ai_colour", "blue"),
        ("ai_AIPackage", "software_primaryPurpose", "weights"),
        ("Relationship", "relationshipType", "taughtBy"),
        ("Relationship", "from", None),
        ("CreationInfo", "created", "yesterday"),
        ("dataset_DatasetPackage", "dataset_datasetType", None),
        ("software_File", "verifiedUsing", [{"type": "Hash", "algorithm": "blake9"}]),
    ],
)
def test_the_witnesses_see_faults(kind, member, value):
    document = json.loads(write_spdx(COMPLETE, created=NOW))
    item = of_type(document["@graph"], kind)[0]
    item[member] = value
    if value is None:
        del item[member]
    with pytest.raises(Exception):  # noqa: B017 - the packages raise what they like
        check_spdx(json.dumps(document).encode())


def test_the_model_and_where_it_came_from():
    graph = graph_of(COMPLETE)
    (model,) = of_type(graph, "ai_AIPackage")
    assert model["name"] == "tiny"
    assert model["software_packageVersion"] == "1.2"
    assert model["software_primaryPurpose"] == "model"
    assert model["software_downloadLocation"] == LOCATION
    assert model["releaseTime"] == "2026-01-31T00:00:00Z"
    assert model["ai_typeOfModel"] == ["llama", "text-generation", "LlamaForCausalLM"]
    assert model["ai_limitation"] == "It knows nothing."
    assert {"type": "DictionaryEntry", "key": "batch_size", "value": "64"} in model[
        "ai_hyperparameter"
    ]
    assert model["ai_energyConsumption"]["ai_trainingEnergyConsumption"] == [
        {
            "type": "ai_EnergyConsumptionDescription",
            "ai_energyQuantity": 12.5,
            "ai_energyUnit": "kilowattHour",
        }
    ]
    assert "parameters: 1000" in model["comment"].splitlines()
    assert related(graph, "descendantOf") == [("tiny", list(FACTS.base_models))]
    assert related(graph, "trainedOn") == [("tiny", ["example/text"])]
    assert related(graph, "dependsOn") == [
        ("tiny", ["transformers", "vllm"]),
        ("Tea advisor", ["tiny"]),
    ]
    assert related(graph, "contains") == [
        ("tiny", ["README.md", "config.json", "model.safetensors"])
    ]


@pytest.mark.parametrize(
    ("licenses", "declared"),
    [
        ((), "NoAssertionLicense"),
        (("unknown",), "NoAssertionLicense"),
        (("apache-2.0",), "Apache-2.0"),
        (("mit OR apache-2.0",), "MIT OR Apache-2.0"),
        (("mit", "apache-2.0 OR bsl-1.0"), "MIT AND (Apache-2.0 OR BSL-1.0)"),
        (("llama3.1",), "LicenseRef-1"),
        (("mit", "llama3.1", "gemma"), "MIT AND LicenseRef-1 AND LicenseRef-2"),
    ],
)
def test_there_is_one_declared_and_one_concluded_license(licenses, declared):
    graph = graph_of(subject(ModelFacts(name="m", licenses=licenses)))
    assert related(graph, "hasDeclaredLicense") == [("m", [declared])]
    assert related(graph, "hasConcludedLicense") == [("m", ["NoAssertionLicense"])]
    custom = [
        entry["key"]
        for item in of_type(graph, "simplelicensing_LicenseExpression")
        for entry in item.get("simplelicensing_customIdToUri", ())
    ]
    assert custom == [each for each in declared.split() if each.startswith("LicenseRef-")]


def profiles(graph):
    (document,) = of_type(graph, "SpdxDocument")
    (sbom,) = of_type(graph, "software_Sbom")
    assert document["profileConformance"] == sbom["profileConformance"]
    return set(document["profileConformance"]) - {"core", "software", "simpleLicensing"}


def test_profiles_are_claimed_when_their_rules_hold():
    graph = graph_of(COMPLETE)
    assert profiles(graph) == {"ai", "dataset"}
    assert ai_gaps(graph) == dataset_gaps(graph) == []


@pytest.mark.parametrize(
    ("member", "gap"),
    [
        ("released", "releaseTime"),
        ("supplier", "suppliedBy"),
        ("version", "software_packageVersion"),
    ],
)
def test_a_gap_is_named_and_nothing_claimed(member, gap):
    added = replace(FULL, model=replace(FULL.model, **{member: None}))
    graph = graph_of(replace(COMPLETE, supplement=added))
    assert ai_gaps(graph) == [f"tiny: {gap} is missing"]
    assert profiles(graph) == {"dataset"}


def test_a_model_on_disk_has_no_download_location():
    graph = graph_of(replace(COMPLETE, location=None))
    assert ai_gaps(graph) == ["tiny: software_downloadLocation is missing"]


def test_one_bare_dataset_takes_the_claim_away():
    facts = ModelFacts(datasets=("example/text", "other/data"))
    graph = graph_of(subject(facts, supplement=FULL, location=LOCATION))
    assert profiles(graph) == {"ai"}
    assert dataset_gaps(graph) == [
        f"other/data: {member} is missing"
        for member in ("builtTime", "originatedBy", "releaseTime", "software_downloadLocation")
    ]


def test_without_datasets_their_profile_is_not_claimed():
    added = replace(FULL, datasets=())
    given = subject(ModelFacts(), supplement=added, location=LOCATION)
    assert profiles(graph_of(given)) == {"ai"}


def test_a_second_license_breaks_the_rule():
    graph = graph_of(COMPLETE)
    (again,) = (
        item
        for item in of_type(graph, "Relationship")
        if item["relationshipType"] == "hasDeclaredLicense"
        and item["from"] == of_type(graph, "ai_AIPackage")[0]["spdxId"]
    )
    assert ai_gaps([*graph, again]) == ["tiny: 2 relationships hasDeclaredLicense, not one"]
    graph.remove(again)
    assert ai_gaps(graph) == ["tiny: 0 relationships hasDeclaredLicense, not one"]


def test_who_made_the_document():
    def created_by(added):
        graph = graph_of(subject(supplement=added))
        (info,) = of_type(graph, "CreationInfo")
        (agent,) = (item for item in graph if item.get("spdxId") == info["createdBy"][0])
        return agent["type"], agent["name"], info["created"]

    assert created_by(Supplement()) == ("SoftwareAgent", "modelpack", "2026-01-31T12:00:00Z")
    assert created_by(Supplement(author=Party(name="A", person=True)))[:2] == ("Person", "A")
    same = Party(name="C", url="https://c.example")
    added = Supplement(author=same, model=Model(producer=same, supplier=same))
    assert created_by(added)[:2] == ("Organization", "C")
    assert len(of_type(graph_of(subject(supplement=added)), "Organization")) == 1


def test_the_same_subject_and_time_give_the_same_bytes():
    raw = write_spdx(COMPLETE, created=NOW)
    assert write_spdx(COMPLETE, created=NOW) == raw
    later = write_spdx(COMPLETE, created=NOW.replace(year=2027))
    identifiers = [
        {item["spdxId"] for item in json.loads(each)["@graph"] if "spdxId" in item}
        for each in (raw, later)
    ]
    assert identifiers[0].isdisjoint(identifiers[1])


def test_more_files_than_are_listed_become_the_index(monkeypatch):
    monkeypatch.setattr(subjects, "MAX_LISTED_FILES", 2)
    index = make_index((f"{number}.bin", [5]) for number in range(3))
    graph = graph_of(subject(index=index))
    (file,) = of_type(graph, "software_File")
    assert file["name"] == ".modelpack/chunks.bin"
    (relation,) = (item for item in graph if item.get("relationshipType") == "contains")
    assert relation["completeness"] == "incomplete"
