"""Writing past the page cache, so that a large transfer pushes nobody else's files out of memory.

Owns the choice, memory that lies as the system wants it, and the writing itself. What is written
this way costs half the CPU time where memory is full (docs/adr/0018-past-the-page-cache.md), and is
read from the disk the next time. Leaves out which files (``staging.py``).

Direct input and output moves whole blocks from memory that lies on block boundaries. So bytes are
received at the place in a page that they have in their file (``placed``); a range's whole blocks
then go directly, and what is left at both ends goes through the cache.

    buffer = aligned_buffer(MIB)
    piece = placed(buffer, position=5000, length=100_000)
    put(fd, piece, 5000, direct=open_direct(path))
"""

import ctypes
import errno
import logging
import mmap
import os
from pathlib import Path

_logger = logging.getLogger(__name__)

BLOCK = max(4096, mmap.PAGESIZE)
"""A page, which the cache deals in, and a multiple of what disks do."""

# A transfer that is smaller pushes nothing out that matters.
_LEAST_BYTES = 64 * 1024 * 1024
# What the system keeps free for itself, about, and would get back from the cache first.
_KEPT_FREE = 256 * 1024 * 1024
# One direct write costs a trip to the disk.
_LEAST_DIRECT = 64 * 1024
# limit and use of a control group, in its versions 2 and 1
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def is_better_passed(size: int, free: int) -> bool:
    """Tell whether ``size`` bytes should be written past the cache, of which ``free`` are free.

    >>> gib = 1024**3
    >>> is_better_passed(2 * gib, free=20 * gib), is_better_passed(140 * gib, free=20 * gib)
    (False, True)
    """
    return size >= _LEAST_BYTES and size > free - _KEPT_FREE


def free_memory(root: Path = Path("/")) -> int:
    """Return how many bytes the cache can grow by without pushing anything out.

    A control group's limit counts: in a container, the cache grows up to that.
    """
    # Not from /proc/meminfo, which a restricted service does not see.
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, use in _GROUPS:
        try:
            left = int((root / limit[1:]).read_text()) - int((root / use[1:]).read_text())
        except (OSError, ValueError):  # no such group, or "max"
            continue
        free = min(free, max(0, left))
    return free


def aligned_buffer(size: int) -> memoryview:
    """Return memory for ranges of up to ``size`` bytes, wherever in a block they begin."""
    return memoryview(mmap.mmap(-1, size + BLOCK))


def placed(buffer: memoryview, position: int, length: int) -> memoryview:
    """Return the part of an aligned buffer for ``length`` bytes from a file's ``position``."""
    start = position % BLOCK
    return buffer[start : start + length]


def open_direct(path: Path) -> int:
    """Open a file for direct writing; -1 where its file system has none."""
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _logger.debug("%s: no direct writing here", path)
        return -1


def put(fd: int, data: memoryview, position: int, *, direct: int = -1) -> None:
    """Write bytes to a file, whole blocks through ``direct`` if that is a descriptor.

    Of two threads that write next to each other each may use it: a block is written either by
    direct writes or through the cache, never both.
    """
    end = position + len(data)
    first = -(-position // BLOCK) * BLOCK
    last = end // BLOCK * BLOCK
    if direct < 0 or last - first < _LEAST_DIRECT or not _is_placed(data, position):
        _write(fd, data, position)
        return
    try:
        _write(direct, data[first - position : last - position], first)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a disk with larger blocks
            raise
        _write(fd, data, position)
        return
    _write(fd, data[: first - position], position)
    _write(fd, data[last - position :], last)


def _is_placed(data: memoryview, position: int) -> bool:
    if data.readonly:  # memory of somebody else's, which tells no address
        return False
    return (ctypes.addressof(ctypes.c_char.from_buffer(data)) - position) % BLOCK == 0


def _write(fd: int, data: memoryview, position: int) -> None:
    while data:
        count = os.pwrite(fd, data, position)
        position += count
        data = data[count:]
