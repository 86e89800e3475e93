import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from modelpack.errors import UsageError
from modelpack.sbom.texts import (
    absolute_uri,
    content_uuid,
    hub_purl,
    iri_reference,
    package_url,
    source_date,
    time_text,
)

FORMATS = Draft7Validator.FORMAT_CHECKER


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org",
        "https://example.org/a%20b?c=d#e",
        "http://example.org:8080/",
        "oci://registry.example/team/model@sha256:00",
        "mailto:security@example.org",
        "doi:10.1000/x",
        "urn:uuid:0",
    ],
)
def test_links(text):
    assert absolute_uri(text) == iri_reference(text) == text


@pytest.mark.parametrize("text", ["LICENSE", "docs/LICENSE.md", "a"])
def test_paths_are_references_but_no_links(text):
    assert iri_reference(text) == text
    assert absolute_uri(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a b", "../LICENSE", "a/../b", "/etc/passwd", "//host/path", "a//b", "#x"),
        *("https://", "https:", "https:/x", "https:x", "https:///x", "http://[::1]/", "x:"),
        *("https://user:secret@example.org/", "https://example.org:x/", "https://example.org/a b"),
        *(
            "https://example.org/%zz",
            "https://example.org/#a#b",
            "https://example.org/\n",
            "LICENSE\n",
        ),
        *("https://example.org/ü", "HTTPS://example.org", "1x:y", "a:b\x00", "лицензия"),
    ],
)
def test_what_some_validator_would_refuse_is_refused(text):
    assert iri_reference(text) is None
    assert absolute_uri(text) is None


ODD_LINKS = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"[a-z]{1,5}:[!-~]{0,20}", fullmatch=True),
    st.from_regex(r"https?://[!-~]{0,25}", fullmatch=True),
    st.from_regex(r"[A-Za-z.~%/#?_-]{1,20}", fullmatch=True),
)


@given(ODD_LINKS)
def test_what_is_accepted_is_an_iri_to_others(text):
    found = iri_reference(text)
    assert found in {None, text}
    if found is not None:
        assert FORMATS.conforms(found, "iri-reference")


def test_the_other_validator_is_there():
    assert not FORMATS.conforms("a b", "iri-reference")


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("pkg:huggingface/org/model", True),
        ("pkg:huggingface/org/model@0123abc", True),
        ("pkg:oci/model@sha256%3A00?repository_url=ghcr.io/o/model&tag=v1", True),
        ("pkg:pypi/vllm", True),
        ("pkg:generic/a/b/c#d/e", True),
        ("pkg:huggingface", False),
        ("pkg:/x", False),
        ("huggingface/org/model", False),
        ("pkg:huggingface/org/model ", False),
        ("pkg:huggingface/org/model\n", False),
    ],
)
def test_package_urls(text, valid):
    assert package_url(text) == (text if valid else None)


@pytest.mark.parametrize(
    ("name", "purl"),
    [
        ("meta-llama/Llama-3.1-8B", "pkg:huggingface/meta-llama/Llama-3.1-8B"),
        ("https://huggingface.co/org/model", "pkg:huggingface/org/model"),
        ("https://hf.co/org/model/", "pkg:huggingface/org/model"),
        ("gpt2", None),
        ("./out/model", None),
        ("/data/models/x", None),
        ("org/model/extra", None),
        ("https://example.org/org/model", None),
        ("org/model name", None),
        ("org/..", None),
    ],
)
def test_base_models_on_the_hub(name, purl):
    assert hub_purl(name) == purl
    assert purl is None or package_url(purl) == purl


def test_source_date():
    assert source_date({}) is None
    assert source_date({"SOURCE_DATE_EPOCH": ""}) is None
    assert source_date({"SOURCE_DATE_EPOCH": "0"}) == datetime(1970, 1, 1, tzinfo=UTC)
    assert source_date({"SOURCE_DATE_EPOCH": "253402300799"}).year == 9999


@pytest.mark.parametrize(
    "text", ["now", "-1", "1.5", "1e9", " 1", "253402300800", "9" * 30, "\u0661"]
)
def test_a_bad_source_date_is_a_mistake_of_the_caller(text):
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        source_date({"SOURCE_DATE_EPOCH": text})


def test_times_are_in_utc_and_whole_seconds():
    moment = datetime(2026, 1, 31, 1, 2, 3, 999999, timezone(timedelta(hours=2)))
    assert time_text(moment) == "2026-01-30T23:02:03Z"


@given(st.binary(), st.binary())
def test_a_uuid_stands_for_content(first, second):
    made = content_uuid(first)
    assert (made.version, made.variant) == (8, "specified in RFC 4122")
    assert re.fullmatch(r"[0-9a-f-]{36}", str(made))
    assert (made == content_uuid(second)) == (first == second)
