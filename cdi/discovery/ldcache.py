"""Read ``/etc/ld.so.cache``, the dynamic linker's list of libraries.

Owns the format ``glibc-ld.so.cache1.1``, alone or behind the old ``ld.so-1.7.0`` part. Leaves out
which libraries are wanted. A cache that is damaged or of another format reads as empty: it is one
of several places to look.

>>> parse_ldcache(b"not a cache")
()
"""

import struct
from typing import NamedTuple

_OLD_MAGIC = b"ld.so-1.7.0\0"
_NEW_MAGIC = b"glibc-ld.so.cache1.1"
# struct cache_file: 12 bytes of magic, the number of 12-byte entries.
_OLD_ENTRY = 12
# struct cache_file_new: 20 bytes of magic and version, nlibs, len_strings, then 20 more bytes.
_NEW_HEADER = 48
# struct file_entry_new: flags, key, value (offsets from the new header), osversion, hwcap.
_NEW_ENTRY = struct.Struct("=iIIIQ")
# A desktop has some five thousand entries.
_MAX_ENTRIES = 200_000


class CachedLibrary(NamedTuple):
    """One entry: the name that programs ask for, and the path the linker found."""

    name: str
    path: str


def parse_ldcache(data: bytes) -> tuple[CachedLibrary, ...]:
    """Return the entries of a cache in its order; empty for anything that is not one."""
    start = _new_part(data)
    if start < 0 or len(data) < start + _NEW_HEADER:
        return ()
    (count,) = struct.unpack_from("=I", data, start + len(_NEW_MAGIC))
    end = start + _NEW_HEADER + count * _NEW_ENTRY.size
    if count > _MAX_ENTRIES or end > len(data):
        return ()
    found = []
    for i in range(count):
        _, key, value, _, _ = _NEW_ENTRY.unpack_from(
            data, start + _NEW_HEADER + i * _NEW_ENTRY.size
        )
        name, path = _text(data, start + key), _text(data, start + value)
        if name and path.startswith("/"):
            found.append(CachedLibrary(name, path))
    return tuple(found)


def _new_part(data: bytes) -> int:
    """Return where the new format starts, or -1."""
    if data.startswith(_NEW_MAGIC):
        return 0
    if not data.startswith(_OLD_MAGIC) or len(data) < 16:
        return -1
    (count,) = struct.unpack_from("=I", data, len(_OLD_MAGIC))
    start = 16 + count * _OLD_ENTRY
    start += -start % 8  # the new part is aligned to its 8-byte fields
    return start if data.startswith(_NEW_MAGIC, start) else -1


def _text(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    if start >= len(data) or end < 0:
        return ""
    return data[start:end].decode("utf-8", "replace")
