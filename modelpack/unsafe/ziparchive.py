"""Zip files, read so strictly that no two readers can see different contents.

Owns the directory of a zip (PKWARE APPNOTE 6.3) and its entries' bytes. Leaves out what is in them.

Scanners have been fooled by archives that one reader opens and another refuses: names or flags that
differ between an entry's two headers, a bad CRC, data before the archive (CVE-2025-1889, -1944,
-10155, -10156). Here each of these makes the archive ambiguous, and an ambiguous archive unsafe.

    >>> import io, zipfile
    >>> from modelpack.unsafe.finding import BytesReader
    >>> out = io.BytesIO()
    >>> with zipfile.ZipFile(out, "w") as archive: archive.writestr("a.txt", "hello")
    >>> reader = BytesReader(out.getvalue())
    >>> [entry.name for entry in entries(reader)]
    ['a.txt']
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from modelpack.errors import FormatError
from modelpack.unsafe.finding import Part, Reader

LOCAL_MAGIC = b"PK\x03\x04"
_CENTRAL_MAGIC = b"PK\x01\x02"
_END_MAGIC = b"PK\x05\x06"
_END64_MAGIC = b"PK\x06\x06"
_LOCATOR64_MAGIC = b"PK\x06\x07"

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")

_MAX_COMMENT = 0xFFFF
# Four bytes that end a zip are in few files by chance, and looking where each leads may cost a request.
_MAX_ENDS = 16
# A checkpoint has an entry per tensor; 100,000 are beyond any model.
MAX_ENTRIES = 100_000
# 100,000 entries with long names.
_MAX_DIRECTORY_BYTES = 64 * 1024 * 1024
# Pickles and JSON are what is read whole; those of real models have at most a few megabytes.
MAX_CONTENT_BYTES = 64 * 1024 * 1024
# APPNOTE 6.3 is the latest; readers disagree on whether to open what claims to need a later one.
_MAX_VERSION = 63
_STORED = 0
_DEFLATED = 8
_STREAMED = 0x8
_UTF8 = 0x800
# Beside these two, hints about compression effort. All others change how bytes are read, in ways
# that some readers know and others pass over: encryption, patches, hidden directories.
_KNOWN_FLAGS = 0x2 | 0x4 | _STREAMED | _UTF8
_ZIP64 = 0x0001
# Info-ZIP's, which Python reads since 3.12.
_UNICODE_NAME = 0x7075
_FULL16 = 0xFFFF
_FULL32 = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A file in a zip; both its headers agree about it."""

    name: str
    stored: bool
    """Not compressed."""
    crc: int
    offset: int
    """Where its bytes begin."""
    compressed: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _End:
    count: int
    directory: int
    directory_size: int


def find_end(reader: Reader) -> int | None:
    """Return where the record that ends a zip begins, or None when ``reader`` does not end so."""
    length = min(reader.size, _END.size + _MAX_COMMENT)
    tail = reader.read(reader.size - length, length)
    position = tail.rfind(_END_MAGIC)
    while position >= 0:
        if position + _END.size <= length:
            comment = int(_END.unpack_from(tail, position)[7])
            if position + _END.size + comment == length:
                return reader.size - length + position
        position = tail.rfind(_END_MAGIC, 0, position)
    return None


def has_directory(reader: Reader) -> bool:
    """Tell whether a reader that takes the last end record it finds would find a directory before it.

    Python's does, whatever comes before the archive and behind its end. A file with dozens of such
    records was made to be taken for something.
    """
    length = min(reader.size, _END.size + _MAX_COMMENT)
    start = reader.size - length
    tail = reader.read(start, length)
    position = tail.rfind(_END_MAGIC)
    for _ in range(_MAX_ENDS):
        if position < 0:
            return False
        if position + _END.size <= length and _leads_to_directory(reader, tail, start, position):
            return True
        position = tail.rfind(_END_MAGIC, 0, position)
    return True


def _leads_to_directory(reader: Reader, tail: bytes, start: int, position: int) -> bool:
    size = int(_END.unpack_from(tail, position)[5])
    before = position - _LOCATOR64.size
    if before >= 0 and tail.startswith(_LOCATOR64_MAGIC, before):
        return True
    directory = start + position - size
    if not size or directory < 0:
        return False
    return reader.read(directory, len(_CENTRAL_MAGIC)) == _CENTRAL_MAGIC


def entries(reader: Reader) -> tuple[Entry, ...]:
    """Return all entries, in the order of the directory.

    Raises:
        FormatError: not a zip, or one that readers could take for different things.
    """
    at = find_end(reader)
    if at is None:
        raise FormatError("the zip archive has no end record")
    # 1. The directory lies between the entries and the end record, and nowhere else.
    end = _end(reader, at)
    if end.count > MAX_ENTRIES or end.directory_size > _MAX_DIRECTORY_BYTES:
        raise FormatError(f"the zip archive has {end.count} entries, too many to judge")
    if end.directory + end.directory_size > at:
        raise FormatError("the zip archive's directory does not lie before its end record")
    raw = reader.read(end.directory, end.directory_size)
    # 2. Every entry's own header says what the directory says.
    found = []
    position = 0
    for _ in range(end.count):
        entry, header, position = _central(reader, raw, position)
        found.append((header, entry))
    if position != len(raw):
        raise FormatError("the zip archive's directory holds more than its entries")
    # 3. Entries follow one another from the first byte, without overlapping, under distinct names.
    covered = 0
    for number, (header, entry) in enumerate(sorted(found, key=lambda pair: pair[0])):
        if header < covered or (number == 0 and header != 0):
            raise FormatError("the zip archive's entries overlap, or something comes before them")
        covered = entry.offset + entry.compressed
    if covered > end.directory:
        raise FormatError("the zip archive's last entry reaches into its directory")
    if len({entry.name for _, entry in found}) != len(found):
        raise FormatError("the zip archive holds two entries of one name")
    return tuple(entry for _, entry in found)


def content(reader: Reader, entry: Entry) -> bytes:
    """Return an entry's bytes, decompressed and checked against their size and CRC.

    Raises:
        FormatError: too large to be read whole, broken, or with another size or CRC.
    """
    if entry.size > MAX_CONTENT_BYTES or entry.compressed > MAX_CONTENT_BYTES:
        raise FormatError(f"{entry.name!a} has {entry.size} bytes, too many to judge")
    raw = reader.read(entry.offset, entry.compressed)
    if not entry.stored:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            raw = inflater.decompress(raw, entry.size + 1)
        except zlib.error as error:
            raise FormatError(f"{entry.name!a} cannot be decompressed") from error
        if not inflater.eof or inflater.unused_data:
            raise FormatError(f"{entry.name!a} does not end where the archive says")
    if len(raw) != entry.size:
        raise FormatError(f"{entry.name!a} does not have the size that the archive says")
    if zlib.crc32(raw) != entry.crc:
        raise FormatError(f"{entry.name!a} has a wrong CRC, which some loaders do not check")
    return raw


def part(reader: Reader, entry: Entry) -> Reader:
    """Return a reader over the bytes of an entry that is not compressed."""
    return Part(reader, entry.offset, entry.size)


def _end(reader: Reader, at: int) -> _End:
    _, disk, first_disk, here, count, size, offset, _ = _END.unpack(reader.read(at, _END.size))
    if _FULL16 in (here, count) or _FULL32 in (size, offset):
        return _end64(reader, at)
    if disk or first_disk or here != count:
        raise FormatError("the zip archive spans several files")
    return _End(count=count, directory=offset, directory_size=size)


def _end64(reader: Reader, at: int) -> _End:
    if at < _LOCATOR64.size:
        raise FormatError("the zip archive lacks its 64-bit end record")
    locator = reader.read(at - _LOCATOR64.size, _LOCATOR64.size)
    magic, disk, offset, disks = _LOCATOR64.unpack(locator)
    if magic != _LOCATOR64_MAGIC or disk or disks > 1 or offset + _END64.size > at:
        raise FormatError("the zip archive lacks its 64-bit end record")
    record = _END64.unpack(reader.read(offset, _END64.size))
    magic, _, _, _, disk, first_disk, here, count, size, directory = record
    if magic != _END64_MAGIC or disk or first_disk or here != count:
        raise FormatError("the zip archive's 64-bit end record is broken")
    return _End(count=count, directory=directory, directory_size=size)


def _central(reader: Reader, raw: bytes, position: int) -> tuple[Entry, int, int]:
    if position + _CENTRAL.size > len(raw):
        raise FormatError("the zip archive's directory is cut off")
    record = _CENTRAL.unpack_from(raw, position)
    magic, _, version, flags, method, _, _, crc, compressed, size = record[:10]
    name_length, extra_length, comment_length, disk, _, _, header = record[10:]
    start = position + _CENTRAL.size
    after = start + name_length + extra_length + comment_length
    if magic != _CENTRAL_MAGIC or after > len(raw):
        raise FormatError("the zip archive's directory is broken")
    raw_name = raw[start : start + name_length]
    name = _name(raw_name, flags)
    extra = raw[start + name_length : start + name_length + extra_length]
    if any(tag == _UNICODE_NAME for tag, _ in _fields(extra)):
        raise FormatError(f"{name!a} has a second name, which some readers use")
    size, compressed, header = _wide(name, extra, (size, compressed, header))
    # The upper byte has never been used; some readers look at the lower one only.
    if version > _MAX_VERSION:
        raise FormatError(f"{name!a} claims to need version {version} of the format")
    if flags & ~_KNOWN_FLAGS:
        raise FormatError(f"{name!a} is encrypted or patched; some loaders read it all the same")
    if method not in (_STORED, _DEFLATED):
        raise FormatError(f"{name!a} is compressed by method {method}, which is not judged here")
    if disk or (method == _STORED and size != compressed):
        raise FormatError(f"{name!a} has a directory entry that contradicts itself")
    offset = _local(reader, header, raw_name, (flags, method, crc, compressed, size))
    if offset + compressed > reader.size:
        raise FormatError(f"{name!a} reaches past the end of the archive")
    entry = Entry(
        name=name,
        stored=method == _STORED,
        crc=crc,
        offset=offset,
        compressed=compressed,
        size=size,
    )
    return entry, header, after


def _local(
    reader: Reader, header: int, raw_name: bytes, expected: tuple[int, int, int, int, int]
) -> int:
    flags, method, crc, compressed, size = expected
    shown = ascii(raw_name[:80].decode("utf-8", "replace"))
    if header + _LOCAL.size > reader.size:
        raise FormatError(f"{shown} has no header of its own")
    record = _LOCAL.unpack(reader.read(header, _LOCAL.size))
    magic, version, own_flags, own_method, _, _, own_crc, own_compressed, own_size = record[:9]
    name_length, extra_length = record[9:]
    start = header + _LOCAL.size
    offset = start + int(name_length) + int(extra_length)
    if magic != LOCAL_MAGIC or offset > reader.size or version > _MAX_VERSION:
        raise FormatError(f"{shown} has no header of its own")
    if own_flags != flags or own_method != method:
        raise FormatError(f"{shown} has two headers that contradict each other")
    if reader.read(start, name_length) != raw_name:
        raise FormatError(f"{shown} has another name in its own header")
    pairs = ((own_crc, crc), (own_compressed, compressed), (own_size, size))
    for own, stated in pairs:
        # A streamed entry may leave these for later; 0xFFFFFFFF stands for a 64-bit extra field.
        if own not in (stated, _FULL32) and not (flags & _STREAMED and own == 0):
            raise FormatError(f"{shown} has two headers that contradict each other")
    return offset


def _wide(name: str, extra: bytes, narrow: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return (size, compressed, header) with 64-bit values for those that do not fit in 32."""
    wanted = [value == _FULL32 for value in narrow]
    if not any(wanted):
        return narrow
    for tag, data in _fields(extra):
        if tag == _ZIP64 and len(data) >= 8 * sum(wanted):
            wide = iter(struct.unpack_from(f"<{sum(wanted)}Q", data))
            size, compressed, header = (
                next(wide) if large else value for large, value in zip(wanted, narrow, strict=True)
            )
            return size, compressed, header
    raise FormatError(f"{name!a} lacks its 64-bit sizes")


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the (tag, data) of an extra field (APPNOTE 4.5)."""
    position = 0
    while position + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, position)
        yield tag, extra[position + 4 : position + 4 + length]
        position += 4 + length


def _name(raw: bytes, flags: int) -> str:
    try:
        # Without the flag names are in some code page; ASCII means the same in all.
        name = raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise FormatError("the zip archive holds a name that readers decode differently") from error
    if not name or "\0" in name or "\\" in name or name.startswith("/") or ".." in name.split("/"):
        raise FormatError(f"the zip archive holds the name {name[:80]!a}, which leads elsewhere")
    return name
