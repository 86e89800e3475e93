"""Layers as blobs: the engine's chunks and the framing together are the layer's very bytes."""

import hashlib

import pytest

import modelpack
from modelpack.artifact import load_artifact
from modelpack.connect import open_repository
from modelpack.digest import chunk_hash
from modelpack.runtime.blobs import FramedChunks, blob_index
from tests.support.samplemodel import build_sample


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build_sample(tmp_path / "model")
    reference = f"oci:{tmp_path / 'store'}:v1"
    modelpack.push(tmp_path / "model", reference)
    with open_repository(reference) as repository:
        return load_artifact(repository, repository.fetch_manifest("v1")).index


def test_framing_and_local_chunks_rebuild_every_layer(index, tmp_path):
    blobs, framing = blob_index(index)
    wanted = {blobs.hash_of(chunk) for chunk in range(blobs.chunk_count)}
    local = FramedChunks(wanted, framing)
    local.add_directory(tmp_path / "model")
    try:
        for file, layer in zip(blobs.files, index.layers, strict=True):
            pieces = [local.read(blobs.hash_of(chunk)) for chunk in file.chunks]
            assert [len(piece) for piece in pieces] == [blobs.lengths[n] for n in file.chunks]
            data = b"".join(pieces)
            assert len(data) == file.size == layer.size
            assert hashlib.sha256(data).hexdigest() == layer.digest.hex == file.path
    finally:
        local.close()


def test_the_framing_is_all_that_the_model_lacks(index):
    blobs, framing = blob_index(index)
    theirs = {index.hash_of(chunk) for chunk in range(index.chunk_count)}
    mine = {blobs.hash_of(chunk) for chunk in range(blobs.chunk_count)}
    assert mine - theirs == framing.keys()
    assert all(chunk_hash(data) == value for value, data in framing.items())
    assert sum(blobs.lengths) == sum(layer.size for layer in index.layers)
