"""Manifests as text: what is kept to the letter, what is spelled the same, what is refused."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi.kube.manifests import MAX_DEPTH, InvalidManifestError, Scalar, dump, load

TRICKY = """\
# a comment
kind: Pod   # another
metadata: {name: x, labels: {a: yes, b: 0o17, c: 0x1F, d: 1.10, f: "1", g: 'q', i: 1:30}}
when: 2024-01-01
on: 5
empty:
tilde: ~
script: |
  set -e
    indented

folded: >-
  one
  two
"""


def rewritten(text):
    """Return a document's text after it was read and written."""
    return dump(document.value for document in load(text).documents)


def test_scalars_keep_their_spelling():
    text = rewritten(TRICKY)
    for kept in ("a: yes", "b: 0o17", "c: 0x1F", "d: 1.10", 'f: "1"', "g: 'q'", "i: 1:30",
                 "when: 2024-01-01", "on: 5", "script: |\n  set -e\n    indented\n"):  # fmt: skip
        assert kept in text
    assert yaml.safe_load(text) == yaml.safe_load(TRICKY)
    assert rewritten(text) == text


def test_order_is_kept():
    keys = [f"k{i}" for i in (9, 1, 5, 3)]
    value = load("\n".join(f"{key}: 1" for key in keys)).documents[0].value
    assert list(value) == keys


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "---\n---\n",
        "a: 1\n---\n# nothing\n---\nb: 2\n",
        "a: 1",
        "--- {a: 1}\n--- # c\nb: 2\n...\n",
        TRICKY + "---\n" + TRICKY,
        "\ufeffa: 1\n",
        "a: 1\r\nb: 2\r\n---\r\nc: 3\r\n",
    ],
    ids=range(9),
)
def test_documents_that_nobody_changes_keep_their_values(text):
    documents = load(text).documents
    kept = load(load(text).text({})).documents
    assert [d.value for d in kept] == [d.value for d in documents]
    assert all(d.source in text for d in documents)


def test_a_changed_document_leaves_the_others_to_the_letter():
    manifest = load(f"a: 1 # one\n---\n{TRICKY}---\nc: 3   # three\n")
    text = manifest.text({1: [{"new": "yes"}, {"newer": 2}]})
    assert text == 'a: 1 # one\n---\nnew: "yes"\n---\nnewer: 2\n---\nc: 3   # three\n'


def test_anchors_and_merges_are_resolved():
    text = "base: &b {p: 1, q: 2}\nother: {<<: *b, q: 3}\nlist: [*b, {<<: [*b, {r: 4}]}]\n"
    assert yaml.safe_load(rewritten(text)) == yaml.safe_load(text)


def test_null_is_none_and_everything_else_is_text():
    value = load("{a: ~, b: true, c: 1.5, d: text}").documents[0].value
    assert value == {"a": None, "b": "true", "c": "1.5", "d": "text"}
    assert all(isinstance(v, Scalar) for v in value.values() if v is not None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "line 2"),
        ("a: *x", "alias"),
        ("a: &x [*x]", "alias"),
        ("a: 1\na: 2", "'a' twice"),
        ("? [a]\n: 1", "no text"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested"),
        ("a: \x00", "no YAML"),
        ("<<: 3", "merges"),
        ("@x", "line 1"),
        ("a: b: c", "line 1"),
    ],
    ids=lambda value: value[:12],
)
def test_what_is_refused(text, words):
    with pytest.raises(InvalidManifestError, match=words):
        load(text)


def test_aliases_cannot_grow_without_bound():
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    with pytest.raises(InvalidManifestError, match="more than"):
        load(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5))
def test_what_is_written_reads_the_same(value):
    assert yaml.safe_load(dump([value])) == value


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="abc:-{}[]&*!|>'\"#%@`,? \n\t~<0", max_size=60))
def test_any_text_gives_documents_or_the_projects_error(text):
    try:
        documents = load(text).documents
    except InvalidManifestError:
        return
    rewritten_text = dump(d.value for d in documents)
    assert [d.value for d in load(rewritten_text).documents] == [
        d.value for d in documents if d.value is not None
    ]
