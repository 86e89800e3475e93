r"""numpy's ``.npy`` files: whether an array holds objects, which are pickles (numpy.lib.format).

Owns the header. Leaves out judging the pickle behind it (``pickles.py``).

numpy hands the header's ``descr`` to ``numpy.dtype``, which spells "objects" in many ways: ``'|O'``,
``'object'``, a field ``'i4,O'``. So the types that hold none are listed, and all else may be objects.

    >>> from modelpack.unsafe.finding import BytesReader
    >>> data = b"\x93NUMPY\x01\x00\x13\x00{'descr': 'object'}(pickle)"
    >>> object_part(data, BytesReader(data)).size
    8
"""

import ast
import re
from typing import Any

from modelpack.errors import FormatError
from modelpack.unsafe.finding import Part, Reader

MAGIC = b"\x93NUMPY"
# numpy itself refuses headers of more than 10,000 bytes unless told otherwise.
_MAX_HEADER = 64 * 1024
_PREFIX = 8
# Booleans, numbers, times, and texts and bytes of a fixed length.
_PLAIN = re.compile(
    r"[<>=|]?(?:[?bBhHiIlLqQpPefdgFDGSaUVmM]|[biufcSaUVmM][0-9]{1,9})(?:\[[^\]]*\])?"
)
_MAX_DEPTH = 16


def object_part(head: bytes, reader: Reader) -> Reader | None:
    """Return the bytes behind the header if the array may hold objects, None if it holds none.

    Raises:
        FormatError: the header is broken.
    """
    width = 4 if len(head) > len(MAGIC) and head[len(MAGIC)] >= 2 else 2
    length = int.from_bytes(head[_PREFIX : _PREFIX + width], "little")
    start = _PREFIX + width + length
    if length > _MAX_HEADER or start > reader.size:
        raise FormatError("a numpy array with a broken header")
    text = reader.read(_PREFIX + width, length).decode("latin-1")
    try:
        header = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise FormatError("a numpy array with a broken header") from error
    if not isinstance(header, dict) or "descr" not in header:
        raise FormatError("a numpy array with a broken header")
    if _is_plain(header["descr"], 0):
        return None
    return Part(reader, start, reader.size - start)


def _is_plain(descr: Any, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if isinstance(descr, str):
        return _PLAIN.fullmatch(descr) is not None
    # A list of fields: (name, type) or (name, type, shape).
    if isinstance(descr, list):
        return bool(descr) and all(
            isinstance(field, tuple) and len(field) in (2, 3) and _is_plain(field[1], depth + 1)
            for field in descr
        )
    # A type and its shape.
    return isinstance(descr, tuple) and len(descr) == 2 and _is_plain(descr[0], depth + 1)
