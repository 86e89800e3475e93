"""Parse the header of a GGUF file, strictly.

Owns: GGUF versions 2 and 3, little-endian, and version 3 big-endian: key-value metadata, tensor
descriptions, alignment. Leaves out: safetensors, GGUF 1 (withdrawn in 2023), and tensor data.

Every count and length in the file is compared with the bytes that are left before it is used, and
nothing is allocated from a count alone. Python's integers do not overflow; sizes that would overflow
a 64-bit reader are refused, so that no file passes here and breaks there.

Example::

    parsed = parse_gguf(bytes_reader(data), len(data))
    parsed.metadata["general.architecture"], parsed.parameters_by_dtype
"""

import struct
from typing import Literal

from modelpack.errors import FormatError
from modelpack.tensors.dtypes import GGML_TYPES
from modelpack.tensors.model import (
    MAX_ELEMENTS,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    ArraySummary,
    MetadataValue,
    Read,
    Tensor,
    TensorFile,
    shown,
)

MAGIC = b"GGUF"

DEFAULT_ALIGNMENT = 32
"""What the specification says when ``general.alignment`` is absent."""

MAX_KEY_VALUES = 10_000
"""Metadata entries; files of today have under 100."""

MAX_KEY_BYTES = 65_535
"""The specification's bound on a key."""

MAX_NAME_BYTES = 1_024
"""A tensor's name: the specification says 64, some programs are built to write longer ones."""

MAX_STRING_BYTES = 16 * 1024 * 1024
"""One string value; chat templates, the longest in use, take some tens of KiB."""

MAX_DIMENSIONS = 4
"""The specification's bound, and ggml's."""

MAX_ARRAY_DEPTH = 4
"""Arrays within arrays: the specification sets no bound, files in use do not nest at all."""

MAX_WALKED_STRINGS = 4_000_000
"""Strings of all long arrays together, which have to be walked one by one. The largest vocabularies
have some 260,000 tokens and 500,000 merges; this many take about a second."""

MAX_INNER_ARRAYS = 100_000
"""Arrays within arrays of one file; walking them is slower still, and files in use have none."""

MAX_KEPT_ITEMS = 64
"""Arrays up to this length are kept (languages, tags, datasets), longer ones summarised."""

_HEAD_BYTES = 24
_MIN_KEY_VALUE_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8
_WINDOW_BYTES = 1024 * 1024

_STRING = 8
_ARRAY = 9
_SCALARS: dict[int, tuple[str, str]] = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", "B"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}
_BOOL = 7
_UINT32 = 4


class _Cursor:
    """Read forward through the header by way of a window; refuse to pass its limit."""

    def __init__(self, read: Read, size: int, order: Literal["<", ">"], start: int) -> None:
        self._read = read
        self._limit = min(size, MAX_HEADER_BYTES)
        self._base = start  # the file offset of the window's first byte
        self.window = b""
        self.at = 0  # an index into the window
        self.order = order
        self.u32 = struct.Struct(order + "I")
        self.u64 = struct.Struct(order + "Q")

    @property
    def position(self) -> int:
        return self._base + self.at

    @property
    def left(self) -> int:
        return self._limit - self.position

    def need(self, count: int) -> None:
        """Make the next ``count`` bytes available in the window."""
        if self.at + count <= len(self.window):
            return
        self._check_left(count)
        position = self.position
        self.window = self._read(position, min(max(count, _WINDOW_BYTES), self.left))
        self._base, self.at = position, 0
        if len(self.window) < count:
            raise FormatError(f"GGUF header ends at byte {position + len(self.window)}")

    def skip(self, count: int) -> None:
        self._check_left(count)
        self.at += count  # past the window's end is fine: need() reads again from there

    def take_u32(self) -> int:
        self.need(4)
        (value,) = self.u32.unpack_from(self.window, self.at)
        self.at += 4
        return int(value)

    def take_u64(self) -> int:
        self.need(8)
        (value,) = self.u64.unpack_from(self.window, self.at)
        self.at += 8
        return int(value)

    def take_string(self, limit: int, what: str) -> str:
        length = self.take_u64()
        if length > limit:
            raise FormatError(f"GGUF {what} of {length} bytes is over the limit of {limit}")
        self.need(length)
        raw = self.window[self.at : self.at + length]
        self.at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(
                f"GGUF {what} at byte {self.position - length} is not UTF-8"
            ) from error

    def _check_left(self, count: int) -> None:
        if count > self.left:
            raise FormatError(
                f"GGUF header needs {count} bytes at byte {self.position}, {self.left} are left "
                "within the file and the limit"
            )


def parse_gguf(read: Read, size: int) -> TensorFile:
    """Return what the header of a GGUF file of ``size`` bytes says.

    A normal return proves: keys and tensor names are unique; every tensor has a known type, a shape
    of whole blocks, and bytes that lie aligned within the file and overlap no other tensor's. Bytes
    between tensors and after the last one (padding) are not looked at. Reads nothing but the header.

    Raises:
        FormatError: the file is not that; the message gives the reason, not the path.
    """
    version, order = _read_version(read, size)
    cursor = _Cursor(read, size, order, start=8)
    tensor_count, pair_count = cursor.take_u64(), cursor.take_u64()
    _check_count("tensors", tensor_count, MAX_TENSORS, _MIN_TENSOR_BYTES, cursor.left)
    _check_count("key-value pairs", pair_count, MAX_KEY_VALUES, _MIN_KEY_VALUE_BYTES, cursor.left)
    metadata, alignment = _read_metadata(cursor, pair_count)
    described = _read_tensors(cursor, tensor_count)
    start = cursor.position
    if described:
        start += -start % alignment
    return TensorFile(
        format="gguf",
        size=size,
        header_length=start,
        tensors=_place(described, start, alignment, size),
        metadata=metadata,
        format_version=version,
        byte_order="little" if order == "<" else "big",
    )


def _read_version(read: Read, size: int) -> tuple[int, Literal["<", ">"]]:
    head = read(0, 8) if size >= _HEAD_BYTES else b""
    if len(head) < 8:
        raise FormatError(f"GGUF file of {size} bytes is too short to hold a header")
    if head[:4] != MAGIC:
        raise FormatError("GGUF file does not begin with 'GGUF'")
    little, big = int.from_bytes(head[4:], "little"), int.from_bytes(head[4:], "big")
    if little in {2, 3}:
        return little, "<"
    if big == 3:
        return big, ">"
    raise FormatError(f"GGUF version {little} is not supported (2 and 3 are)")


def _check_count(what: str, count: int, limit: int, least: int, left: int) -> None:
    if count > limit:
        raise FormatError(f"GGUF file claims {count} {what}, over the limit of {limit}")
    if count * least > left:
        raise FormatError(f"GGUF file claims {count} {what}, more than fit in it")


def _read_metadata(cursor: _Cursor, count: int) -> tuple[dict[str, MetadataValue], int]:
    metadata: dict[str, MetadataValue] = {}
    alignment = DEFAULT_ALIGNMENT
    walk = _Walk(cursor)
    for _ in range(count):
        key = cursor.take_string(MAX_KEY_BYTES, "key")
        if not key or key in metadata:
            raise FormatError(f"GGUF key {shown(key)} is {'there twice' if key else 'empty'}")
        kind = cursor.take_u32()
        value = walk.value(kind, key)
        metadata[key] = value
        if key == "general.alignment":
            if kind != _UINT32 or not isinstance(value, int) or value.bit_count() != 1:
                raise FormatError("GGUF general.alignment is not a power of two of type uint32")
            alignment = value
    return metadata, alignment


class _Walk:
    """Read metadata values; keep the budgets of what has to be walked item by item."""

    def __init__(self, cursor: _Cursor) -> None:
        self._cursor = cursor
        self._strings_left = MAX_WALKED_STRINGS
        self._arrays_left = MAX_INNER_ARRAYS

    def value(self, kind: int, key: str) -> MetadataValue:
        if kind == _ARRAY:
            return self._array(key)
        return self._single(kind, key)

    def _single(self, kind: int, key: str) -> str | int | float | bool:
        if kind == _STRING:
            return self._cursor.take_string(MAX_STRING_BYTES, f"value of {shown(key)}")
        if kind not in _SCALARS:
            raise FormatError(f"GGUF key {shown(key)} has the unknown value type {kind}")
        layout = struct.Struct(self._cursor.order + _SCALARS[kind][1])
        self._cursor.need(layout.size)
        (value,) = layout.unpack_from(self._cursor.window, self._cursor.at)
        self._cursor.at += layout.size
        if kind != _BOOL:
            return value  # type: ignore[no-any-return]
        if value > 1:
            raise FormatError(f"GGUF key {shown(key)} holds {value} where a bool must be")
        return bool(value)

    def _array(self, key: str) -> MetadataValue:
        kind, count = self._array_head(key)
        if kind == _ARRAY:
            self._skip_items(kind, count, key, depth=1)
            return ArraySummary(element_type="array", length=count)
        if count <= MAX_KEPT_ITEMS:
            return tuple(self._single(kind, key) for _ in range(count))
        self._skip_items(kind, count, key, depth=1)
        name = "string" if kind == _STRING else _SCALARS[kind][0]
        return ArraySummary(element_type=name, length=count)

    def _array_head(self, key: str) -> tuple[int, int]:
        kind, count = self._cursor.take_u32(), self._cursor.take_u64()
        if kind == _STRING:
            least = 8
        elif kind == _ARRAY:
            least = 12
        elif kind in _SCALARS:
            least = struct.calcsize("=" + _SCALARS[kind][1])
        else:
            raise FormatError(f"GGUF key {shown(key)} has an array of the unknown type {kind}")
        if count * least > self._cursor.left:
            raise FormatError(
                f"GGUF key {shown(key)} claims {count} items, more than fit in the file"
            )
        return kind, count

    def _skip_items(self, kind: int, count: int, key: str, depth: int) -> None:
        if kind in _SCALARS:
            self._cursor.skip(count * struct.calcsize("=" + _SCALARS[kind][1]))
            return
        if kind == _STRING:
            self._strings_left -= count
            if self._strings_left < 0:
                raise FormatError(
                    f"GGUF metadata has over {MAX_WALKED_STRINGS} strings in its arrays"
                )
            self._skip_strings(count)
            return
        if depth == MAX_ARRAY_DEPTH:
            raise FormatError(f"GGUF key {shown(key)} nests arrays over {MAX_ARRAY_DEPTH} deep")
        self._arrays_left -= count
        if self._arrays_left < 0:
            raise FormatError(f"GGUF metadata has over {MAX_INNER_ARRAYS} arrays within arrays")
        for _ in range(count):
            inner_kind, inner_count = self._array_head(key)
            self._skip_items(inner_kind, inner_count, key, depth + 1)

    def _skip_strings(self, count: int) -> None:
        cursor = self._cursor
        unpack = cursor.u64.unpack_from
        # Vocabularies are the bulk of a header, so this loop does without a call per string.
        window, at = cursor.window, cursor.at
        for _ in range(count):
            if at + 8 > len(window):
                cursor.at = at
                cursor.need(8)
                window, at = cursor.window, cursor.at
            (length,) = unpack(window, at)
            at += 8 + length
            if at > len(window):
                cursor.at = at - length
                cursor.skip(length)
        cursor.at = at


_Described = tuple[str, str, tuple[int, ...], int, int]
"""name, dtype, shape, offset relative to the tensor data, length."""


def _read_tensors(cursor: _Cursor, count: int) -> list[_Described]:
    layouts = [struct.Struct(f"{cursor.order}{n}QIQ") for n in range(MAX_DIMENSIONS + 1)]
    described: list[_Described] = []
    names: set[str] = set()
    for _ in range(count):
        name = cursor.take_string(MAX_NAME_BYTES, "tensor name")
        if name in names:
            raise FormatError(f"GGUF tensor {shown(name)} is there twice")
        names.add(name)
        dimensions = cursor.take_u32()
        if dimensions > MAX_DIMENSIONS:
            raise FormatError(
                f"GGUF tensor {shown(name)} has {dimensions} dimensions, over {MAX_DIMENSIONS}"
            )
        layout = layouts[dimensions]
        cursor.need(layout.size)
        *extents, kind, offset = layout.unpack_from(cursor.window, cursor.at)
        cursor.at += layout.size
        dtype, length = _measure(name, kind, extents)
        described.append((name, dtype, tuple(reversed(extents)), offset, length))
    return described


def _measure(name: str, kind: int, extents: list[int]) -> tuple[str, int]:
    """Return the type's name and the tensor's bytes; ``extents`` has the innermost first."""
    ggml = GGML_TYPES.get(kind)
    if ggml is None:
        raise FormatError(f"GGUF tensor {shown(name)} has the unknown type {kind}")
    elements = 1
    for extent in extents:
        elements *= extent
        # Checked as the product grows: a later 0 must not hide an overflow from readers that
        # multiply in 64 bits.
        if elements > MAX_ELEMENTS:
            raise FormatError(f"GGUF tensor {shown(name)} has a shape that overflows")
    row = extents[0] if extents else 1
    if row % ggml.block:
        raise FormatError(
            f"GGUF tensor {shown(name)} has rows of {row} elements, not a multiple of "
            f"{ggml.name}'s block of {ggml.block}"
        )
    return ggml.name, elements // ggml.block * ggml.bytes_per_block


def _place(
    described: list[_Described], start: int, alignment: int, size: int
) -> tuple[Tensor, ...]:
    """Put the tensors in the order of their bytes and check where those lie."""
    tensors = []
    reached = 0
    for name, dtype, shape, offset, length in sorted(described, key=lambda item: item[3:]):
        if offset % alignment:
            raise FormatError(
                f"GGUF tensor {shown(name)} is at offset {offset}, not aligned to {alignment}"
            )
        if start + offset + length > size:
            raise FormatError(
                f"GGUF tensor {shown(name)} ends at byte {start + offset + length}, past the end of "
                f"the file ({size} bytes): it is cut short or its header is wrong"
            )
        if offset < reached:
            raise FormatError(f"GGUF tensor {shown(name)} overlaps the one before it")
        reached = offset + length
        tensors.append(
            Tensor(name=name, dtype=dtype, shape=shape, offset=start + offset, length=length)
        )
    return tuple(tensors)
