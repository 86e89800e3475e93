import sys
import time
import tracemalloc
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import FormatError
from modelpack.paths import (
    MAX_DIRECTORIES,
    MAX_PATH_PARTS,
    check_path,
    check_paths,
    collision_key,
    parent_of,
)
from tests.support import secondreader
from tests.support.indexes import PATHS


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a/b",
        ".hidden/.also",
        "...",
        "a/..b",
        " spaces and\u00a0more ",
        "наука/модель-日本語.txt",
        "e\u0301 decomposed",
        "emoji-\U0001f600",
        "\u202egnp.exe",
        "a" * 255,
        "é" * 127 + "a",
        "/".join(["a" * 255] * 11 + ["a" * 255]),
        "/".join("a" * MAX_PATH_PARTS),
        "a/" * 125 + "f",
        "wh.a",
        "a.wh.",
        "C:",
        "con",
        "-rf",
        "*?[]{}",
        ".modelpack-not",
    ],
    ids=lambda path: ascii(path[:30]),
)
def test_allowed(path):
    assert check_path(path) is path
    check_paths([path])
    secondreader.check_paths([path])


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (None, "must be a string"),
        (b"a", "must be a string"),
        (1, "must be a string"),
        ("", "empty"),
        ("a" * 3073, "longer than 3072 bytes"),
        ("/".join(["é" * 100] * 16), "longer than 3072 bytes"),
        ("\ud800", "not valid UTF-8"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x1b[2J", "control character"),
        ("a\x7f", "control character"),
        ("a\x9b", "control character"),
        ("a\\b", "backslash"),
        ("..\\..\\a", "backslash"),
        ("/", "absolute"),
        ("/etc/passwd", "absolute"),
        ("//a", "absolute"),
        ("a//b", "empty, '.' or '..' part"),
        ("a/", "empty, '.' or '..' part"),
        (".", "empty, '.' or '..' part"),
        ("./a", "empty, '.' or '..' part"),
        ("a/./b", "empty, '.' or '..' part"),
        ("..", "empty, '.' or '..' part"),
        ("../a", "empty, '.' or '..' part"),
        ("a/../../b", "empty, '.' or '..' part"),
        ("a/..", "empty, '.' or '..' part"),
        ("a" * 256, "longer than 255 bytes"),
        ("é" * 128, "longer than 255 bytes"),
        (".wh.a", "whiteout"),
        ("a/.wh..wh..opq", "whiteout"),
        (".wh.d/a", "whiteout"),
        ("a/" * MAX_PATH_PARTS + "a", "more than 128 parts"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_refused(path, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        check_path(path)
    assert len(str(caught.value)) < 2200
    assert str(caught.value).isprintable()
    if isinstance(path, str):
        with pytest.raises(secondreader.RefusedError):
            secondreader.check_paths([path])


COLLISIONS = {
    "equal": ["a", "a"],
    "equal-but-other-objects": ["a/b", "/".join("ab")],
    "case": ["README", "readme"],
    "case-in-a-directory": ["a/B", "a/b"],
    "directories": ["a/x", "A/y"],
    "deep-directories": ["a/b/c/x", "a/B/c/y"],
    "deeper-first": ["a/b/c/d/x", "a/B/y"],
    "directory-above": ["q/a/b/x", "Q/a/b/y"],
    "full-case-folding": ["straße", "STRASSE"],
    "sigma": ["ΣΑΣ", "σας"],
    "composed": ["\u00e9", "e\u0301"],
    "composed-directory": ["\u00e9/x", "e\u0301/y"],
    "angstrom": ["\u212b", "\u00e5"],
    "kelvin": ["\u212a", "k"],
    "file-and-directory": ["a", "a/b"],
    "directory-and-file": ["a/b", "a"],
    "file-and-directory-in-another-case": ["A", "a/b"],
    "deep-file-and-directory": ["a/b/c/d", "a/b"],
    "reserved": [".modelpack"],
    "reserved-directory": [".modelpack/chunks.bin"],
    "reserved-in-another-case": [".ModelPack/x"],
    "reserved-by-folding": [".modelpac\u212a/x"],
}


@pytest.mark.parametrize("paths", COLLISIONS.values(), ids=COLLISIONS)
def test_paths_that_cannot_be_beside_each_other(paths):
    for order in (paths, paths[::-1], ["0", *paths, "z/z"]):
        with pytest.raises(FormatError, match=r"collide|both a file and|reserved"):
            check_paths(order)
        with pytest.raises(secondreader.RefusedError):
            secondreader.check_paths(order)


def test_paths_that_can():
    check_paths([])
    check_paths(
        ["a", "ab", "a.b", "b/a", "b/ab", "c/d/e", "c/d/f", "c/g", ".modelpack-x", "\u0131", "i"]
    )


@given(st.lists(PATHS, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
@settings(deadline=None)
def test_the_second_reader_agrees(paths, upper):
    paths = [path.upper() if up else path for path, up in zip(paths, upper, strict=False)]
    try:
        check_paths(paths)
    except FormatError:
        with pytest.raises(secondreader.RefusedError):
            secondreader.check_paths(paths)
    else:
        secondreader.check_paths(paths)


@given(st.text())
@settings(deadline=None)
def test_any_text_is_a_path_or_our_error(text):
    try:
        names = check_path(text).split("/")
    except FormatError:
        return
    assert all(name and name not in {".", ".."} for name in names)


@given(st.text())
@settings(deadline=None)
def test_the_key_is_one_under_folding_and_normalizing(text):
    key = collision_key(text)
    assert collision_key(unicodedata.normalize("NFD", text)) == key
    assert collision_key(text.casefold()) == key
    assert key.count("/") == text.count("/")


@pytest.mark.parametrize(
    ("path", "above"), [("a", ""), ("a/b", "a"), ("a/b/c", "a/b"), ("é/x", "é")]
)
def test_parent(path, above):
    assert parent_of(path) == above


def test_hostile_depth_costs_little():
    """A megabyte of deep paths once took gigabytes and minutes."""
    deep = "/".join("a" * (MAX_PATH_PARTS - 2))
    paths = [f"{number:05}/{deep}" for number in range(4000)]
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(FormatError, match=f"more than {MAX_DIRECTORIES} directories"):
        check_paths(paths)
    assert time.perf_counter() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_many_files_in_many_directories_are_allowed():
    check_paths(f"{number // 100}/{number}/x" for number in range(19_000))


def test_every_control_character_is_refused():
    """They are told by a pattern, which must be all of Unicode's category Cc."""
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) == "Cc":
            with pytest.raises(FormatError, match="control"):
                check_path(f"a{chr(code)}b")
    assert check_path("a\u2028b\u00adc") == "a\u2028b\u00adc"
