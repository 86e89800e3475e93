"""What goes past the page cache is right on the disk, and not in the cache."""

import errno
import itertools
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelpack.stores import pagecache
from modelpack.stores.blocks import allocate
from modelpack.stores.pagecache import (
    BLOCK,
    aligned_buffer,
    free_memory,
    is_better_passed,
    open_direct,
    placed,
    put,
)
from tests.support.models import random_bytes

MIB = 1024 * 1024
GIB = 1024 * MIB


@pytest.fixture
def file(tmp_path):
    """A file of 8 MiB that has its place: path, descriptor and direct descriptor."""
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    allocate(fd, 8 * MIB)
    direct = open_direct(path)
    yield path, fd, direct
    os.close(fd)
    if direct >= 0:
        os.close(direct)


@pytest.fixture
def direct_file(file):
    if file[2] < 0:
        pytest.skip("this file system has no direct writing")
    return file


def in_memory(position, data):
    buffer = placed(aligned_buffer(len(data)), position, len(data))
    buffer[:] = data
    return buffer


def is_cached(fd, position):
    try:
        return os.preadv(fd, [bytearray(1)], position, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


@pytest.mark.parametrize("position", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 17])
@pytest.mark.parametrize("size", [1, BLOCK, 64 * 1024, MIB, MIB + 1, 4 * MIB - 5])
def test_bytes_are_where_they_belong(file, position, size):
    path, fd, direct = file
    data = random_bytes(size, position)
    put(fd, in_memory(position, data), position, direct=direct)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert path.read_bytes() == bytes(position) + data + bytes(8 * MIB - position - size)


def test_whole_blocks_are_not_in_the_cache(direct_file):
    _, fd, direct = direct_file
    put(fd, in_memory(100, random_bytes(MIB, 1)), 100, direct=direct)
    assert not is_cached(fd, MIB // 2)
    assert is_cached(fd, 100)  # a part of a block
    put(fd, in_memory(2 * MIB, random_bytes(MIB, 1)), 2 * MIB)
    assert is_cached(fd, 2 * MIB + MIB // 2)


def test_memory_that_lies_otherwise_goes_through_the_cache(file):
    path, fd, direct = file
    data = random_bytes(MIB, 3)
    put(fd, memoryview(data), 0, direct=direct)  # read-only
    put(fd, aligned_buffer(2 * MIB)[1 : MIB + 1], MIB, direct=direct)
    put(fd, in_memory(5, data), 2 * MIB, direct=direct)
    assert path.read_bytes()[: 3 * MIB] == data + bytes(MIB) + data


def test_many_threads_beside_each_other(file):
    """Parts of one block are written by two threads, whole blocks around it directly."""
    path, fd, direct = file
    data = random_bytes(8 * MIB, 7)
    chance = random.Random(1)
    cuts = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(60))})
    spans = list(itertools.pairwise(cuts))
    chance.shuffle(spans)

    def write(span):
        start, end = span
        put(fd, in_memory(start, data[start:end]), start, direct=direct)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, spans))
    os.fsync(fd)
    assert path.read_bytes() == data
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert path.read_bytes() == data


def refuse(number):
    real = os.pwrite

    def pwrite(fd, data, position):
        if len(data) % BLOCK == 0:
            raise OSError(number, os.strerror(number))
        return real(fd, data, position)

    return pwrite


def test_a_disk_that_wants_other_blocks_gets_it_through_the_cache(direct_file, monkeypatch):
    path, fd, direct = direct_file
    monkeypatch.setattr(pagecache.os, "pwrite", refuse(errno.EINVAL))
    data = random_bytes(MIB + 1, 3)
    put(fd, in_memory(0, data), 0, direct=direct)
    assert path.read_bytes()[: len(data)] == data


def test_a_disk_that_fails_is_heard_of(direct_file, monkeypatch):
    _, fd, direct = direct_file
    monkeypatch.setattr(pagecache.os, "pwrite", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        put(fd, in_memory(0, random_bytes(MIB, 3)), 0, direct=direct)


def test_a_file_system_without_it(tmp_path, monkeypatch):
    def open_it(*_):
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(pagecache.os, "open", open_it)
    assert open_direct(tmp_path / "file") == -1


def test_a_file_that_is_not_there_is_heard_of(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_direct(tmp_path / "file")


@pytest.mark.parametrize(
    ("size", "free", "passed"),
    [
        (10 * GIB, 20 * GIB, False),
        (20 * GIB, 20 * GIB, True),  # the system keeps some
        (MIB, 0, False),
        (64 * MIB, 0, True),
    ],
)
def test_free_memory_is_used(size, free, passed):
    assert is_better_passed(size, free) is passed


def machine(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 4096),
        ({"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": "1"}, 4096),
        ({"sys/fs/cgroup/memory.max": "100", "sys/fs/cgroup/memory.current": "30"}, 70),
        ({"sys/fs/cgroup/memory.max": "100", "sys/fs/cgroup/memory.current": "130"}, 0),
        (
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
            },
            4096,
        ),
        (
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "500",
            },
            1500,
        ),
    ],
    ids=["none", "no-limit", "limit", "over", "first-version", "first-version-limit"],
)
def test_a_control_groups_limit_counts(tmp_path, monkeypatch, files, free):
    one_page = {"SC_AVPHYS_PAGES": 1, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(pagecache.os, "sysconf", one_page.__getitem__)
    assert free_memory(machine(tmp_path, files)) == free


def test_of_this_machine():
    assert free_memory() > 0
