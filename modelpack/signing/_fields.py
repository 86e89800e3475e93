"""Reading members out of parsed JSON, with the path of what is wrong in every message.

Owns the checks that the formats of this package share: exact members, bounded text, canonical
base64. Leaves out parsing JSON itself (``modelpack.manifest.load_json``) and every format.

    >>> members({"a": 1}, "thing", required=("a",))
    {'a': 1}
    >>> base64_bytes("aGk=", "thing.a", max_bytes=10)
    b'hi'
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from modelpack.errors import FormatError

# Names, types and hints in these formats are URLs or hashes; nothing real comes near this.
MAX_TEXT = 4096


def members(
    value: object, where: str, *, required: Sequence[str] = (), optional: Sequence[str] | None = ()
) -> dict[str, Any]:
    """Return ``value`` if it is an object with these members and, unless None, no others.

    Raises:
        FormatError: it is not; the message names the member.
    """
    if not isinstance(value, dict):
        raise FormatError(f"{where} is not an object")
    for name in required:
        if name not in value:
            raise FormatError(f"{where} has no {name}")
    if optional is not None:
        unknown = value.keys() - set(required) - set(optional)
        if unknown:
            raise FormatError(f"{where} has the unknown member {min(unknown)[:80]!a}")
    return value


def text(value: object, where: str, *, max_length: int = MAX_TEXT) -> str:
    """Return ``value`` if it is a string that can be encoded and is not over-long.

    Raises:
        FormatError: it is not.
    """
    if not isinstance(value, str):
        raise FormatError(f"{where} is not a string")
    if len(value) > max_length:
        raise FormatError(f"{where} is longer than {max_length} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"{where} is not valid Unicode") from error
    return value


def items(value: object, where: str, *, max_items: int) -> list[Any]:
    """Return ``value`` if it is a list of at most ``max_items``.

    Raises:
        FormatError: it is not.
    """
    if not isinstance(value, list):
        raise FormatError(f"{where} is not a list")
    if len(value) > max_items:
        raise FormatError(f"{where} has more than {max_items} entries")
    return value


def base64_bytes(value: object, where: str, *, max_bytes: int) -> bytes:
    """Decode standard base64 (RFC 4648, section 4), refusing every non-canonical spelling.

    A decoder that ignores stray characters or unused bits would let two texts mean the same bytes,
    and a changed signature file pass as unchanged.

    Raises:
        FormatError: not canonical base64, or more than ``max_bytes``.
    """
    if not isinstance(value, str):
        raise FormatError(f"{where} is not a string")
    # Four characters for three bytes; checked before decoding allocates anything.
    if len(value) > (max_bytes + 2) // 3 * 4:
        raise FormatError(f"{where} holds more than {max_bytes} bytes")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{where} is not base64") from error
    if len(data) > max_bytes:
        raise FormatError(f"{where} holds more than {max_bytes} bytes")
    if base64.b64encode(data).decode() != value:
        raise FormatError(f"{where} is not canonical base64")
    return data


def base64_text(data: bytes) -> str:
    """Encode ``data`` as standard base64."""
    return base64.b64encode(data).decode()
