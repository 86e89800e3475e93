r"""Pickle opcodes with their arguments, read as leniently as the most lenient unpickler.

Owns finding where each opcode ends, within bounds. Leaves out what opcodes do (``pickles.py``).

``pickletools`` reads arguments more strictly than the unpicklers: ``I0x1`` or a text in Latin-1 make
it give up, while loaders go on to what follows. A scanner that stops where a loader does not is
blind, so whatever does not matter here (numbers, long texts) is stepped over unread.

    >>> from modelpack.unsafe.finding import BytesReader
    >>> list(read_opcodes(Stream(BytesReader(b"I0x1\n.")))) == [("INT", OPAQUE), ("STOP", None)]
    True
"""

import pickletools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from modelpack.unsafe.finding import Reader

# Names are short; a longer text is no name that is allowed, and its bytes do not matter.
MAX_TEXT_BYTES = 64 * 1024
# Old protocols write texts as lines. Longer ones than this are not searched for their end.
MAX_LINE_BYTES = 16 * 1024 * 1024
# Only the beginning is there of what is compressed: a text read as a length says some 500 MB, and no
# pickle of tensors has an argument of this size.
_MAX_BEYOND_BYTES = 64 * 1024 * 1024
# torch's magic number has ten bytes.
_MAX_NUMBER_BYTES = 64

# Most files that are no pickles are known as such by their first bytes; reading ahead may cost a
# request to a registry, so it starts small and grows.
_FIRST_BLOCK_BYTES = 4 * 1024
_BLOCK_BYTES = 256 * 1024


class _Opaque:
    """The class of ``OPAQUE``."""

    def __repr__(self) -> str:
        return "OPAQUE"


OPAQUE: Final = _Opaque()
"""An argument whose value does not matter, or is not known."""


class BrokenError(ValueError):
    """No unpickler could follow the stream any further."""


class LimitError(BrokenError):
    """An unpickler could go on; a bound, or the end of what is known, is reached here."""


class AmbiguousError(LimitError):
    """From here on unpicklers read different things."""


class Stream:
    """Bytes read forward, with every length bounded.

    ``whole`` says that there is nothing behind the reader's end; without it the end is a limit.
    """

    def __init__(self, reader: Reader, *, whole: bool = True) -> None:
        self._reader = reader
        self._whole = whole
        self._position = 0
        self._block = b""
        self._block_start = 0
        self._ahead = _FIRST_BLOCK_BYTES

    def tell(self) -> int:
        """Return how many bytes were read or skipped."""
        return self._position

    def read(self, length: int) -> bytes:
        """Return ``length`` bytes.

        Raises:
            BrokenError: there are not so many.
        """
        self._require(length)
        start = self._position - self._block_start
        if start < 0 or start + length > len(self._block):
            wanted = min(max(length, self._ahead), self._left())
            self._ahead = min(2 * self._ahead, _BLOCK_BYTES)
            self._block = self._reader.read(self._position, wanted)
            self._block_start, start = self._position, 0
        self._position += length
        return self._block[start : start + length]

    def skip(self, length: int) -> None:
        """Pass over ``length`` bytes without reading them; raises as ``read``."""
        self._require(length)
        self._position += length

    def line(self) -> bytes | None:
        """Return what comes before the next newline; None if that is too long to matter.

        Raises:
            BrokenError: there is no newline.
        """
        parts, length = [], 0
        while True:
            start = self._fill()
            end = self._block.find(b"\n", start)
            stop = len(self._block) if end < 0 else end
            length += stop - start
            if length <= MAX_TEXT_BYTES:
                parts.append(self._block[start:stop])
            self._position += stop - start
            if end >= 0:
                self._position += 1
                return b"".join(parts) if length <= MAX_TEXT_BYTES else None
            if length > MAX_LINE_BYTES:
                raise LimitError(f"a line of more than {MAX_LINE_BYTES} bytes")

    def _fill(self) -> int:
        """Return where in the block the next byte is, which is read if it is not there yet."""
        if not self._block_start <= self._position < self._block_start + len(self._block):
            self.read(1)
            self._position -= 1
        return self._position - self._block_start

    def _left(self) -> int:
        return self._reader.size - self._position

    def _require(self, length: int) -> None:
        if length <= self._left():
            return
        if not self._whole and length - self._left() <= _MAX_BEYOND_BYTES:
            raise LimitError("it goes on behind what is looked at")
        raise BrokenError("the file ends within it")


def read_opcodes(stream: Stream) -> Iterator[tuple[str, Any]]:
    """Yield (name, argument) up to and including STOP.

    An argument is an integer, a text, a pair of texts (GLOBAL and INST), None where there is none, or
    ``OPAQUE``.

    Raises:
        BrokenError: what comes next is no opcode, or its argument is none.
        LimitError: it could go on, but not here.
        AmbiguousError: a frame ends within an opcode, or another begins in it. No pickler writes that;
            C's unpickler then loses the bytes up to the frame's end, and Python's does not.
    """
    frame_end = 0
    while True:
        start = stream.tell()
        code = stream.read(1)
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise BrokenError(f"byte {code[0]:#04x} at {stream.tell() - 1} is no opcode")
        argument: Any = None
        if opcode.arg is not None:
            argument = _ARGUMENTS[opcode.arg.name](stream)
        if start < frame_end and (stream.tell() > frame_end or opcode.name == "FRAME"):
            raise AmbiguousError("goes on across the end of a frame")
        if opcode.name == "FRAME":
            frame_end = stream.tell() + argument
        yield opcode.name, argument
        if opcode.name == "STOP":
            return


def _number(width: int, *, signed: bool = False) -> Callable[[Stream], int]:
    def read(stream: Stream) -> int:
        return int.from_bytes(stream.read(width), "little", signed=signed)

    return read


def _float(stream: Stream) -> Any:
    stream.skip(8)
    return OPAQUE


def _counted(
    width: int, decode: Callable[[bytes], Any] | None, *, signed: bool = False
) -> Callable[[Stream], Any]:
    """Read an argument that begins with its length; one that is long, or never a name, is skipped."""
    count = _number(width, signed=signed)

    def read(stream: Stream) -> Any:
        length = count(stream)
        if length < 0:
            raise BrokenError("an argument of negative length")
        if decode is None or length > MAX_TEXT_BYTES:
            stream.skip(length)
            return OPAQUE
        return decode(stream.read(length))

    return read


def _latin(raw: bytes) -> str:
    # Whoever unpickles chooses the encoding; names that are allowed are the same in all.
    return raw.decode("latin-1")


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise BrokenError("a text that is not UTF-8") from error


def _long(raw: bytes) -> Any:
    return int.from_bytes(raw, "little", signed=True) if len(raw) <= _MAX_NUMBER_BYTES else OPAQUE


# What int() and float() of Python take, and strtol() of C, which stops at a NUL.
_NUMERAL = re.compile(
    rb"\s*[+-]?(?:0[xob][0-9a-f_]+|[0-9_]+l?|[0-9_]*\.?[0-9_]*(?:e[+-]?[0-9_]+)?|inf(?:inity)?|nan)"
    rb"l?\s*(?:\0.*)?",
    re.IGNORECASE | re.DOTALL,
)


def _numeral(stream: Stream) -> Any:
    line = stream.line()
    if line is not None and not _NUMERAL.fullmatch(line):
        raise BrokenError("a number that is none")
    return OPAQUE


def _position(stream: Stream) -> int:
    line = stream.line()
    try:
        return int((line or b"").partition(b"\0")[0])
    except ValueError as error:
        raise BrokenError("a place in the memo that is none") from error


def _quoted(stream: Stream) -> Any:
    line = stream.line()
    if line is None:
        return OPAQUE
    line = line.rstrip()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise BrokenError("a text without its quotes")
    # An escape could spell anything, so what it is is left open.
    return OPAQUE if b"\\" in line else _latin(line[1:-1])


def _escaped(stream: Stream) -> Any:
    line = stream.line()
    if line is None:
        return OPAQUE
    try:
        return line.decode("raw-unicode-escape")
    except UnicodeDecodeError as error:
        raise BrokenError("a text with a broken escape") from error


def _persistent(stream: Stream) -> Any:
    stream.line()
    return OPAQUE


def _pair(stream: Stream) -> tuple[str, str]:
    first, second = stream.line(), stream.line()
    if first is None or second is None:
        raise BrokenError("a name that is too long to be one")
    return _utf8(first), _utf8(second)


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
# By the names that pickletools gives the kinds of arguments.
_ARGUMENTS: dict[str, Callable[[Stream], Any]] = {
    "uint1": _number(1),
    "uint2": _number(2),
    "int4": _number(4, signed=True),
    "uint4": _number(4),
    "uint8": _number(8),
    "float8": _float,
    "decimalnl_short": _numeral,
    "decimalnl_long": _numeral,
    "floatnl": _numeral,
    "stringnl": _quoted,
    "stringnl_noescape": _persistent,
    "stringnl_noescape_pair": _pair,
    "unicodestringnl": _escaped,
    "string1": _counted(1, _latin),
    "string4": _counted(4, _latin, signed=True),
    "bytes1": _counted(1, None),
    "bytes4": _counted(4, None),
    "bytes8": _counted(8, None),
    "bytearray8": _counted(8, None),
    "unicodestring1": _counted(1, _utf8),
    "unicodestring4": _counted(4, _utf8),
    "unicodestring8": _counted(8, _utf8),
    "long1": _counted(1, _long),
    "long4": _counted(4, _long, signed=True),
}
