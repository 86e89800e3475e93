"""What files take on disk: laid out ahead, written back early, shared, told from holes.

Owns the system calls for it that the ``os`` module lacks. All but ``sync_file_system`` and
``share_blocks`` are hints to the file system, or ask it: one that knows no such call is no failure.

    with open("partial", "wb") as file:
        allocate(file.fileno(), 4096)
"""

import ctypes
import errno
import fcntl
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
# linux/fs.h: begin to write what is dirty, and do not wait for it.
_SYNC_FILE_RANGE_WRITE = 2
_NO_SUCH_CALL = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
# linux/fs.h: struct file_clone_range of descriptor, offset, length, offset in the target.
_CLONE_RANGE = 0x4020940D
_CLONE_RANGE_ARGUMENT = struct.Struct("=qQQQ")

SYNC_ALL_FROM = 64
"""From this many files on, one ``sync_file_system`` is cheaper than syncing each."""

WORTH_SHARING = 256 * 1024
"""Less is copied as fast, and would cut files into many extents."""


def allocate(fd: int, size: int) -> None:
    """Make a file ``size`` bytes long, with its place on the disk where the system can do that.

    What does not fit is then known before a byte is fetched, and writing costs less. Unlike
    ``os.posix_fallocate`` this never falls back to writing zeros.

    Raises:
        OSError: no space left, or another failure of the file system.
    """
    os.ftruncate(fd, size)
    if not size or _libc.fallocate(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
        return
    number = ctypes.get_errno()
    if number not in _NO_SUCH_CALL:
        raise OSError(number, os.strerror(number))


def write_back(fd: int, offset: int, length: int) -> None:
    """Have the system begin to write a range to disk, so that a later sync has little to do."""
    _libc.sync_file_range(
        fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE
    )


def share_blocks(source: int, start: int, fd: int, offset: int, length: int) -> bool:
    """Make a range of a file the same as one of another, by sharing the blocks on the disk.

    What lies in whole blocks is shared, and what is left at both ends is copied; a change of either
    file later does not show in the other. False if the ranges do not lie on blocks in the same way,
    or have too little of them.

    Raises:
        OSError: the file system shares none, these files are not on the same one, or the disk fails.
    """
    block = max(4096, os.fstatvfs(fd).f_frsize)
    if (start - offset) % block:
        return False
    first = -(-offset // block) * block
    end = (offset + length) // block * block
    if end - first < WORTH_SHARING:
        return False
    shift = start - offset
    argument = _CLONE_RANGE_ARGUMENT.pack(source, first + shift, end - first, first)
    fcntl.ioctl(fd, _CLONE_RANGE, argument)
    for begin, stop in ((offset, first), (end, offset + length)):
        os.pwrite(fd, os.pread(source, stop - begin, begin + shift), begin)
    return True


def sync_file_system(fd: int) -> None:
    """Make all that was written to a descriptor's file system durable."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def has_data(fd: int) -> bool:
    """Tell whether anything in a file may have been written; False is certain."""
    try:
        return os.lseek(fd, 0, os.SEEK_DATA) >= 0
    except OSError as error:
        if error.errno == errno.ENXIO:  # a hole, or space that was only allocated, to the end
            return False
        raise


def is_written(fd: int, start: int, length: int) -> bool:
    """Tell whether all of a range may have been written; False says that a part was not.

    Allocated space counts as a hole until it is written or, unfortunately, read: a page of zeros
    in the cache is data to Linux. So all of the range is asked about, or looking at one part of a
    file would make the next look written, too.
    """
    return os.lseek(fd, start, os.SEEK_HOLE) >= start + length
