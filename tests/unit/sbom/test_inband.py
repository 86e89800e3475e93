import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import FormatError, IntegrityError, ModelpackError
from modelpack.facts import ModelFacts
from modelpack.facts.model import MAX_ITEMS, MAX_TEXT_CHARACTERS
from modelpack.sbom import check_in_band, in_band, inband
from modelpack.sbom import subject as subjects
from tests.support.indexes import indexes, make_index
from tests.unit.sbom.subjects import FACTS, INDEX
from tests.unit.sbom.validators import check_cyclonedx


def edited(change, index=INDEX):
    document = json.loads(in_band(FACTS, index))
    change(document)
    return json.dumps(document).encode()


def file_of(document, name):
    return next(item for item in document["components"] if item["name"] == name)


def test_it_depends_on_nothing_but_its_arguments(monkeypatch):
    raw = in_band(FACTS, INDEX)
    for name, value in (("SOURCE_DATE_EPOCH", "1"), ("TZ", "Asia/Tokyo"), ("HOME", "/nowhere")):
        monkeypatch.setenv(name, value)
    assert in_band(FACTS, INDEX) == raw
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert b'"timestamp":"2026-01-01T00:00:00Z"' in in_band(FACTS, INDEX, timestamp=moment)


def test_one_byte_more_in_a_file_is_another_document():
    other = make_index([("model.safetensors", [1001]), ("README.md", [10]), ("config.json", [20])])
    assert in_band(FACTS, other) != in_band(FACTS, INDEX)


@given(indexes())
@settings(max_examples=30)
def test_what_is_written_is_accepted_for_these_files_only(index):
    raw = in_band(ModelFacts(), index)
    check_cyclonedx(raw)
    check_in_band(raw, index)
    other = make_index([("another", [7])])
    with pytest.raises(IntegrityError):
        check_in_band(raw, other)


def test_the_whole_index_stands_for_too_many_files(monkeypatch):
    monkeypatch.setattr(subjects, "MAX_LISTED_FILES", 2)
    raw = in_band(FACTS, INDEX)
    check_in_band(raw, INDEX)
    other = make_index([("model.safetensors", [1001]), ("README.md", [10]), ("config.json", [20])])
    with pytest.raises(IntegrityError, match="describes other files"):
        check_in_band(raw, other)


def another_hash(document):
    file_of(document, "README.md")["hashes"][0]["content"] = "0" * 64


def without_a_file(document):
    document["components"].remove(file_of(document, "README.md"))


def one_file_more(document):
    document["components"].append({**file_of(document, "README.md"), "name": "extra"})


def without_a_hash(document):
    del file_of(document, "README.md")["hashes"]


def renamed(document):
    file_of(document, "README.md")["name"] = "readme.md"


def without_components(document):
    del document["components"]


@pytest.mark.parametrize(
    "change",
    [another_hash, without_a_file, one_file_more, without_a_hash, renamed, without_components],
)
def test_other_files_are_refused(change):
    with pytest.raises(IntegrityError, match=r"sbom\.cdx\.json describes other files"):
        check_in_band(edited(change), INDEX)


def test_what_else_a_packer_adds_is_accepted():
    def change(document):
        document["components"].append({"type": "library", "name": "torch"})
        document["annotations"] = []
        file_of(document, "README.md")["hashes"].append({"alg": "MD5", "content": "0" * 32})

    assert check_in_band(edited(change), INDEX)["bomFormat"] == "CycloneDX"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"bomFormat":"SPDX","specVersion":"1.6"}',
        b'{"bomFormat":"CycloneDX"}',
        b'{"bomFormat":"CycloneDX","specVersion":1}',
        b'{"bomFormat":"CycloneDX","bomFormat":"CycloneDX","specVersion":"1.6"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_document_is_refused(raw):
    with pytest.raises(FormatError, match=r"sbom\.cdx\.json"):
        check_in_band(raw, INDEX)


def test_size_is_bounded(monkeypatch):
    raw = in_band(FACTS, INDEX)
    monkeypatch.setattr(inband, "MAX_SBOM_BYTES", len(raw) - 1)
    with pytest.raises(FormatError, match="larger than"):
        check_in_band(raw, INDEX)


def test_the_largest_facts_stay_under_the_bound():
    def longest(letter):
        return tuple(
            f"{number}:" + letter * (MAX_TEXT_CHARACTERS - 5) for number in range(MAX_ITEMS)
        )

    facts = ModelFacts(
        name="\U00010348" * MAX_TEXT_CHARACTERS,
        parameters_by_dtype=dict.fromkeys(longest("\U00010348"), 2**63 - 1),
        **dict.fromkeys(
            ("formats", "architectures", "remote_code", "licenses", "base_models", "datasets"),
            longest("\U00010348"),
        ),
        languages=longest("\U00010348"),
        tags=longest("\U00010348"),
    )
    raw = in_band(facts, INDEX)
    assert len(raw) < inband.MAX_SBOM_BYTES - inband.MAX_HEAD_BYTES
    check_in_band(raw, INDEX)


@settings(max_examples=200)
@given(
    st.recursive(
        st.one_of(st.none(), st.sampled_from(["file", "README.md", "BLAKE3", "CycloneDX", "1.6"])),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(
                    ["bomFormat", "specVersion", "components", "type", "name", "hashes", "alg"]
                ),
                inner,
                max_size=4,
            ),
        ),
    )
)
def test_any_json_is_refused_with_one_of_our_errors(value):
    with pytest.raises(ModelpackError):
        check_in_band(json.dumps(value).encode(), INDEX)
