"""What is allocated, written, and neither."""

import errno
import os

import pytest

from modelpack.stores import blocks
from modelpack.stores.blocks import (
    allocate,
    has_data,
    is_written,
    share_blocks,
    sync_file_system,
    write_back,
)

SIZE = 8 * 1024 * 1024


@pytest.fixture
def fd(tmp_path):
    found = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield found
    os.close(found)


def test_allocated_space_is_there_and_not_written(fd):
    allocate(fd, SIZE)
    assert os.fstat(fd).st_size == SIZE
    assert os.fstat(fd).st_blocks * 512 >= SIZE
    assert not has_data(fd)
    assert not is_written(fd, 0, 1)


def test_what_is_written_is_told_from_what_is_not(fd):
    allocate(fd, SIZE)
    os.pwrite(fd, b"x" * SIZE, 0)
    assert has_data(fd)
    assert is_written(fd, 0, SIZE)
    os.ftruncate(fd, 0)
    allocate(fd, SIZE)
    os.pwrite(fd, b"x" * 4096, 0)
    os.pwrite(fd, b"x" * 4096, SIZE - 4096)
    assert is_written(fd, 0, 4096)
    assert not is_written(fd, 0, SIZE)
    assert is_written(fd, SIZE - 4096, 4096)


def test_writing_back_leaves_the_bytes(fd):
    allocate(fd, SIZE)
    os.pwrite(fd, b"abc", 5000)
    write_back(fd, 4096, 4096)
    sync_file_system(fd)
    assert os.pread(fd, 3, 5000) == b"abc"


def test_an_empty_file_takes_nothing(fd):
    allocate(fd, 0)
    assert (os.fstat(fd).st_size, os.fstat(fd).st_blocks) == (0, 0)


def test_ranges_that_lie_differently_on_blocks_are_not_shared(fd, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks.fcntl, "ioctl", None)
    allocate(fd, SIZE)
    assert not share_blocks(fd, 1000, fd, 0, SIZE // 2)
    assert not share_blocks(fd, 0, fd, 1, SIZE // 2)


def test_little_is_not_worth_sharing(fd, monkeypatch):
    monkeypatch.setattr(blocks.fcntl, "ioctl", None)
    assert not share_blocks(fd, 4096, fd, 8192, 256 * 1024 - 1)


def test_whole_blocks_are_shared_and_the_ends_copied(fd, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(blocks.fcntl, "ioctl", lambda *arguments: asked.append(arguments))
    source = os.open(tmp_path / "source", os.O_RDWR | os.O_CREAT)
    os.pwrite(source, b"s" * SIZE, 0)
    allocate(fd, SIZE)
    assert share_blocks(source, 4096 + 10, fd, 8192 + 10, 1_000_000)
    ((target, code, argument),) = asked
    assert (target, code) == (fd, 0x4020940D)
    # struct file_clone_range: descriptor, offset, length, offset in the target
    first, end = 3 * 4096, (8192 + 10 + 1_000_000) // 4096 * 4096
    assert blocks.struct.unpack("=qQQQ", argument) == (source, first - 4096, end - first, first)
    expected = b"s" * (first - 8192 - 10)
    assert os.pread(fd, len(expected) + 1, 8192 + 10) == expected + b"\0"
    assert os.pread(fd, 4096, end) == (b"s" * (8192 + 10 + 1_000_000 - end)).ljust(4096, b"\0")
    os.close(source)


def test_a_file_system_that_shares_nothing_says_so(fd):
    with open("/proc/self/mem", "rb") as other, pytest.raises(OSError, match=r"."):
        share_blocks(other.fileno(), 0, fd, 0, SIZE)


def fails_with(number):
    def fallocate(*_):
        blocks.ctypes.set_errno(number)
        return -1

    return fallocate


def test_a_file_system_that_cannot_allocate_gets_a_sparse_file(fd, monkeypatch):
    monkeypatch.setattr(blocks._libc, "fallocate", fails_with(errno.EOPNOTSUPP))
    allocate(fd, SIZE)
    assert os.fstat(fd).st_size == SIZE
    assert os.fstat(fd).st_blocks == 0


def test_a_full_disk_is_said_at_once(fd, monkeypatch):
    monkeypatch.setattr(blocks._libc, "fallocate", fails_with(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left") as caught:
        allocate(fd, SIZE)
    assert caught.value.errno == errno.ENOSPC
