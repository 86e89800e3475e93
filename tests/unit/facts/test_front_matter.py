import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.facts import ModelFacts, front_matter
from modelpack.facts.front_matter import MAX_FRONT_MATTER_BYTES, front_matter_facts


def card(text):
    return front_matter_facts(f"---\n{text}\n---\n# Title\n", "README.md")


@pytest.fixture(params=["libyaml", "python"])
def loader(request, monkeypatch):
    """Both parsers of PyYAML; which one a machine has depends on how PyYAML was built."""
    if request.param == "python":
        monkeypatch.setattr(front_matter, "_Loader", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.fail("PyYAML lacks libyaml here")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("license: mit", {"licenses": ("mit",)}),
        ('license: "mit"', {"licenses": ("mit",)}),
        ("license: [mit, apache-2.0]", {"licenses": ("mit", "apache-2.0")}),
        ("license: null", {}),
        ("license: ~", {}),
        ("license:", {}),
        ('license: "null"', {"licenses": ("null",)}),
        ("license: {a: b}", {}),
        ("license: other\nlicense_name: own\nlicense_link: LICENSE", {
            "licenses": ("other",), "license_name": "own", "license_link": "LICENSE"}),
        ("language: no", {"languages": ("no",)}),
        ("language:\n- en\n- null\n- [de]\n- {fr: 1}\n- it", {"languages": ("en", "it")}),
        ("tags: [a, a, b]", {"tags": ("a", "b")}),
        ("tags:\n  - 1\n  - true", {"tags": ("1", "true")}),
        ("model-index:\n- name: x\n  results: [{license: gpl}]\nlicense: mit", {"licenses": ("mit",)}),
        ("license: mit\nlicense: gpl", {"licenses": ("gpl",)}),
        ("license: !!python/object:os.system x", {"licenses": ("x",)}),
        ("a: &x b\nlicense: mit", {"licenses": ("mit",)}),
        ("license: 'mit\x7f'", None),
        ('license: "m\\eit"', {}),
        ('base_model: "a\\nb"', {}),
        ("license: mit\n...\nlicense: gpl", {"licenses": ("mit",)}),
    ],
)  # fmt: skip
def test_members(loader, text, expected):
    if expected is None:
        assert len(card(text).warnings) == 1
    else:
        assert card(text) == ModelFacts(**expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# Title\n---\nlicense: mit\n---\n",
        "--- license: mit\n",
        "----\nlicense: mit\n----\n",
    ],
)
def test_a_card_without_front_matter(text):
    assert front_matter_facts(text, "README.md") == ModelFacts()


@pytest.mark.parametrize(
    "text",
    [
        "---\nlicense: mit\n---",
        "---\r\nlicense: mit\r\n---\r\n# Title",
        "\ufeff---\nlicense: mit\n---\n",
        "\n\n---\nlicense: mit\n---  \nrest",
        "---\nlicense: mit\n---\nrest\n---\nlicense: gpl\n---\n",
    ],
    ids=["at-the-end", "crlf", "bom", "blank-lines", "rule-in-the-text"],
)
def test_where_front_matter_begins_and_ends(text):
    assert front_matter_facts(text, "README.md") == ModelFacts(licenses=("mit",))


BOMB = "a: &a [x]\n" + "\n".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)},*{chr(97 + n)}]" for n in range(20)
)
MERGES = "a: &a {x: y}\n" + "\n".join(f"m{n}: &m{n} {{<<: [*a, *a]}}" for n in range(20))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("license: [mit", "not valid YAML"),
        ("license: mit\n  bad: indent", "not valid YAML"),
        ("- license", "not a mapping"),
        ("just text", "not a mapping"),
        ("? [a]\n: b", "collection as a key"),
        (BOMB, "aliases"),
        (MERGES, "aliases"),
        ("a: " + "[" * 100 + "]" * 100, "too deep"),
        ("a: " + "{b: " * 100 + "}" * 100, "too deep"),
        ("\x00", "not valid YAML"),
    ],
    ids=["open-list", "indent", "list", "text", "key", "bomb", "merges", "lists", "maps", "nul"],
)
def test_front_matter_that_is_not_used(loader, text, reason):
    facts = card(text)
    assert facts == ModelFacts(warnings=facts.warnings)
    assert len(facts.warnings) == 1
    assert reason in facts.warnings[0]


def test_front_matter_without_an_end():
    (warning,) = front_matter_facts("---\nlicense: mit\n", "README.md").warnings
    assert "does not end" in warning


@pytest.mark.parametrize(
    "filler",
    ["[", "{", "a: [{", "- ", "? ", "*a ", ":", "\n", "#\n", "k: v\n", "- a\n", "!t ", '"', "%A\n", "&a "],
)  # fmt: skip
def test_the_largest_front_matter_takes_bounded_time(filler):
    started = time.perf_counter()
    card(filler * (MAX_FRONT_MATTER_BYTES // len(filler)))
    assert time.perf_counter() - started < 10  # 0.2 s at most, with libyaml


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_any_text_gives_facts(text, framed):
    facts = card(text) if framed else front_matter_facts(text, "README.md")
    assert len(facts.warnings) <= 1
