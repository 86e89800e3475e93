"""Parsing ``WWW-Authenticate`` (RFC 9110, section 11.6.1), strictly.

Owns the header grammar. Leaves out what to do about a challenge (``auth.py``) and which realms are
safe (``realms.py``).

    >>> parse_challenges('Bearer realm="https://a.example/token",service="r"')[0].parameters["service"]
    'r'
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from modelpack.errors import FormatError

# Real challenges are a few hundred bytes; a scope list can make them a few thousand.
MAX_CHALLENGE = 16 * 1024

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"(?P<scheme>{_WORD})(?=[ \t,]|\Z)")
_PARAMETER = re.compile(
    rf"(?P<name>{_WORD})[ \t]*=[ \t]*"
    rf"(?:(?P<token>{_WORD})|\"(?P<quoted>(?:[^\"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e\x80-\xff])*)\")"
    r"[ \t]*(?=,|\Z)"
)
_TOKEN68 = re.compile(r"(?P<value>[A-Za-z0-9._~+/-]+=*)[ \t]*(?=,|\Z)")
_SEPARATORS = re.compile(r"[ \t,]*")
_SPACES = re.compile(r"[ \t]*")
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Challenge:
    """One way in which a server would accept credentials."""

    scheme: str
    """In lower case."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    token: str | None = None


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Parse the value of one header, or of several joined by commas.

    Raises:
        FormatError: it does not follow the grammar, names a parameter twice, or is too long.
    """
    if len(header) > MAX_CHALLENGE:
        raise FormatError("WWW-Authenticate header is too long")
    challenges = []
    position = _skip(_SEPARATORS, header, 0)
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if not scheme:
            raise FormatError(f"WWW-Authenticate header is malformed at {header[position:][:40]!r}")
        token, parameters, position = _details(header, scheme.end())
        challenges.append(
            Challenge(scheme=scheme["scheme"].lower(), parameters=parameters, token=token)
        )
    return tuple(challenges)


def _details(header: str, position: int) -> tuple[str | None, dict[str, str], int]:
    """Read what follows a scheme; return it and where the next challenge starts."""
    parameters: dict[str, str] = {}
    start = _skip(_SPACES, header, position)
    if start > position and not _PARAMETER.match(header, start):
        token = _TOKEN68.match(header, start)
        if token:
            return token["value"], parameters, _skip(_SEPARATORS, header, token.end())
    position = _skip(_SEPARATORS, header, position)
    while match := _PARAMETER.match(header, position):
        name = match["name"].lower()
        if name in parameters:
            raise FormatError(f"WWW-Authenticate header names {name[:40]!r} twice")
        quoted = match["quoted"]
        parameters[name] = match["token"] if quoted is None else _ESCAPE.sub(r"\1", quoted)
        position = _skip(_SEPARATORS, header, match.end())
    return None, parameters, position


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    assert match is not None
    return match.end()
