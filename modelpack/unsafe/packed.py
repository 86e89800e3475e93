r"""Compressed and packed files, which are not opened here beyond their first bytes.

Owns telling them by their first bytes, and looking at the beginning of what is compressed. Leaves out
zip files (``ziparchive.py``) and what to say of them (``scan.py``).

    >>> import gzip
    >>> sealed_form(b"7z\xbc\xaf\x27\x1c"), peek(gzip.compress(b"text"))
    ('a 7z archive', Peek(data=b'text', whole=True))
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PEEKED_BYTES = 64 * 1024
"""How much of a file ``peek`` wants, and how much it returns at most."""

# Forms that nothing here opens.
_SEALED = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (b"\x04\x22\x4d\x18", "lz4-compressed"),
    (b"\x02\x21\x4c\x18", "lz4-compressed"),
    (b"\x1f\x9d", "compressed by compress"),
)
# zstd and lz4 pass over frames with these beginnings, and read what comes behind.
_SKIPPABLE = (range(0x50, 0x60), b"\x2a\x4d\x18")
_TAR_BLOCK = 512
_TAR_CHECKSUM = slice(148, 156)
# An xz stream states how much memory its dictionary takes, up to 4 GiB.
_XZ_MEMORY_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Peek:
    """The beginning of what is compressed."""

    data: bytes
    whole: bool
    """Nothing comes behind it."""


def sealed_form(head: bytes) -> str | None:
    """Return what a file with these first bytes is, if nothing here can look into it."""
    for magic, name in _SEALED:
        if head.startswith(magic):
            return name
    if head[:1] and head[0] in _SKIPPABLE[0] and head[1:4] == _SKIPPABLE[1]:
        return "zstd-compressed or lz4-compressed"
    return "a tar archive" if _is_tar(head) else None


def peek(data: bytes) -> Peek | None:
    """Return the beginning of what gzip, bzip2, xz, lzma or zlib have compressed; None if none has.

    Nothing comes back in it from what is compressed but cannot be looked into so shortly.
    """
    for magic, opener in _OPENERS:
        if data.startswith(magic):
            try:
                return _opened(opener(), data)
            except (zlib.error, OSError, lzma.LZMAError, ValueError, EOFError):
                return Peek(b"", whole=False)
    # These two have no magic number: zlib has a checksum over two bytes (RFC 1950), and the older
    # lzma a byte that is nearly always the same, and a size.
    if len(data) >= 2 and data[0] & 0x8F == 0x08 and int.from_bytes(data[:2], "big") % 31 == 0:
        return _opened_if_it_can(zlib.decompressobj, data)
    if data.startswith(b"\x5d\x00\x00"):
        return _opened_if_it_can(_old_lzma, data)
    return None


def _opened(decompressor: Any, data: bytes) -> Peek:
    found = bytes(decompressor.decompress(data, PEEKED_BYTES))
    whole = decompressor.eof and not getattr(decompressor, "unused_data", b"")
    return Peek(found, whole=bool(whole))


def _opened_if_it_can(opener: Callable[[], Any], data: bytes) -> Peek | None:
    try:
        found = _opened(opener(), data)
    except (zlib.error, lzma.LZMAError, ValueError, EOFError):
        return None
    return found if found.data else None


def _gzip() -> Any:
    return zlib.decompressobj(31)


def _xz() -> Any:
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)


def _old_lzma() -> Any:
    return lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=_XZ_MEMORY_BYTES)


_OPENERS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", _xz),
)


def _is_tar(head: bytes) -> bool:
    """Tell a tar by its checksum; the oldest form has no other mark, and is opened all the same."""
    block = head[:_TAR_BLOCK]
    if len(block) < _TAR_BLOCK or not any(block):
        return False
    digits = block[_TAR_CHECKSUM].strip(b" \0")
    try:
        stated = int(digits, 8)
    except ValueError:
        return False
    blank = block[: _TAR_CHECKSUM.start] + b" " * 8 + block[_TAR_CHECKSUM.stop :]
    signed = sum(byte - 256 if byte > 127 else byte for byte in blank)
    return stated in (sum(blank), signed)
