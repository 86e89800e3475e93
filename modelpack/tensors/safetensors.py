"""Parse the header of a safetensors file, strictly.

Owns: the safetensors format: an unsigned 64-bit little-endian header length, a JSON object, then the
tensors' bytes without holes. Leaves out: GGUF, and reading tensor data.

The JSON is scanned with regular expressions that accept only what a header may hold, instead of
being loaded whole: a hostile header can then not make Python build more objects than it has tensors
(ten million empty lists fit in 30 MB of JSON and take 700 MB once loaded). The expressions use
possessive repeats, so they do not backtrack: time is linear in the header.

Example::

    parsed = parse_safetensors(bytes_reader(data), len(data))
    parsed.header_length, parsed.tensors[0].name
"""

import json
import re
from operator import itemgetter
from typing import Any

from modelpack.errors import FormatError
from modelpack.tensors.dtypes import SAFETENSORS_BITS
from modelpack.tensors.model import (
    MAX_ELEMENTS,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    Read,
    Tensor,
    TensorFile,
    shown,
)

LENGTH_BYTES = 8
"""The header's length comes first, as an unsigned 64-bit little-endian integer."""

MAX_DIMENSIONS = 64
"""What NumPy and PyTorch allow a tensor to have."""

MAX_METADATA_ENTRIES = 65_536
"""Entries of ``__metadata__``; trainers write a few dozen."""

_METADATA = "__metadata__"
_MAX_OFFSET = 2**64 - 1

_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"([^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+)"'
_INTEGER = rb"(?:0|[1-9][0-9]{0,19}+)"
_COLON = _SPACE + rb":" + _SPACE
_COMMA = _SPACE + rb"," + _SPACE
_DELIMITER = _SPACE + rb"([,}])" + _SPACE

_KEY = re.compile(_STRING + _COLON)
_PAIR = re.compile(_STRING + _COLON + _STRING + _DELIMITER)
_NULL = re.compile(rb"null" + _DELIMITER)
_OPEN = re.compile(rb"\{" + _SPACE)
_CLOSE = re.compile(rb"\}" + _DELIMITER)
_END = re.compile(rb"\}" + _SPACE)
_AFTER = re.compile(rb"([,}])" + _SPACE)
_INTEGERS = rb"(?:%b(?:%b%b){0,%d}+)?+" % (_INTEGER, _COMMA, _INTEGER, MAX_DIMENSIONS - 1)
# Every writer known puts the three members in this order; _ENTRY_OBJECT takes the others.
_ENTRY = re.compile(
    rb'%(string)b%(colon)b\{%(space)b"dtype"%(colon)b"([A-Z0-9_]{1,32}+)"%(comma)b'
    rb'"shape"%(colon)b\[%(space)b(%(integers)b)%(space)b\]%(comma)b'
    rb'"data_offsets"%(colon)b\[%(space)b(%(integer)b)%(comma)b(%(integer)b)%(space)b\]'
    rb"%(space)b\}%(delimiter)b"
    % {
        b"string": _STRING,
        b"colon": _COLON,
        b"comma": _COMMA,
        b"space": _SPACE,
        b"integer": _INTEGER,
        b"integers": _INTEGERS,
        b"delimiter": _DELIMITER,
    }
)
_ENTRY_OBJECT = re.compile(rb"(\{[^{}]{0,4096}+\})" + _DELIMITER)

_Row = tuple[int, int, str, str, tuple[int, ...]]
"""begin, end, name, dtype, shape; offsets relative to the end of the header."""


def looks_like_safetensors(head: bytes, size: int) -> bool:
    """Tell whether the first nine bytes of a file of ``size`` bytes may begin a safetensors file."""
    if len(head) <= LENGTH_BYTES or head[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        return False
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    return length <= MAX_HEADER_BYTES and LENGTH_BYTES + length <= size


def parse_safetensors(read: Read, size: int) -> TensorFile:
    """Return what the header of a safetensors file of ``size`` bytes says.

    A normal return proves: the header is one JSON object in valid UTF-8 without duplicate keys; each
    dtype is known; each tensor's shape and dtype account for exactly its bytes; the tensors cover
    the rest of the file with no gap and no overlap. Reads nothing but the header.

    Raises:
        FormatError: the file is not that; the message gives the reason, not the path.
    """
    header = _read_header(read, size)
    rows, metadata = _scan(header)
    rows.sort(key=itemgetter(0, 1))
    start = LENGTH_BYTES + len(header)
    expected = 0
    tensors = []
    for begin, end, name, dtype, shape in rows:
        if begin != expected:
            fault = "overlaps the one before it" if begin < expected else "leaves a gap before it"
            raise FormatError(f"safetensors tensor {shown(name)} {fault} at data offset {begin}")
        _check_length(name, dtype, shape, end - begin)
        expected = end
        tensors.append(
            Tensor(name=name, dtype=dtype, shape=shape, offset=start + begin, length=end - begin)
        )
    if start + expected != size:
        raise FormatError(
            f"safetensors tensors end at byte {start + expected}, but the file has {size} bytes: "
            "it is cut short or has something appended"
        )
    return TensorFile(
        format="safetensors",
        size=size,
        header_length=start,
        tensors=tuple(tensors),
        metadata=metadata,
    )


def _read_header(read: Read, size: int) -> bytes:
    head = read(0, LENGTH_BYTES) if size >= LENGTH_BYTES else b""
    if len(head) < LENGTH_BYTES:
        raise FormatError(f"safetensors file of {size} bytes is too short to hold a header")
    length = int.from_bytes(head, "little")
    if length > MAX_HEADER_BYTES:
        raise FormatError(
            f"safetensors header of {length} bytes is over the limit of {MAX_HEADER_BYTES}"
        )
    if LENGTH_BYTES + length > size:
        raise FormatError(f"safetensors header of {length} bytes is longer than the file ({size})")
    header = read(LENGTH_BYTES, length)
    if len(header) != length:
        raise FormatError(f"safetensors header ends after {len(header)} of {length} bytes")
    return header


def _scan(header: bytes) -> tuple[list[_Row], dict[str, str]]:
    """Walk the members of the header's object, in the order they are written."""
    rows: list[_Row] = []
    seen: set[str] = set()
    metadata: dict[str, str] = {}
    opened = _OPEN.match(header)
    if opened is None:
        raise FormatError("safetensors header does not begin with '{'")
    position = opened.end()
    delimiter = b","
    empty = _END.match(header, position)
    if empty is not None:
        position, delimiter = empty.end(), b"}"
    while delimiter == b",":
        entry = _ENTRY.match(header, position)
        if entry is not None:
            row = _row_of_entry(entry)
            position, delimiter = entry.end(), entry[6]
        else:
            key = _KEY.match(header, position)
            if key is None:
                raise _unreadable(position)
            name = _decode(key[1], position)
            if name == _METADATA:
                if name in seen:
                    raise FormatError(f"safetensors header has {shown(name)} twice")
                seen.add(name)
                metadata, position, delimiter = _scan_metadata(header, key.end())
                continue
            row, position, delimiter = _scan_object(header, name, key.end())
        name = row[2]
        if name in seen:
            raise FormatError(f"safetensors header has {shown(name)} twice")
        if name == _METADATA:
            raise FormatError(f"safetensors {_METADATA} holds something other than strings")
        seen.add(name)
        rows.append(row)
        if len(rows) > MAX_TENSORS:
            raise FormatError(f"safetensors file has more than {MAX_TENSORS} tensors")
    if position != len(header):
        raise FormatError(f"safetensors header has something after its JSON at byte {position}")
    return rows, metadata


def _row_of_entry(entry: re.Match[bytes]) -> _Row:
    raw_name, raw_dtype, raw_shape, begin, end, _ = entry.groups()
    name = _decode(raw_name, entry.start())
    shape = tuple(map(int, raw_shape.split(b","))) if raw_shape else ()
    return _row(name, raw_dtype.decode("ascii"), shape, int(begin), int(end))


def _scan_object(header: bytes, name: str, position: int) -> tuple[_Row, int, bytes]:
    """Read one tensor whose members stand in an unusual order, or say what is wrong with it."""
    found = _ENTRY_OBJECT.match(header, position)
    if found is None:
        raise _unreadable(position)
    try:
        members = json.loads(
            found[1], object_pairs_hook=list, parse_int=_unsigned, parse_float=_no_number,
            parse_constant=_no_number,
        )  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise FormatError(f"safetensors tensor {shown(name)} is not readable JSON") from error
    fields: dict[str, Any] = dict(members)
    if len(members) != 3 or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(
            f"safetensors tensor {shown(name)} does not have exactly dtype, shape and data_offsets"
        )
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    well_typed = (
        isinstance(dtype, str)
        and _all_integers(shape)
        and _all_integers(offsets)
        and len(offsets) == 2
    )
    if not well_typed:
        raise FormatError(f"safetensors tensor {shown(name)} has a member of the wrong type")
    return _row(name, dtype, tuple(shape), *offsets), found.end(), found[2]


def _row(name: str, dtype: str, shape: tuple[int, ...], begin: int, end: int) -> _Row:
    if dtype not in SAFETENSORS_BITS:
        raise FormatError(f"safetensors tensor {shown(name)} has the unknown dtype {shown(dtype)}")
    if len(shape) > MAX_DIMENSIONS:
        raise FormatError(
            f"safetensors tensor {shown(name)} has {len(shape)} dimensions, over {MAX_DIMENSIONS}"
        )
    if not begin <= end <= _MAX_OFFSET:
        raise FormatError(
            f"safetensors tensor {shown(name)} has the impossible data offsets {begin}, {end}"
        )
    return begin, end, name, dtype, shape


def _check_length(name: str, dtype: str, shape: tuple[int, ...], length: int) -> None:
    elements = 1
    for dimension in shape:
        elements *= dimension
        # Checked as the product grows: a later 0 must not hide an overflow from readers that
        # multiply in 64 bits.
        if elements > MAX_ELEMENTS:
            raise FormatError(f"safetensors tensor {shown(name)} has a shape that overflows")
    length_in_bytes, rest = divmod(elements * SAFETENSORS_BITS[dtype], 8)
    if rest:
        raise FormatError(
            f"safetensors tensor {shown(name)}: {elements} elements of {dtype} do not fill whole bytes"
        )
    if length_in_bytes != length:
        raise FormatError(
            f"safetensors tensor {shown(name)}: shape and dtype {dtype} need {length_in_bytes} "
            f"bytes, its data offsets give {length}"
        )


def _scan_metadata(header: bytes, position: int) -> tuple[dict[str, str], int, bytes]:
    metadata: dict[str, str] = {}
    null = _NULL.match(header, position)
    if null is not None:
        return metadata, null.end(), null[1]
    opened = _OPEN.match(header, position)
    if opened is None:
        raise FormatError(f"safetensors {_METADATA} is not an object")
    position = opened.end()
    empty = _CLOSE.match(header, position)
    if empty is not None:
        return metadata, empty.end(), empty[1]
    delimiter = b","
    while delimiter == b",":
        pair = _PAIR.match(header, position)
        if pair is None:
            raise FormatError(
                f"safetensors {_METADATA} holds something other than strings at byte {position}"
            )
        key = _decode(pair[1], position)
        if key in metadata:
            raise FormatError(f"safetensors {_METADATA} has {shown(key)} twice")
        if len(metadata) == MAX_METADATA_ENTRIES:
            raise FormatError(f"safetensors {_METADATA} has over {MAX_METADATA_ENTRIES} entries")
        metadata[key] = _decode(pair[2], position)
        position, delimiter = pair.end(), pair[3]
    after = _AFTER.match(header, position)
    if after is None:
        raise _unreadable(position)
    return metadata, after.end(), after[1]


def _decode(raw: bytes, position: int) -> str:
    """Decode the inside of a JSON string."""
    try:
        if b"\\" not in raw:
            return raw.decode("utf-8")
        text = json.loads(b'"' + raw + b'"')
        text.encode("utf-8")  # a lone surrogate is not text
    except ValueError as error:  # UnicodeError is one
        raise FormatError(
            f"safetensors header has a malformed string at byte {position}"
        ) from error
    return str(text)


def _unsigned(text: str) -> int:
    if not text.isdigit() or len(text) > len(str(_MAX_OFFSET)):
        raise ValueError(text)
    return int(text)


def _no_number(text: str) -> None:
    raise ValueError(text)


def _all_integers(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _unreadable(position: int) -> FormatError:
    return FormatError(f"safetensors header is not the JSON of a header at byte {position}")
