"""The staging directory is believed only as far as it proves itself, whatever happened to it."""

import os
import threading

import pytest

from modelpack.chunkindex import ChunkIndex
from modelpack.digest import chunk_hash
from modelpack.errors import ModelpackError, SpaceError
from modelpack.events import ignore
from modelpack.plan import ChunkMap
from modelpack.stores import staging as staging_module
from modelpack.stores.staging import JOURNAL, Staging
from tests.support.indexes import make_index
from tests.support.models import random_bytes

LENGTHS = [3000, 4096, 500]
KEY = b"k" * 32


def content(file: str, number: int) -> bytes:
    return random_bytes(LENGTHS[number], seed=hash((file, number)) % 1000)


def index_of(*paths: str) -> ChunkIndex:
    index = make_index([(path, LENGTHS) for path in paths])
    hashes = b"".join(
        chunk_hash(content(file.path, number))
        for file in index.files
        for number in range(len(LENGTHS))
    )
    return ChunkIndex(layers=index.layers, files=index.files, lengths=index.lengths, hashes=hashes)


@pytest.fixture
def open_staging(tmp_path):
    """Open the staging directory of one artifact, as often as a test wants."""
    index = index_of("a", "b")
    opened = []

    def open_it(files=(0, 1), observer=ignore):
        opened.append(
            Staging(
                tmp_path / "staging",
                key=KEY,
                chunk_map=ChunkMap.of(index),
                files=files,
                observer=observer,
            )
        )
        return opened[-1]

    yield open_it
    for staging in opened:
        staging.close()


def fill(staging: Staging, chunks=range(6)) -> None:
    for chunk in chunks:
        staging.write(chunk, 0, memoryview(content("ab"[chunk // 3], chunk % 3)))
        staging.verified((chunk,))


@pytest.mark.parametrize("damage", ["removed", "shortened", "replaced-by-a-shorter"])
def test_a_journal_does_not_outlive_its_file(damage, open_staging, tmp_path):
    """A partial file that was lost is made again with holes: the old journal must not vouch for it."""
    first = open_staging()
    fill(first)
    first.sync()
    first.close()
    partial = tmp_path / "staging" / "0"
    if damage == "removed":
        partial.unlink()
    elif damage == "shortened":
        os.truncate(partial, 100)
    else:
        partial.unlink()
        partial.write_bytes(b"x")
    second = open_staging()
    assert second.verified_chunks == {3, 4, 5}
    second.write(0, 0, memoryview(b"unverified"))  # makes the file, in its full length
    # Here the power fails: nothing more is journaled.
    third = open_staging()
    assert third.verified_chunks == {3, 4, 5}


def test_what_was_written_and_not_journaled_is_hashed(open_staging):
    first = open_staging()
    fill(first, chunks=[0, 2, 4])
    first.write(1, 0, memoryview(bytes(LENGTHS[1])))  # other bytes
    again = open_staging()
    assert again.verified_chunks == {0, 2, 4}


def test_closing_leaves_a_file_open_that_somebody_still_writes(open_staging, tmp_path):
    """After a second interrupt a worker may still write: its descriptor must not become another's."""
    staging = open_staging()
    with staging._file(0) as fd:
        staging.close()
        assert os.pwrite(fd, b"late", 0) == 4
    assert (tmp_path / "staging" / "0").read_bytes()[:4] == b"late"


def test_a_staging_directory_that_cannot_be_read_leaves_nothing_open(open_staging, monkeypatch):
    first = open_staging()
    fill(first)
    first.close()
    os.truncate(first.directory / JOURNAL, 0)
    before = set(os.listdir("/proc/self/fd"))
    threads = threading.active_count()

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(staging_module.Staging, "_hashes_right", broken)
    with pytest.raises(ModelpackError, match="Input/output error"):
        open_staging()
    assert set(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads


def test_the_disk_that_refuses_to_sync_is_heard_of_at_last(open_staging, monkeypatch):
    staging = open_staging()

    def full(_fd):
        raise OSError(28, "No space left on device")

    fill(staging)
    monkeypatch.setattr(staging_module.os, "fdatasync", full)
    with pytest.raises(SpaceError, match="No space"):
        staging.complete()
    monkeypatch.undo()
    assert (staging.directory / JOURNAL).read_bytes() == b""
