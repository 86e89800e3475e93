"""docs/format.md is what the code does: its names, its example, and a reader written from it alone."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings

import modelpack
from modelpack import format as names
from modelpack import metadata as metadata_module
from modelpack.chunkindex import encode_index
from modelpack.chunking import chunk_lengths
from modelpack.connect import open_repository
from modelpack.metadata import read_metadata_layer
from modelpack.tensors import Tensor, TensorFile
from modelpack.tensors.dtypes import GGML_TYPES, SAFETENSORS_BITS
from tests.support import secondreader
from tests.support.indexes import indexes, make_index
from tests.support.models import CHUNK, random_bytes, read_tree, write_files
from tests.support.samplemodel import build_sample

DOC = (Path(__file__).parents[2] / "docs" / "format.md").read_text()


def section(title):
    return DOC.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_names_and_numbers_are_those_of_the_module():
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| `?([^`|]+?)`? \|$", section("2. Names and numbers"), re.MULTILINE
    )
    written = dict(rows)
    assert len(rows) == len(written) > 20
    assert {name: str(getattr(names, name)) for name in written} == written
    assert set(names.__all__) - set(written) == {"INDEX_MAGIC"}
    assert "`" + names.INDEX_MAGIC[:7].hex(" ") + "`" in section("5. The chunk index")


def test_the_element_types_are_those_of_the_parsers():
    text = section("6. Where chunks end")
    rows = re.findall(r"^\| (\d+) \| ([A-Z0-9_ ]+) \|$", text, re.MULTILINE)
    assert {name: int(bits) for bits, line in rows for name in line.split()} == SAFETENSORS_BITS
    listed = re.findall(r"(\d+):(\w+) (\d+)/(\d+)", text)
    assert {int(n): (name, int(a), int(b)) for n, name, a, b in listed} == GGML_TYPES


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def example(tmp_path):
    model = write_files(tmp_path / "model", {"hello.txt": b"hello\n", "bin/run": b""})
    (model / "bin/run").chmod(0o755)
    (model / "hello.txt").chmod(0o644)
    reference = f"oci:{tmp_path / 'store'}:v1"
    modelpack.push(model, reference)
    with open_repository(reference) as repository:
        manifest = repository.fetch_manifest("v1")
        raw = repository.fetch_blob(manifest.layers[-1], max_bytes=2**20)
    return manifest, read_metadata_layer(raw)


def test_the_example_is_what_the_code_writes(example):
    manifest, metadata = example
    text = section("5. The chunk index").split("### 5.4 Example", 1)[1]
    dump = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+) ", text, re.MULTILINE)
    assert [int(offset, 16) for offset, _ in dump] == list(range(0, 479, 16))
    assert bytes.fromhex("".join(row for _, row in dump)) == metadata["chunks.bin"]
    assert manifest.layers[0].digest.hex in text
    assert manifest.layers[0].size == 3072


def test_the_example_of_chunk_boundaries():
    kib = 1024
    at = 9 * kib
    tensors = []
    for name, length in [
        ("model.layers.0.mlp.weight", 9 * 1024 * kib),
        ("model.layers.0.norm.weight", 8 * kib),
        ("model.layers.0.bias", 4 * kib),
        ("model.layers.1.norm.weight", 8 * kib),
    ]:
        tensors.append(Tensor(name=name, dtype="U8", shape=(length,), offset=at, length=length))
        at += length
    file = TensorFile(format="safetensors", size=at, header_length=9 * kib, tensors=tuple(tensors))
    mib = 1024 * kib
    assert chunk_lengths(at, file) == [9 * kib, 4 * mib, 4 * mib, mib, 12 * kib, 8 * kib]


def shapes(root):
    """A model in which every rule of the tar and of the layers shows."""
    build_sample(root)
    return write_files(
        root,
        {
            "n" * 99: b"99",
            "n" * 100: b"100",
            "n" * 101: b"101",
            "d" * 99 + "/" + "x": b"a directory of 99 bytes, 100 with its slash",
            "D" * 100 + "/" + "x": b"one of 100",
            "é" * 60: b"not ASCII",
            "exactly.bin": random_bytes(CHUNK, 7),
            "twice.bin": random_bytes(CHUNK, 7),
            "model.gguf.txt": b"GGUF, but not really",
            '"quoted" \u2028 {}': b"odd but allowed",
        },
    )


def test_the_second_reader_reconstructs_what_modelpack_packs(tmp_path):
    model = shapes(tmp_path / "model")
    pushed = modelpack.push(model, f"oci:{tmp_path / 'store'}:v1")
    index = secondreader.read_artifact(tmp_path / "store", "v1", tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(model)
    assert len(index.chunks) == pushed.chunks
    assert len(index.layers) == pushed.layers - 1


@given(indexes())
@settings(max_examples=60, deadline=None)
def test_the_second_reader_proves_every_valid_index(index):
    read = secondreader.read_index(encode_index(index))
    assert [file["path"] for file in read.files] == [file.path for file in index.files]
    assert [length for length, _ in read.chunks] == list(index.lengths)


def test_the_rule_for_shared_layers():
    """Section 4.1: layer k has the large files from k*n//m on, and small files come last."""
    large = [f"model-{number:03}.bin" for number in range(250)]
    index = make_index([(path, [CHUNK]) for path in large] + [("config.json", [9]), ("a", [])])
    read = secondreader.read_index(encode_index(index))
    by_layer = [[f["path"] for f in read.files if f["layer"] == layer] for layer in range(99)]
    assert by_layer[98] == ["a", "config.json"]
    assert by_layer[:98] == [large[k * 250 // 98 : (k + 1) * 250 // 98] for k in range(98)]


def test_the_second_reader_refuses_what_modelpack_refuses(tmp_path):
    """A changed byte in any blob of the store is found by both."""
    model = write_files(tmp_path / "model", {"a.bin": b"a" * 100, "b/c.txt": b"c"})
    modelpack.push(model, f"oci:{tmp_path / 'store'}:v1", companion=False)
    blobs = sorted((tmp_path / "store" / "blobs" / "sha256").iterdir())
    for number, blob in enumerate(blobs):
        original = blob.read_bytes()
        changed = bytearray(original)
        # In a layer a byte of a file: the framing is not fetched, so its loss costs nothing.
        changed[original.find(b"aaaa") if b"aaaa" in original else len(original) // 4] ^= 1
        blob.write_bytes(changed)
        with pytest.raises((secondreader.RefusedError, ValueError)):
            secondreader.read_artifact(tmp_path / "store", "v1", tmp_path / f"out-{number}")
        assert not modelpack_accepts(f"oci:{tmp_path / 'store'}:v1")
        blob.write_bytes(original)
    assert modelpack_accepts(f"oci:{tmp_path / 'store'}:v1")


def modelpack_accepts(reference):
    try:
        return modelpack.verify_reference(reference, full=True).ok
    except modelpack.ModelpackError:
        return False


def test_files_of_later_versions_in_the_metadata_layer(tmp_path, monkeypatch):
    """Section 13: they are ignored, kept, and taken away with the version that brought them."""
    model = write_files(tmp_path / "model", {"a.bin": b"a"})
    original = metadata_module.build_metadata_layer
    with monkeypatch.context() as patch:
        patch.setattr(
            metadata_module,
            "build_metadata_layer",
            lambda files: original({**files, "from.the.future": b"x"}),
        )
        modelpack.push(model, f"oci:{tmp_path / 'store'}:v1")
    out = tmp_path / "out"
    modelpack.pull(f"oci:{tmp_path / 'store'}:v1", out)
    assert (out / ".modelpack" / "from.the.future").read_bytes() == b"x"
    report = modelpack.verify(out)
    assert report.ok
    assert report.digest is not None  # all files of the layer rebuild it
    secondreader.read_artifact(tmp_path / "store", "v1", tmp_path / "second")
    modelpack.push(model, f"oci:{tmp_path / 'store'}:v2")
    modelpack.pull(f"oci:{tmp_path / 'store'}:v2", out)
    assert not (out / ".modelpack" / "from.the.future").exists()
    assert modelpack.verify(out).digest is not None
