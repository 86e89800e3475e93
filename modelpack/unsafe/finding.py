"""One thing found in a file, and the reader that finds it.

Owns the two values that every module here shares. Leaves out files and networks: whoever has bytes
to judge wraps them in a ``Reader``.

>>> reader = BytesReader(b"hello")
>>> reader.read(1, 3), reader.size
(b'ell', 5)
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from modelpack.errors import FormatError

Kind = Literal["pickle", "keras", "hdf5", "archive", "remote-code", "chat-template"]
Danger = Literal["note", "unscannable", "unsafe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something in a file that a policy may want to know."""

    path: str
    kind: Kind
    danger: Danger
    """``note``: worth showing, harmless in itself; ``unscannable``: nobody can tell, so not
    harmless; ``unsafe``: loading it runs code that no tensor needs."""
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``--json`` prints."""
        return {
            "path": self.path,
            "kind": self.kind,
            "danger": self.danger,
            "detail": self.detail,
        }


class Reader(Protocol):
    """Random access to bytes of a known number."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, offset: int, length: int, /) -> bytes:
        """Return exactly ``length`` bytes; the range lies within ``size``."""


class BytesReader:
    """A reader over bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self._data)

    def read(self, offset: int, length: int, /) -> bytes:
        """Return ``length`` bytes from ``offset``."""
        return read_range(self._data, offset, length)


class Part:
    """A reader over a range of another."""

    def __init__(self, whole: Reader, offset: int, size: int) -> None:
        self._whole = whole
        self._offset = offset
        self._size = size

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._size

    def read(self, offset: int, length: int, /) -> bytes:
        """Return ``length`` bytes from ``offset``."""
        if offset < 0 or length < 0 or offset + length > self._size:
            raise FormatError(f"range {offset}+{length} lies outside {self._size} bytes")
        return self._whole.read(self._offset + offset, length)


def read_range(data: bytes, offset: int, length: int) -> bytes:
    """Return a range of ``data``.

    Raises:
        FormatError: it does not lie within.
    """
    if offset < 0 or length < 0 or offset + length > len(data):
        raise FormatError(f"range {offset}+{length} lies outside {len(data)} bytes")
    return data[offset : offset + length]
