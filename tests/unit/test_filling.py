"""Copies, twins and rebuilt layers; the download itself has tests of its own."""

import contextlib
import hashlib
import io
import os

import pytest

from modelpack.artifact import Artifact, build_manifest
from modelpack.chunkindex import ChunkIndex
from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.digest import Digest, chunk_hash
from modelpack.errors import IntegrityError
from modelpack.events import ignore
from modelpack.filling import check_layer, fill_staging
from modelpack.layering import SourceFile, frames
from modelpack.plan import ChunkMap
from modelpack.stores.staging import Staging
from tests.support.indexes import make_index
from tests.support.models import random_bytes, write_files

ONE, TWO = random_bytes(5000, 1), random_bytes(300, 2)


class Local(dict):
    """Chunks on this machine, as ``reuse.LocalChunks``: a container of hashes that reads them."""

    def share(self, value, fd, offset, length):
        return False

    def read(self, value, buffer):
        return None if self[value] is None else memoryview(self[value])


class NoRepository:
    def range_connection(self):
        raise AssertionError("nothing is to be fetched")


class Layers:
    """A repository that gives ranges of layers, and counts what it gave."""

    def __init__(self, layers):
        self.layers = layers
        self.given = 0

    def range_connection(self):
        return self

    def open_range(self, descriptor, start, length):
        data = self.layers[descriptor.digest][start : start + length]
        self.given += len(data)
        return contextlib.nullcontext(io.BytesIO(data))

    def abort(self):
        """Nothing to stop."""

    def close(self):
        """Nothing is open."""


def index_of(chunks, lengths=None):
    """An index of files by path, each a list of chunks."""
    index = make_index([(path, [len(c) for c in given]) for path, given in chunks.items()])
    hashes = b"".join(chunk_hash(c) for file in index.files for c in chunks[file.path])
    return ChunkIndex(
        layers=index.layers, files=index.files, lengths=lengths or index.lengths, hashes=hashes
    )


def fill(tmp_path, index, repository, local):
    artifact = Artifact(
        manifest=build_manifest(
            config=b"{}",
            data_layers=[
                Descriptor(media_type=OCI_LAYER_TAR, digest=layer.digest, size=layer.size)
                for layer in index.layers
            ],
            metadata_layer=b"",
            annotations={},
        ),
        index=index,
        metadata={},
    )
    staging = Staging(
        tmp_path / "staging",
        key=bytes(32),
        chunk_map=ChunkMap.of(index),
        files=range(len(index.files)),
        observer=ignore,
    )
    try:
        received = fill_staging(
            repository,
            artifact,
            chunk_map=ChunkMap.of(index),
            staging=staging,
            local=local,
            announce=lambda _: None,
            observer=ignore,
            connections=1,
        )
    finally:
        staging.close()
    return received, [staging.path(n).read_bytes() for n in range(len(index.files))]


def test_what_is_here_is_copied_and_twins_once_more(tmp_path):
    index = index_of({"a": [ONE, TWO], "b": [TWO, ONE]})
    local = Local({chunk_hash(ONE): ONE, chunk_hash(TWO): TWO})
    assert fill(tmp_path, index, NoRepository(), local) == (0, [ONE + TWO, TWO + ONE])


def layer_bytes(index, contents):
    files = [SourceFile(path=f.path, size=f.size, mode=f.mode) for f in index.files]
    return b"".join(frame + (contents[f.path] if f else b"") for frame, f in frames(files))


@pytest.mark.parametrize("lie", [None, TWO, ONE + b"more"], ids=["gone", "shorter", "longer"])
def test_a_copy_of_another_length_is_fetched_after_all(tmp_path, lie):
    """It must not run into the chunk after it, whatever its hash is said to be."""
    index = index_of({"a": [ONE, TWO]})
    repository = Layers({index.layers[0].digest: layer_bytes(index, {"a": ONE + TWO})})
    local = Local({chunk_hash(ONE): lie, chunk_hash(TWO): TWO})
    received, (content,) = fill(tmp_path, index, repository, local)
    assert content == ONE + TWO
    assert received == repository.given == len(ONE)


CONTENTS = {"a/b": ONE, "c": TWO, "empty": b""}


class TestRebuilding:
    def check(self, root, contents=None):
        index = index_of({path: [d] if d else [] for path, d in CONTENTS.items()})
        write_files(root, contents or CONTENTS)
        layer = Digest("sha256", hashlib.sha256(layer_bytes(index, CONTENTS)).hexdigest())
        check_layer(layer, index.files, lambda path: os.open(root / path, os.O_RDONLY), str(root))

    def test_the_files_of_a_layer_rebuild_it(self, tmp_path):
        before = len(os.listdir("/proc/self/fd"))
        self.check(tmp_path)
        assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize("path", ["a/b", "c", "empty"])
    def test_a_changed_file_does_not(self, tmp_path, path):
        changed = {**CONTENTS, path: CONTENTS[path][:-1] + b"!"}
        with pytest.raises(IntegrityError, match=r"do not rebuild it \(a/b, c, empty\)"):
            self.check(tmp_path, changed)
