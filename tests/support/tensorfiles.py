"""Write small tensor files byte by byte, valid or not.

Independent of the programs under test and of the libraries that serve as oracles, so that a test can
put any wrong value anywhere.
"""

import json
import struct
from collections.abc import Iterable, Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
"""GGUF value types."""

_LAYOUTS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B"} | {
    U64: "Q",
    I64: "q",
    F64: "d",
}


def safetensors_raw(header: bytes | object, data: bytes = b"", length: int | None = None) -> bytes:
    """A header (bytes, or an object to be written as JSON) with its length, then the data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def safetensors_file(
    tensors: Iterable[tuple[str, str, Sequence[int], bytes]],
    metadata: dict[str, str] | None = None,
) -> bytes:
    """A valid file of ``(name, dtype, shape, data)``, in the order given."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    parts = []
    at = 0
    for name, dtype, shape, data in tensors:
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [at, at + len(data)],
        }
        parts.append(data)
        at += len(data)
    raw = json.dumps(header, separators=(",", ":")).encode()
    return safetensors_raw(raw + b" " * (-len(raw) % 8), b"".join(parts))


def gguf_string(text: str | bytes, order: str = "<") -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(order + "Q", len(raw)) + raw


def gguf_value(kind: int, value: object, order: str = "<") -> bytes:
    """The bytes of a value without its type; an array is ``(element kind, [elements])``."""
    if kind == STRING:
        assert isinstance(value, (str, bytes))
        return gguf_string(value, order)
    if kind == ARRAY:
        assert isinstance(value, tuple)
        inner, items = value
        body = b"".join(gguf_value(inner, item, order) for item in items)
        return struct.pack(order + "IQ", inner, len(items)) + body
    return struct.pack(order + _LAYOUTS[kind], value)


def gguf_pair(key: str | bytes, kind: int, value: object, order: str = "<") -> bytes:
    return gguf_string(key, order) + struct.pack(order + "I", kind) + gguf_value(kind, value, order)


def gguf_tensor(
    name: str | bytes, extents: Sequence[int], kind: int, offset: int, order: str = "<"
) -> bytes:
    """A tensor's description; ``extents`` has the innermost dimension first, as in the file."""
    layout = f"{order}I{len(extents)}QIQ"
    return gguf_string(name, order) + struct.pack(layout, len(extents), *extents, kind, offset)


def gguf_raw(
    pairs: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    order: str = "<",
    alignment: int = 32,
    tensor_count: int | None = None,
    pair_count: int | None = None,
) -> bytes:
    """A header made of ready parts, padding, then the data; the counts can be made to lie."""
    head = b"GGUF" + struct.pack(
        order + "IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(pairs) if pair_count is None else pair_count,
    )
    head += b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def gguf_file(
    tensors: Iterable[tuple[str, Sequence[int], int, bytes]],
    pairs: Sequence[bytes] = (),
    *,
    alignment: int = 32,
) -> bytes:
    """A valid file of ``(name, extents, type, data)``; each tensor is padded, as writers do."""
    described = []
    data = b""
    for name, extents, kind, body in tensors:
        described.append(gguf_tensor(name, extents, kind, len(data)))
        data += body + bytes(-len(body) % alignment)
    return gguf_raw(pairs, described, data, alignment=alignment)
