"""Coming back after a crash: no verified byte is lost, and none is believed that is not right."""

import errno
import os
import random
import shutil
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.chunkindex import ChunkIndex
from modelpack.digest import chunk_hash
from modelpack.errors import ModelpackError, SpaceError
from modelpack.events import Moved, ignore
from modelpack.plan import ChunkMap
from modelpack.stores import staging as module
from modelpack.stores.staging import JOURNAL, Staging
from tests.support.indexes import make_index
from tests.support.models import random_bytes

KEY = bytes(range(32))
# Longer than a disk block, so that holes show.
FILES = [("a.bin", [9000, 8192, 5]), ("b.bin", [20_000]), ("c.txt", [7]), ("empty", [])]
A0, A1, A2, B0, C0 = range(5)


def real_index(files=FILES) -> ChunkIndex:
    """An index whose chunks have the hashes of ``content(chunk)``."""
    index = make_index(files)
    hashes = b"".join(
        chunk_hash(random_bytes(length, number)) for number, length in enumerate(index.lengths)
    )
    return ChunkIndex(layers=index.layers, files=index.files, lengths=index.lengths, hashes=hashes)


INDEX = real_index()
MAP = ChunkMap.of(INDEX)


def content(chunk, index=INDEX):
    return random_bytes(index.lengths[chunk], chunk)


@pytest.fixture
def start(tmp_path):
    """Open the staging directory, as often as a test wants; each closed without a word at the end."""
    opened = []

    def open_it(*, key=KEY, files=range(4), observer=ignore, chunk_map=MAP) -> Staging:
        opened.append(
            Staging(
                tmp_path / "staging", key=key, chunk_map=chunk_map, files=files, observer=observer
            )
        )
        return opened[-1]

    yield open_it
    for staging in opened:
        staging.close()


def put(staging, *chunks, verified=True, whole=False):
    for chunk in chunks:
        data = memoryview(content(chunk))
        half = 0 if whole else len(data) // 2
        staging.write(chunk, half, data[half:])
        if half:
            staging.write(chunk, 0, data[:half])
        if verified:
            staging.verified((chunk,))


def journal_of(tmp_path):
    raw = (tmp_path / "staging" / JOURNAL).read_bytes()
    return raw[:32], {
        chunk for chunk in range(8 * (len(raw) - 32)) if raw[32 + chunk // 8] >> chunk % 8 & 1
    }


@pytest.mark.parametrize("whole", [False, True])
def test_files_are_built_and_complete(start, whole):
    events = []
    staging = start(observer=events.append)
    assert staging.verified_chunks == set()
    put(staging, C0, A2, A0, B0, A1, whole=whole)
    staging.complete()
    for number, file in enumerate(INDEX.files):
        expected = b"".join(content(chunk) for chunk in file.chunks)
        assert staging.path(number).read_bytes() == expected
    assert staging.fetched_bytes == INDEX.total_bytes
    assert events[0] == Moved(item="c.txt", size=7)
    staging.remove()
    assert not staging.directory.exists()


def test_copies_are_not_counted_as_fetched(start):
    events = []
    staging = start(observer=events.append)
    put(staging, A0, verified=False)
    staging.copied((A0,))
    assert staging.fetched_bytes == 0
    assert staging.read(A0) == content(A0)
    assert events == [Moved(item="a.bin", size=9000, reused=True)]


class Elsewhere:
    """A source of chunks that says it shares, and of which a test says what it really does."""

    def __init__(self, shared, readable):
        self.shared, self.readable = shared, readable
        self.reads = 0

    def share(self, value, fd, offset, length):
        if self.shared is not None:
            os.pwrite(fd, self.shared[:length], offset)
        return self.shared is not None

    def read(self, value, buffer):
        self.reads += 1
        if self.readable is None:
            return None
        if len(self.readable) > len(buffer):
            return memoryview(self.readable)
        buffer[: len(self.readable)] = self.readable
        return buffer[: len(self.readable)]


@pytest.mark.parametrize(
    ("shared", "readable", "taken", "reads"),
    [
        (content(A1), None, True, 0),
        (None, content(A1), True, 1),
        (b"!" * 8192, content(A1), True, 1),
        (content(A1)[:5000], None, False, 1),
        (None, None, False, 1),
        (None, content(A1) + b"more", False, 1),
        (None, content(A1)[:-1], False, 1),
    ],
    ids=["shared", "read", "shared-wrong", "shared-short", "gone", "longer", "shorter"],
)
def test_what_is_elsewhere_on_this_machine_is_hashed(start, shared, readable, taken, reads):
    staging = start()
    put(staging, A0, A2)
    source = Elsewhere(shared, readable)
    assert staging.take(A1, source, memoryview(bytearray(20_000))) is taken
    assert source.reads == reads
    assert (A1 in staging.verified_chunks) is taken
    if taken:
        assert [staging.read(chunk) for chunk in (A0, A1, A2)] == [
            content(chunk) for chunk in (A0, A1, A2)
        ]


def test_shared_blocks_on_a_disk_that_fails_are_fetched_after_all(start, monkeypatch):
    staging = start()
    put(staging, A0)  # so that the file is open

    def fail(*_):
        raise OSError(errno.EIO, "the disk")

    monkeypatch.setattr(module.os, "preadv", fail)
    buffer = memoryview(bytearray(20_000))
    assert not staging.take(A1, Elsewhere(content(A1), None), buffer)
    assert A1 not in staging.verified_chunks


def test_the_journal_by_the_letter(start, tmp_path):
    """docs/format.md, section 11."""
    staging = start()
    put(staging, A0, B0)
    staging.sync()
    assert (tmp_path / "staging" / JOURNAL).read_bytes() == KEY + bytes([1 << A0 | 1 << B0])
    assert sorted(path.name for path in (tmp_path / "staging").iterdir()) == ["0", "1", "journal"]
    assert (tmp_path / "staging" / "0").stat().st_size == INDEX.files[0].size


def test_only_its_owner_may_look(start, tmp_path):
    """CVE-2026-4137: a file swapped between its verification and its use."""
    (tmp_path / "staging").mkdir(mode=0o777)
    (tmp_path / "staging").chmod(0o777)
    put(start(), A0)
    assert (tmp_path / "staging").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "staging").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_journaled_is_believed_without_reading(start, monkeypatch):
    first = start()
    put(first, A0, B0)
    first.sync()
    monkeypatch.setattr(Staging, "_hashes_right", lambda *_: False)
    assert start().verified_chunks == {A0, B0}


def test_closing_journals_what_is_verified(start, tmp_path):
    first = start()
    put(first, A0, C0)
    first.close()
    assert journal_of(tmp_path) == (KEY, {A0, C0})


def test_what_is_not_journaled_is_hashed(start, tmp_path):
    """A kill loses the journal's last interval, not the bytes."""
    first = start()
    put(first, A1)
    first.sync()
    put(first, A0, C0)
    put(first, B0, verified=False)  # the kill came before the check
    again = start()
    assert again.verified_chunks == {A0, A1, B0, C0}
    again.close()
    assert journal_of(tmp_path) == (KEY, {A0, A1, B0, C0})


def test_bytes_that_are_not_right_are_not_believed(start, tmp_path):
    first = start()
    put(first, A0, A1, verified=False)
    with (tmp_path / "staging" / "0").open("r+b") as file:
        file.seek(100)
        file.write(b"other")
    assert start().verified_chunks == {A1}


JOURNALS = {
    "none": None,
    "empty": b"",
    "other-key": b"x" * 32 + b"\xff",
    "key-only": KEY,
    "half-a-key": KEY[:16],
    "garbage": b"\xff" * 500,
}


@pytest.mark.parametrize("raw", JOURNALS.values(), ids=JOURNALS)
def test_a_journal_that_is_not_ours_says_nothing(start, tmp_path, raw):
    first = start()
    put(first, A0)
    first.write(B0, 0, memoryview(bytes(20_000)))  # never verified
    first.close()
    journal = tmp_path / "staging" / JOURNAL
    journal.unlink()
    if raw is not None:
        journal.write_bytes(raw)
    again = start()
    assert again.verified_chunks == {A0}
    put(again, C0)
    again.sync()
    assert journal_of(tmp_path) == (KEY, {A0, C0})


def test_another_artifact_starts_afresh(start):
    first = start()
    put(first, A0, B0)
    first.close()
    other = real_index([("x", [9000, 8192, 5]), ("y", [20_000]), ("z", [7]), ("w", [1])])
    changed = bytearray(other.hashes)
    changed[0] ^= 1
    forged = ChunkIndex(
        layers=other.layers, files=other.files, lengths=other.lengths, hashes=bytes(changed)
    )
    again = start(key=b"o" * 32, chunk_map=ChunkMap.of(forged))
    assert A0 not in again.verified_chunks


def test_holes_are_not_read_as_content(start, tmp_path, monkeypatch):
    """A terabyte of nothing yet must not be hashed at every start."""
    put(start(), A1, verified=False)
    hashed = []
    original = module.chunk_hash
    monkeypatch.setattr(
        module, "chunk_hash", lambda data: hashed.append(len(data)) or original(data)
    )
    again = start()
    assert again.verified_chunks == {A1}
    assert 20_000 not in hashed


def test_a_partial_file_of_another_length(start, tmp_path):
    first = start()
    put(first, A0, A1, C0)
    first.close()
    os.truncate(tmp_path / "staging" / "0", 9000)
    again = start()
    assert again.verified_chunks == {A0, C0}  # hashed again: the journal no longer counts for it
    assert (tmp_path / "staging" / "0").stat().st_size == INDEX.files[0].size


def test_other_files_may_be_wanted_the_next_time(start):
    first = start(files=[0])
    put(first, A0)
    first.close()
    second = start(files=[1, 2])
    assert second.verified_chunks == set()
    put(second, C0)
    second.close()
    assert start().verified_chunks == {A0, C0}


@pytest.mark.parametrize("name", ["0", "1", JOURNAL])
def test_a_link_in_the_directory_is_not_followed(start, tmp_path, name):
    (tmp_path / "staging").mkdir()
    (tmp_path / "outside").write_bytes(b"untouched")
    (tmp_path / "staging" / name).symlink_to(tmp_path / "outside")
    with pytest.raises(ModelpackError):
        put(start(), A0, B0, whole=True)
    assert (tmp_path / "outside").read_bytes() == b"untouched"


@pytest.mark.parametrize("whole", [False, True])
def test_data_is_on_disk_before_the_journal_says_so(start, monkeypatch, whole):
    order = []
    real = os.fdatasync

    def fdatasync(fd):
        order.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    staging = start()
    put(staging, A0, B0, whole=whole)
    order.clear()
    staging.sync()
    assert sorted(order[:-1]) == ["0", "1"]
    assert order[-1] == JOURNAL
    order.clear()
    staging.sync()
    assert order == []  # nothing new


def test_the_journal_follows_by_itself(start, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SYNC_SECONDS", 0.02)
    put(start(), A0, B0)
    deadline = time.monotonic() + 10
    while journal_of(tmp_path)[1] != {A0, B0}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_much_data_does_not_wait_for_the_clock(start, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SYNC_SECONDS", 1000)
    monkeypatch.setattr(module, "_SYNC_BYTES", 9000)
    put(start(), A0)
    deadline = time.monotonic() + 10
    while not (tmp_path / "staging" / JOURNAL).read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_disk_that_fails_is_heard_of_by_the_next_chunk(start, monkeypatch):
    monkeypatch.setattr(module, "_SYNC_SECONDS", 0.01)

    def fdatasync(_):
        raise OSError(28, "No space left on device")

    staging = start()
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    put(staging, A0)

    def go_on():
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            staging.verified((A0,))
            time.sleep(0.005)

    with pytest.raises(SpaceError, match="No space left"):
        go_on()


def test_a_failure_after_the_last_chunk_is_not_lost(start, monkeypatch):
    """complete() would otherwise say that everything is durable."""
    failing = threading.Event()
    let_go = threading.Event()

    def fdatasync(_):
        failing.set()
        let_go.wait(10)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "_SYNC_SECONDS", 0.01)
    staging = start()
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    put(staging, A0)
    assert failing.wait(10)  # the thread has taken the chunk on, and complete() will find none
    threading.Timer(0.1, let_go.set).start()
    with pytest.raises(ModelpackError, match="Input/output error"):
        staging.complete()


def test_no_space_is_said_before_anything_is_written(start, tmp_path, monkeypatch):
    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    with pytest.raises(SpaceError, match=r"needs 1\.[01] .*, 0\.0 .* are free"):
        start()
    assert list((tmp_path / "staging").iterdir()) == []


def test_space_that_is_taken_already_is_not_asked_for_again(start, monkeypatch):
    put(start(), B0)

    class Nearly:
        f_bavail, f_frsize = module._RESERVE_BYTES + 18_000, 1

    monkeypatch.setattr(os, "statvfs", lambda _: Nearly)
    assert start().verified_chunks == {B0}
    shutil.rmtree(start().directory)
    with pytest.raises(SpaceError):
        start()


def test_many_files_few_descriptors_many_threads(start, monkeypatch):
    monkeypatch.setattr(module, "_MAX_OPEN_FILES", 8)
    index = real_index([(f"{number:03}", [100, 60]) for number in range(120)])
    staging = start(chunk_map=ChunkMap.of(index), files=range(120))
    before = len(os.listdir("/proc/self/fd"))
    chunks = list(range(index.chunk_count))
    random.Random(1).shuffle(chunks)
    most = []

    def work(mine):
        for chunk in mine:
            staging.write(chunk, 0, memoryview(content(chunk, index)))
            staging.verified((chunk,))
            most.append(len(os.listdir("/proc/self/fd")) - before)

    threads = [threading.Thread(target=work, args=(chunks[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    staging.complete()
    assert max(most) <= 8 + 4 + 8  # files, their users, and the directory listings themselves
    for number, file in enumerate(index.files):
        expected = b"".join(content(chunk, index) for chunk in file.chunks)
        assert staging.path(number).read_bytes() == expected


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "whole", "write", "sync", "crash"]), st.integers(0, 4))
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_what_is_believed_is_right(tmp_path_factory, steps):
    directory = tmp_path_factory.mktemp("staging")
    there: set[int] = set()
    opened = []

    def open_it():
        opened.append(Staging(directory, key=KEY, chunk_map=MAP, files=range(4), observer=ignore))
        return opened[-1]

    staging = open_it()
    for step, chunk in steps:
        if step in {"put", "whole"}:
            put(staging, chunk, whole=step == "whole")
            there.add(chunk)
        elif step == "write" and chunk not in there:
            staging.write(chunk, 0, memoryview(bytes(INDEX.lengths[chunk])))
        elif step == "sync":
            staging.sync()
        elif step == "crash":
            staging = open_it()
            assert staging.verified_chunks == there
    staging = open_it()
    assert staging.verified_chunks == there
    for chunk in there:
        assert staging.read(chunk) == content(chunk)
    for each in opened:
        each.close()
