import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.selection import Selection
from tests.support.indexes import PATHS

# pattern -> paths it takes, paths it does not
PATTERNS = {
    "*.safetensors": (
        ["a.safetensors", "weights/a.safetensors", ".safetensors", "x.safetensors/inner"],
        ["a.safetensors.index.json", "a.gguf", "safetensors"],
    ),
    "config.json": (
        ["config.json", "sub/config.json", "config.json/inner"],
        ["tokenizer_config.json", "config.jsonx", "CONFIG.json"],
    ),
    "original": (
        ["original", "original/a", "original/b/c", "x/original/y"],
        ["original.txt", "my-original/x"],
    ),
    "original/": (["original/a", "original/b/c", "x/original/y"], ["original.txt"]),
    "/original": (["original/a", "original"], ["x/original/a"]),
    "/*.json": (["a.json"], ["sub/a.json"]),
    "a/b": (["a/b", "a/b/c", "a/b/c/d"], ["x/a/b", "a/bc", "a"]),
    "a/*": (["a/b", "a/b/c"], ["a", "b/a", "ab"]),
    "a/*.txt": (["a/x.txt", "a/x.txt/y"], ["a/b/x.txt", "x.txt"]),
    "a/**": (["a/b", "a/b/c"], ["a", "b/a/c"]),
    "**/a": (["a", "x/a", "x/y/a", "a/z", "x/a/z"], ["xa", "ax"]),
    "**/a/*.txt": (["a/x.txt", "b/a/x.txt", "c/b/a/x.txt"], ["a/b/x.txt"]),
    "a/**/b": (["a/b", "a/x/b", "a/x/y/b", "a/x/b/z"], ["ab", "a/xb", "b"]),
    "?.bin": (["a.bin", "é.bin", "sub/x.bin"], ["ab.bin", ".bin"]),
    "model-0000?-of-*": (["model-00001-of-00002.gguf"], ["model-00010-of-00012.gguf"]),
    "*": (["a", "a/b", ".hidden"], []),
    "**": (["a", "a/b/c"], []),
    "[ab].txt": (["[ab].txt"], ["a.txt"]),
    "a+b(c).$": (["a+b(c).$"], ["aab(c).$"]),
    "": ([], ["a"]),
    "日本*": (["日本語.txt"], ["本.txt"]),
}
CASES = [
    pytest.param(pattern, path, takes, id=f"{pattern!a}-{path!a}")
    for pattern, both in PATTERNS.items()
    for takes, paths in zip((True, False), both, strict=True)
    for path in paths
]


@pytest.mark.parametrize(("pattern", "path", "takes"), CASES)
def test_what_a_pattern_takes(pattern, path, takes):
    assert Selection(include=(pattern,)).takes(path) is takes
    assert Selection(exclude=(pattern,)).takes(path) is not takes


def test_without_patterns_everything_is_taken():
    assert Selection().is_everything
    assert Selection().takes("anything/at/all")
    assert not Selection(include=("*",)).is_everything
    assert not Selection(exclude=("x",)).is_everything


def test_exclusion_has_the_last_word():
    chosen = Selection(include=("*.json", "*.bin"), exclude=("original", "secret.*"))
    assert chosen.takes("config.json")
    assert chosen.takes("a/b.bin")
    assert not chosen.takes("a/b.txt")
    assert not chosen.takes("original/config.json")
    assert not chosen.takes("secret.json")


@given(PATHS)
@settings(deadline=None)
def test_a_path_names_itself_and_what_is_below_it(path):
    if set(path) & set("*?"):
        return
    chosen = Selection(include=("/" + path,))
    assert chosen.takes(path)
    assert chosen.takes(path + "/below")
    assert not chosen.takes("above/" + path)
    assert not chosen.takes(path + "x")


@given(st.text(max_size=20), PATHS)
@settings(deadline=None)
def test_any_pattern_says_yes_or_no(pattern, path):
    takes = Selection(include=(pattern,)).takes(path)
    assert takes is not Selection(exclude=(pattern,)).takes(path)
