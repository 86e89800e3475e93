import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import FormatError
from modelpack.tensors import bytes_reader, probe
from tests.support.tensorfiles import gguf_file, safetensors_file, safetensors_raw

SAFETENSORS = safetensors_file([("x", "F32", (2,), bytes(8))])
GGUF = gguf_file([("x", (8,), 0, bytes(32))])
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n"


def look(name, data):
    return probe(name, bytes_reader(data), len(data))


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("model.safetensors", SAFETENSORS, "safetensors"),
        ("unet/MODEL.SafeTensors", SAFETENSORS, "safetensors"),
        ("blobs/sha256-00", SAFETENSORS, "safetensors"),
        ("model.gguf", GGUF, "gguf"),
        ("blobs/sha256-00", GGUF, "gguf"),
        ("wrongly-named.gguf", SAFETENSORS, "safetensors"),
        ("wrongly-named.safetensors", GGUF, "gguf"),
    ],
)
def test_valid_files_are_recognised_by_their_content(name, data, expected):
    assert look(name, data).format == expected


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.bin", b""),
        ("config.json", b'{"model_type": "llama"}'),
        ("README.md", b"GGUF is a file format for models, this is a text about it."),
        ("cut", GGUF[:-1]),
        ("cut", SAFETENSORS[:-1]),
        ("looks-like-it", safetensors_raw(b'{"x": 1}')),
        ("pointer.txt", LFS_POINTER),
        ("safetensors", b"no suffix, no tensors"),
    ],
    ids=[
        "empty",
        "json",
        "text",
        "cut-gguf",
        "cut-safetensors",
        "json-head",
        "pointer",
        "no-suffix",
    ],
)
def test_other_files_hold_no_tensors(name, data):
    assert look(name, data) is None


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.safetensors", b"", "too short"),
        ("a.safetensors", SAFETENSORS[:-1], "cut short"),
        ("a.safetensors", b"<!DOCTYPE html><html>Not found</html>", "header"),
        ("a.safetensors", LFS_POINTER, "git lfs pull"),
        ("a.gguf", b"", "too short"),
        ("a.gguf", GGUF[:-1], "cut short"),
        ("a.gguf", LFS_POINTER, "git lfs pull"),
        ("a.gguf", bytes(100), "does not begin"),
    ],
    ids=[
        "empty-st",
        "cut-st",
        "html-st",
        "lfs-st",
        "empty-gguf",
        "cut-gguf",
        "lfs-gguf",
        "zeros-gguf",
    ],
)
def test_a_file_that_is_not_what_its_name_claims_is_an_error(name, data, reason):
    with pytest.raises(FormatError, match=reason):
        look(name, data)


def test_an_ordinary_file_costs_one_short_read():
    asked = []

    def read(offset, length):
        asked.append((offset, length))
        return b"x" * length

    assert probe("pytorch_model.bin", read, 10**12) is None
    assert len(asked) == 1
    assert asked[0][1] < 100


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["a", "a.gguf", "a.safetensors"]), st.binary(max_size=100))
def test_any_file_gives_an_answer(name, data):
    try:
        found = look(name, data)
    except FormatError:
        assert name != "a"
    else:
        assert found is None or found.size == len(data)
