import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime

import pytest

from modelpack.facts import ModelFacts
from modelpack.sbom import subject as subjects
from modelpack.sbom import write_cyclonedx
from modelpack.sbom.supplement import Hardware, Model, Party, Security, Supplement, Vulnerability
from tests.support.indexes import make_index
from tests.unit.sbom.subjects import FACTS, FULL, INDEX, subject
from tests.unit.sbom.validators import check_cyclonedx

MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def properties(component):
    return [(item["name"], item["value"]) for item in component.get("properties", ())]


def components(document, kind):
    return [item for item in document["components"] if item["type"] == kind]


@pytest.mark.parametrize(
    "given",
    [
        subject(ModelFacts()),
        subject(FACTS),
        subject(ModelFacts(), supplement=FULL),
        subject(FACTS, supplement=FULL, timestamp=MOMENT, sha256={"README.md": "0" * 64}),
    ],
    ids=["nothing-known", "files", "people", "everything"],
)
def test_documents_are_valid(given):
    check_cyclonedx(write_cyclonedx(given))


def test_what_the_files_say():
    document = check_cyclonedx(write_cyclonedx(subject()))
    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["name"] == "tiny-facts"
    assert model["licenses"] == [{"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}]
    assert model["externalReferences"] == [
        {"type": "license", "url": "https://example.org/LICENSE"}
    ]
    assert model["tags"] == ["demo"]
    assert model["pedigree"]["notes"] == "relation to the base model: finetune"
    assert [(each["name"], each.get("purl")) for each in model["pedigree"]["ancestors"]] == [
        ("example/base", "pkg:huggingface/example/base"),
        ("https://huggingface.co/example/other", "pkg:huggingface/example/other"),
        ("a name", None),
    ]
    assert model["modelCard"]["modelParameters"] == {
        "task": "text-generation",
        "architectureFamily": "llama",
        "modelArchitecture": "LlamaForCausalLM",
        "datasets": [{"ref": "dataset-1"}, {"ref": "dataset-2"}],
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }
    assert properties(model["modelCard"]) == [
        ("modelpack:parameters", "1000"),
        ("modelpack:parameters:BF16", "900"),
        ("modelpack:parameters:F32", "100"),
        ("modelpack:tensors", "3"),
        ("modelpack:precision", "bfloat16"),
        ("modelpack:quantization", "gptq-4bit"),
        ("modelpack:format", "safetensors"),
        ("modelpack:hidden-size", "8"),
        ("modelpack:layers", "2"),
        ("modelpack:attention-heads", "4"),
        ("modelpack:vocabulary-size", "100"),
        ("modelpack:context-length", "128"),
        ("modelpack:chat-template", "true"),
        ("modelpack:remote-code", "AutoModel: code.Tiny"),
        ("modelpack:language", "en"),
        ("modelpack:language", "de"),
    ]


def test_files_datasets_and_software():
    document = check_cyclonedx(write_cyclonedx(subject(sha256={"config.json": "a" * 64})))
    hashes = {
        item["name"]: {each["alg"]: each["content"] for each in item["hashes"]}
        for item in components(document, "file")
    }
    assert hashes == {
        file.path: {"BLAKE3": file.blake3.hex()}
        | ({"SHA-256": "a" * 64} if file.path == "config.json" else {})
        for file in INDEX.files
    }
    first, second = components(document, "data")
    assert first == {
        "type": "data",
        "bom-ref": "dataset-1",
        "name": "example/text",
        "data": [{"type": "dataset", "name": "example/text"}],
    }
    assert second["externalReferences"][0]["url"] == "https://data.example.org/web"
    assert [item["name"] for item in components(document, "library")] == ["transformers"]
    assert document["dependencies"] == [
        {"ref": "model", "dependsOn": ["dataset-1", "dataset-2", "software-1"]}
    ]
    assert "compositions" not in document


def test_nothing_is_said_of_what_nobody_states():
    document = check_cyclonedx(write_cyclonedx(subject(ModelFacts())))
    assert document.keys() == {
        *("$schema", "bomFormat", "specVersion", "serialNumber", "version"),
        *("metadata", "components"),
    }
    assert document["metadata"].keys() == {"lifecycles", "tools", "component"}
    assert document["metadata"]["component"] == {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": "NOASSERTION",
    }
    assert {item["type"] for item in document["components"]} == {"file"}


def test_people_count_before_files():
    added = Supplement(model=Model(name="mine", licenses=("MIT", "gemma"), inputs=("image",)))
    model = check_cyclonedx(write_cyclonedx(subject(supplement=added)))["metadata"]["component"]
    assert model["name"] == "mine"
    assert [
        each["license"].get("id", each["license"].get("name")) for each in model["licenses"]
    ] == [
        "MIT",
        "gemma",
    ]
    assert "externalReferences" not in model  # the card's link is to the card's licence
    assert model["modelCard"]["modelParameters"]["inputs"] == [{"format": "image"}]
    assert model["modelCard"]["modelParameters"]["outputs"] == [{"format": "text"}]


def test_every_text_of_a_supplement_is_in_the_document():
    raw = write_cyclonedx(subject(supplement=FULL)).decode()
    for text in texts(FULL):
        assert json.dumps(text, ensure_ascii=False)[1:-1] in raw, text


def texts(value):
    if isinstance(value, str):
        # "operational" and "self-supervised" are words of a vocabulary, and this kind is the default
        yield from () if value == "operational" else (value,)
    elif isinstance(value, tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, item)
    elif hasattr(value, "__dataclass_fields__"):
        for each in fields(value):
            yield from texts(getattr(value, each.name))


def test_people_and_organizations_have_their_places():
    person, company = Party(name="A", email="a@b.c", person=True), Party(name="C")
    added = Supplement(author=person, model=Model(producer=person, supplier=company))
    metadata = check_cyclonedx(write_cyclonedx(subject(supplement=added)))["metadata"]
    assert metadata["authors"] == [{"name": "A", "email": "a@b.c"}]
    assert "manufacturer" not in metadata
    assert metadata["supplier"] == {"name": "C"}
    assert metadata["component"]["authors"] == metadata["authors"]
    assert metadata["component"]["supplier"] == {"name": "C"}
    added = Supplement(author=company, model=Model(producer=company, supplier=person))
    metadata = check_cyclonedx(write_cyclonedx(subject(supplement=added)))["metadata"]
    assert metadata["manufacturer"] == metadata["component"]["manufacturer"] == {"name": "C"}
    assert metadata["supplier"] == {"contact": [{"name": "A", "email": "a@b.c"}]}


def test_that_nobody_looked_differs_from_that_nothing_was_found():
    def vulnerabilities(listed):
        added = Supplement(security=Security(vulnerabilities=listed))
        return check_cyclonedx(write_cyclonedx(subject(supplement=added))).get("vulnerabilities")

    assert vulnerabilities(None) is None
    assert vulnerabilities(()) == []
    twice = (Vulnerability(id="CVE-2026-1", state="not_affected"),) * 2
    assert vulnerabilities(twice) == [
        {
            "id": "CVE-2026-1",
            "analysis": {"state": "not_affected"},
            "affects": [{"ref": "model"}],
        }
    ]


def test_equal_components_are_listed_once():
    added = Supplement(hardware=(Hardware(name="GPU"), Hardware(name="GPU")))
    document = check_cyclonedx(write_cyclonedx(subject(supplement=added)))
    assert len(components(document, "device")) == 1


def test_there_is_no_time_unless_it_is_given():
    assert b"timestamp" not in write_cyclonedx(subject(supplement=FULL))
    dated = check_cyclonedx(write_cyclonedx(subject(timestamp=MOMENT)))
    assert dated["metadata"]["timestamp"] == "2026-01-31T12:00:00Z"


def test_the_serial_number_stands_for_the_content():
    raw = write_cyclonedx(subject())
    serial = json.loads(raw)["serialNumber"]
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-.*", serial
    )
    assert write_cyclonedx(subject()) == raw
    others = [subject(ModelFacts()), subject(timestamp=MOMENT), subject(supplement=FULL)]
    serials = {json.loads(write_cyclonedx(each))["serialNumber"] for each in others}
    assert len(serials | {serial}) == 4


def test_another_process_writes_the_same():
    code = (
        "import sys; from tests.unit.sbom.subjects import *; "
        "from modelpack.sbom import write_cyclonedx; "
        "sys.stdout.buffer.write(write_cyclonedx(subject(supplement=FULL)))"
    )
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "LC_ALL": "C"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, check=True
        )
        assert done.stdout == write_cyclonedx(subject(supplement=FULL))


def test_more_files_than_are_listed_become_the_index(monkeypatch):
    monkeypatch.setattr(subjects, "MAX_LISTED_FILES", 3)
    listed = check_cyclonedx(write_cyclonedx(subject()))
    assert len(components(listed, "file")) == 3
    index = make_index((f"{number:04}.bin", [5]) for number in range(4))
    document = check_cyclonedx(write_cyclonedx(subject(index=index)))
    (file,) = components(document, "file")
    assert file["name"] == ".modelpack/chunks.bin"
    assert file["description"] == "lists the 4 files of the model"
    assert document["compositions"] == [{"aggregate": "incomplete", "assemblies": ["model"]}]


def test_a_list_of_facts_is_bounded():
    many = tuple(f"org/number-{number}" for number in range(1000))
    facts = ModelFacts(datasets=many, base_models=many, licenses=many, languages=many, tags=many)
    document = check_cyclonedx(write_cyclonedx(subject(facts)))
    model = document["metadata"]["component"]
    assert len(components(document, "data")) == 256
    assert (
        len(model["pedigree"]["ancestors"]) == len(model["licenses"]) == len(model["tags"]) == 256
    )


def test_a_file_takes_less_room_than_in_the_index():
    index = make_index((f"{number:04}.bin", [5]) for number in range(2000))
    from modelpack.chunkindex import encode_index

    raw = write_cyclonedx(subject(ModelFacts(), index=index))
    head = int.from_bytes(encode_index(index)[8:12], "little")
    assert len(raw) < head
