"""The one way modelpack writes a tar layer, byte for byte.

Owns headers, padding and the end mark, so that the same files give the same layer on any machine
and a layer's framing can be rebuilt from the chunk index without fetching it. Leaves out which
files share a layer (``layering.py``) and reading other tools' tars (``untar.py``).

The format is POSIX pax (IEEE 1003.1-2017, "pax Interchange Format"). Every entry has uid and gid 0,
empty user and group names and modification time 0. A pax record is written only for a path that is
not plain ASCII of at most 100 bytes, and for a size over 8 GiB; the ustar prefix field is never
used.

    >>> len(file_header("a.txt", size=5, mode=0o644)), padding(5)
    (512, 507)
"""

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
_NAME_BYTES = 100
# Eleven octal digits.
_MAX_USTAR_SIZE = 8 * 1024**3 - 1
_DIRECTORY_MODE = 0o755
_PAX_NAME = b"././@PaxHeader"


def file_header(path: str, *, size: int, mode: int) -> bytes:
    """Return everything that precedes a file's bytes."""
    return _entry(path, size=size, mode=mode, typeflag=b"0")


def directory_header(path: str) -> bytes:
    """Return a directory's entry, whole."""
    return _entry(path + "/", size=0, mode=_DIRECTORY_MODE, typeflag=b"5")


def padding(size: int) -> int:
    """Return how many zero bytes follow ``size`` bytes of content."""
    return -size % BLOCK


def _entry(name: str, *, size: int, mode: int, typeflag: bytes) -> bytes:
    encoded = name.encode("utf-8")
    records = b""
    if len(encoded) > _NAME_BYTES or not encoded.isascii():
        records += _pax_record(b"path", encoded)
    if size > _MAX_USTAR_SIZE:
        records += _pax_record(b"size", str(size).encode())
    header = b""
    if records:
        header += _ustar(_PAX_NAME, size=len(records), mode=0o644, typeflag=b"x")
        header += records + bytes(padding(len(records)))
    ascii_name = name.encode("ascii", "replace")[:_NAME_BYTES]
    ustar_size = size if size <= _MAX_USTAR_SIZE else 0
    return header + _ustar(ascii_name, size=ustar_size, mode=mode, typeflag=typeflag)


def _pax_record(key: bytes, value: bytes) -> bytes:
    """Write one pax record, whose leading length counts its own digits."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _ustar(name: bytes, *, size: int, mode: int, typeflag: bytes) -> bytes:
    header = bytearray(BLOCK)
    header[0 : len(name)] = name
    header[100:108] = b"%07o\0" % mode
    header[108:116] = b"0000000\0"  # uid
    header[116:124] = b"0000000\0"  # gid
    header[124:136] = b"%011o\0" % size
    header[136:148] = b"00000000000\0"  # mtime
    header[148:156] = b" " * 8  # checksum, while it is computed
    header[156:157] = typeflag
    header[257:265] = b"ustar\x0000"
    header[329:337] = b"0000000\0"  # devmajor
    header[337:345] = b"0000000\0"  # devminor
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
