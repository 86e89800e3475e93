import json
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.sbom import licenses
from modelpack.sbom.licenses import License, licenses_of, says_unknown

LISTED = set(
    json.loads(files("cyclonedx.schema").joinpath("_res/spdx.SNAPSHOT.schema.json").read_text())[
        "enum"
    ]
)


def one(*stated, **more):
    (found,) = licenses_of(stated, **more)
    return found


@pytest.mark.parametrize(
    ("stated", "identifier"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("Apache-2.0", "Apache-2.0"),
        ("APACHE-2.0", "Apache-2.0"),
        ("mit", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("cc-by-nc-sa-3.0", "CC-BY-NC-SA-3.0"),
        ("cc0-1.0", "CC0-1.0"),
        ("gpl-3.0", "GPL-3.0"),
        ("agpl-3.0", "AGPL-3.0"),
        ("cdla-permissive-2.0", "CDLA-Permissive-2.0"),
        ("etalab-2.0", "etalab-2.0"),
        ("ms-pl", "MS-PL"),
        ("lgpl-lr", "LGPLLR"),
        ("wtfpl", "WTFPL"),
    ],
)
def test_exact_names_become_identifiers(stated, identifier):
    assert one(stated) == License(id=identifier)


@pytest.mark.parametrize(
    "stated",
    [
        *("llama2", "llama3", "llama3.1", "llama4", "gemma", "openrail", "creativeml-openrail-m"),
        *("bigscience-bloom-rail-1.0", "grok2-community", "deepfloyd-if-license", "apple-amlr"),
        *("bsd", "cc", "gpl", "lgpl", "gfdl", "odc-by", "odbl", "pddl", "c-uda"),
        *("Tongyi Qianwen", "MIT OR", "OR", "(MIT", "MIT)", "MIT MIT", "MIT WITH nothing", "MIT,"),
        *("MIT AND llama3.1", "()", "LicenseRef-", "лицензия", "MIT\tor/and Apache-2.0"),
        "(" * 70 + "MIT" + ")" * 70,
    ],
)
def test_what_is_not_exact_stays_a_name(stated):
    assert one(stated) == License(name=stated)


@pytest.mark.parametrize(
    ("stated", "expression"),
    [
        ("mit or apache-2.0", "MIT OR Apache-2.0"),
        ("Apache-2.0 AND (MIT OR BSD-3-Clause)", "Apache-2.0 AND ( MIT OR BSD-3-Clause )"),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception"),
        ("Apache-2.0+", "Apache-2.0+"),
        ("(MIT)", "( MIT )"),
        ("LicenseRef-my-own", "LicenseRef-my-own"),
        ("MIT AND DocumentRef-x:LicenseRef-y", "MIT AND DocumentRef-x:LicenseRef-y"),
    ],
)
def test_expressions_are_recognised(stated, expression):
    assert one(stated) == License(expression=expression)


def test_other_takes_the_cards_name_and_link():
    assert one("other") == License(name="other")
    assert one("other", other_name="my-license") == License(name="my-license")
    assert one("other", other_name="mit", other_link="LICENSE.md") == License(
        id="MIT", url="LICENSE.md"
    )
    assert one("other", other_link="https://example.org/l") == License(
        name="other", url="https://example.org/l"
    )
    assert one("other", other_link="javascript alert") == License(name="other")
    assert one(other_name="my-license") == License(name="my-license")
    assert licenses_of((), other_link="LICENSE") == ()


def test_unknown_is_no_license():
    assert licenses_of(["unknown", "NOASSERTION"]) == ()
    assert says_unknown(["Unknown"])
    assert not says_unknown(["mit"])


def test_each_counts_once_and_in_order():
    assert [each.label for each in licenses_of(["mit", "gemma", "MIT", "apache-2.0"])] == [
        "MIT",
        "gemma",
        "Apache-2.0",
    ]


def test_every_identifier_is_listed_by_spdx():
    assert set(licenses._IDS.split()) <= LISTED
    assert set(licenses._BY_FOLDED.values()) <= LISTED
    assert set(licenses._EXCEPTIONS.values()) <= LISTED


@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(["MIT", "(", ")", "AND", "OR", "WITH", "+", "x"])).map(" ".join),
    )
)
def test_any_text_is_one_license_or_none(text):
    found = licenses_of([text])
    assert len(found) <= 1
    for each in found:
        assert sum(value is not None for value in (each.id, each.expression, each.name)) == 1
        if each.expression:
            assert licenses_of([each.expression]) == (each,)  # canonical already
