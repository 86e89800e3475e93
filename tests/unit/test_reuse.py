import errno
import os

import pytest

from modelpack import reuse
from modelpack.chunkindex import encode_index
from modelpack.digest import chunk_hash
from modelpack.errors import NotFoundError, UsageError
from modelpack.reuse import LocalChunks
from tests.support.indexes import make_index
from tests.support.models import CHUNK, one_shard, random_bytes, write_files

A, B = random_bytes(CHUNK, 1), random_bytes(1000, 2)
HASHES = [chunk_hash(A), chunk_hash(B)]


@pytest.fixture
def local():
    chunks = LocalChunks(HASHES)
    yield chunks
    chunks.close()


def indexed(directory, files):
    """Write files and an index of one chunk after another of theirs; return the index."""
    write_files(directory, {path: b"".join(chunks) for path, chunks in files.items()})
    index = make_index([(path, [len(chunk) for chunk in chunks]) for path, chunks in files.items()])
    by_path = index.by_path()
    hashes = bytearray(index.hashes)
    for path, chunks in files.items():
        for number, chunk in zip(by_path[path].chunks, chunks, strict=True):
            hashes[32 * number : 32 * number + 32] = chunk_hash(chunk)
    return type(index)(
        layers=index.layers, files=index.files, lengths=index.lengths, hashes=bytes(hashes)
    )


def test_chunks_by_their_index(local, tmp_path):
    index = indexed(tmp_path, {"x/a.bin": [b"head", A], "b.bin": [B, b"tail"]})
    local.add_indexed(tmp_path, index, index.files)
    assert all(value in local for value in HASHES)
    assert chunk_hash(b"head") not in local  # nobody asked for it
    assert [local.read(value) for value in HASHES] == [A, B]


def test_only_the_files_named(local, tmp_path):
    index = indexed(tmp_path, {"a.bin": [A], "b.bin": [B]})
    local.add_indexed(tmp_path, index, [index.by_path()["b.bin"]])
    assert [value in local for value in HASHES] == [False, True]


def test_a_directory_without_an_index_is_hashed(local, tmp_path):
    write_files(tmp_path / "seed", {"sub/a.bin": A, "b.bin": B})
    local.add_directory(tmp_path / "seed")
    assert [local.read(value) for value in HASHES] == [A, B]


def test_a_pulled_directory_is_not_read(local, tmp_path, monkeypatch):
    index = indexed(tmp_path / "seed", {"a.bin": [A], "b.bin": [B]})
    write_files(tmp_path / "seed", {".modelpack/chunks.bin": encode_index(index)})
    monkeypatch.setattr(LocalChunks, "_hash_directory", None)
    local.add_directory(tmp_path / "seed")
    assert [local.read(value) for value in HASHES] == [A, B]


def test_a_damaged_index_is_no_index(local, tmp_path):
    write_files(tmp_path / "seed", {"a.bin": A, ".modelpack/chunks.bin": b"MPKCHNK\x01nonsense"})
    local.add_directory(tmp_path / "seed")
    assert local.read(HASHES[0]) == A


def test_chunks_of_tensors(tmp_path):
    shard = one_shard([1], size=700_000)
    write_files(tmp_path / "seed", {"m.safetensors": shard})
    tensor = shard[-700_000 - 512 : -512]
    local = LocalChunks([chunk_hash(tensor)])
    local.add_directory(tmp_path / "seed")
    assert local.read(chunk_hash(tensor)) == tensor
    local.close()


def test_a_download_that_broke_off_still_helps(local, tmp_path):
    """A tensor file cut short is damaged, but its first chunks are what they were."""
    write_files(tmp_path / "seed", {"a.safetensors": A + b"x", "b.gguf": B})
    local.add_directory(tmp_path / "seed")
    assert [local.read(value) for value in HASHES] == [A, B]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
        lambda path: os.truncate(path, 10),
        lambda path: path.unlink(),
        lambda path: (path.rename(path.with_name("moved")), path.symlink_to("moved")),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
    ids=["changed", "shorter", "gone", "a-link", "a-directory", "a-fifo"],
)
def test_what_is_no_longer_what_it_was_is_not_reused(local, tmp_path, damage):
    index = indexed(tmp_path, {"x/a.bin": [A]})
    local.add_indexed(tmp_path, index, index.files)
    damage(tmp_path / "x" / "a.bin")
    assert local.read(HASHES[0]) is None


def test_sharing_is_given_up_where_it_cannot_be(local, tmp_path, monkeypatch):
    tried = []

    def share(*arguments):
        tried.append(arguments[1:])
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(reuse, "share_blocks", share)
    index = indexed(tmp_path, {"a.bin": [b"head", A], "b.bin": [B]})
    local.add_indexed(tmp_path, index, index.files)
    assert not local.share(HASHES[0], 7, 100, len(A) + 1)  # another length
    assert not local.share(HASHES[0], 7, 100, len(A))
    assert not local.share(HASHES[1], 7, 0, len(B))
    assert tried == [(4, 7, 100, len(A))]
    assert local.read(HASHES[0]) == A


def test_what_has_gone_is_not_shared(local, tmp_path, monkeypatch):
    index = indexed(tmp_path, {"a.bin": [A]})
    local.add_indexed(tmp_path, index, index.files)
    (tmp_path / "a.bin").unlink()
    assert not local.share(HASHES[0], 7, 0, len(A))


def test_a_link_on_the_way_is_not_followed(local, tmp_path):
    index = indexed(tmp_path / "real", {"x/a.bin": [A]})
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / "x").symlink_to(tmp_path / "real" / "x")
    local.add_indexed(tmp_path / "seed", index, index.files)
    assert local.read(HASHES[0]) is None


def test_the_first_place_counts(local, tmp_path):
    index = indexed(tmp_path / "one", {"a.bin": [A]})
    local.add_indexed(tmp_path / "one", index, index.files)
    write_files(tmp_path / "two", {"a.bin": A})
    local.add_directory(tmp_path / "two")
    assert local.read(HASHES[0]) == A


def test_a_hugging_face_snapshot(local, tmp_path):
    home = tmp_path / "models--org--name"
    write_files(home, {"blobs/1": A, "blobs/2": B})
    snapshot = home / "snapshots" / "abc" / "sub"
    snapshot.mkdir(parents=True)
    (snapshot / "a.bin").symlink_to("../../../blobs/1")
    (snapshot.parent / "b.bin").symlink_to("../../blobs/2")
    local.add_directory(home / "snapshots" / "abc")
    assert [local.read(value) for value in HASHES] == [A, B]


def test_many_files_take_few_descriptors(local, tmp_path):
    write_files(tmp_path / "seed", {f"{n % 50}/{n}.txt": str(n).encode() for n in range(600)})
    before = len(os.listdir("/proc/self/fd"))
    local.add_directory(tmp_path / "seed")
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    local.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_such_directory(local, tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        local.add_directory(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="is not a directory"):
        local.add_directory(tmp_path / "file")


def test_the_rule_for_chunks_is_the_packers():
    assert reuse.chunk_lengths_of.__module__ == "modelpack.packing"
