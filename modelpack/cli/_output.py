"""What a command prints: data on stdout, prose on stderr, one JSON object with ``--json``.

Owns the rule that nothing from an artifact or a server drives the terminal: on one, and in all
prose, a character that is not printable is shown as its escape. Data in a pipe stay as they are.
"""

import errno
import json
import os
import re
import sys
from typing import TYPE_CHECKING

from modelpack.errors import ModelpackError, SpaceError

if TYPE_CHECKING:
    from rich.console import Console

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
# Lines and columns, which are the writer's own.
_PARTS = re.compile(r"([\n\t])")


def print_json(value: object) -> None:
    """Print exactly one JSON document on stdout."""
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a stdout without UTF-8, or half of a surrogate pair in a name
        text = json.dumps(value)
    write(text + "\n")


def print_text(text: str) -> None:
    """Print data on stdout, made safe on a terminal."""
    shown = _visible_lines(text) if sys.stdout.isatty() else text
    write(shown if shown.endswith("\n") else shown + "\n")


def write(text: str) -> None:
    """Write to stdout as it is, but for what its encoding lacks.

    Raises:
        SpaceError, ModelpackError: it is a file that cannot be written.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        kind = SpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else ModelpackError
        raise kind(f"cannot write to stdout: {error.strerror}") from error


def pinned(reference: str | None, digest: str | None) -> str:
    """Join a reference and the digest it stands for, which it may name already."""
    if reference is None or digest is None:
        return reference or digest or ""
    return reference if reference.endswith(f"@{digest}") else f"{reference}@{digest}"


def count(number: int, noun: str) -> str:
    """Write a number of things: 1 file, 2 files."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def print_note(text: str) -> None:
    """Print prose on stderr, made safe."""
    sys.stderr.write(_visible_lines(text) + "\n")
    sys.stderr.flush()


def visible(text: str) -> str:
    """Return text with every unprintable or unencodable character written as an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    if text.isprintable() and (text.isascii() or has_unicode()):
        return text
    shown = "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def has_unicode() -> bool:
    """Tell whether stdout can take block characters and arrows."""
    return (sys.stdout.encoding or "").lower().replace("-", "").replace("_", "") == "utf8"


def _visible_lines(text: str) -> str:
    return "".join(part if part in {"\n", "\t"} else visible(part) for part in _PARTS.split(text))


def console() -> "Console":
    """Return a rich console on stdout that honours NO_COLOR and plain pipes."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def human_bytes(size: float) -> str:
    """Write a number of bytes for people, in binary units."""
    value = float(size)
    for unit in _UNITS:
        if abs(value) < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def is_interactive() -> bool:
    """Tell whether live progress can be drawn on stderr."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
