"""Text to spec, strictly: JSON and YAML, with every fault found and its path.

Owns the text formats and how their faults join those of the rules. Leaves out the rules
(:mod:`cdi.validate`) and files (:mod:`cdi.files`).

Stricter than the runtimes, which take the first of several YAML documents, null for an absent
field, YAML in a ``.json`` file, merge keys, and unquoted numbers for strings. They read JSON as
YAML, though, so JSON that is no YAML is refused here too.

>>> parse_spec('{"cdiVersion": "0.5.0", "kind": "a.com/gpu", "kind": "a.com/gpu", "devices": []}')
Traceback (most recent call last):
cdi.errors.InvalidSpecError: devices: invalid spec, no devices (and 1 more fault)
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal, NoReturn

from cdi._reader import join
from cdi._yaml import MAX_DEPTH, load_yaml
from cdi.errors import Fault, InvalidSpecError
from cdi.spec import Spec
from cdi.validate import read_and_check

Syntax = Literal["json", "yaml"]

# The largest generated specs (eight partitioned GPUs with every library) are some hundred KiB.
MAX_SPEC_BYTES = 8 * 1024 * 1024
# Longer numbers are out of range in every field, and int() refuses very long ones.
_MAX_DIGITS = 400
# Takes every escape whole, so that an escaped backslash is not the start of another one.
_ESCAPE_OR_CONTROL = re.compile(
    r"\\(?:u(?P<code>[0-9A-Fa-f]{4})|.)|(?P<control>[\x7f-\x84\x86-\x9f\ufffe\uffff])"
)


def parse_spec(data: bytes | str, *, syntax: Syntax | None = None, source: str = "") -> Spec:
    """Parse and validate one CDI spec; a normal return proves that it is valid.

    ``syntax`` is ``json`` or ``yaml``; without one, text that starts with a brace is JSON.
    ``source`` names the file in the error.

    Raises:
        InvalidSpecError: the text is malformed or breaks a rule; it holds every fault, by path.
    """
    spec, faults = examine(data, syntax=syntax)
    if faults or spec is None:
        raise InvalidSpecError(faults, source=source)
    return spec


def examine(
    data: bytes | str, *, syntax: Syntax | None = None
) -> tuple[Spec | None, tuple[Fault, ...]]:
    """Parse as far as possible; return the spec, or None when it is not valid, and all faults."""
    value, found = load_value(data, syntax=syntax)
    if any(not fault.path for fault in found):
        return None, tuple(found)  # not one whole document: its rules would mislead
    spec, faults = read_and_check(value, found)
    return (None if faults else spec), faults


def load_value(data: bytes | str, *, syntax: Syntax | None = None) -> tuple[object, list[Fault]]:
    """Turn JSON or YAML text into plain values without looking at what they mean.

    Faults are a malformed text (with an empty path), a key given twice, and in YAML a second
    document, a key that is no string and a tag beyond the standard ones.
    """
    if len(data) > MAX_SPEC_BYTES:
        return None, [too_large()]
    if isinstance(data, bytes):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            return None, [Fault(path="", reason=f"is not UTF-8 (byte {error.start})")]
    else:
        text = data
    if syntax is None:
        syntax = "json" if text.lstrip()[:1] == "{" else "yaml"
    return _load_json(text) if syntax == "json" else load_yaml(text)


def too_large() -> Fault:
    """Return the fault of a text of more than ``MAX_SPEC_BYTES``."""
    return Fault(path="", reason=f"is larger than {MAX_SPEC_BYTES} bytes")


def syntax_of(path: PurePath) -> Syntax:
    """Return the syntax that a file's name asks for: JSON for ``.json``, else YAML."""
    return "json" if path.suffix == ".json" else "yaml"


class _Object(dict[str, object]):
    """A JSON object that remembers the keys it was given twice."""

    repeated: tuple[str, ...] = ()


def _load_json(text: str) -> tuple[object, list[Fault]]:
    if fault := _not_yaml(text):
        return None, [fault]
    try:
        value = json.loads(
            text, object_pairs_hook=_pairs, parse_constant=_no_constant, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}, column {error.colno}: {error.msg}"
        return None, [Fault(path="", reason=reason)]
    except ValueError as error:
        return None, [Fault(path="", reason=str(error))]
    except RecursionError:
        return None, [Fault(path="", reason=f"nested more than {MAX_DEPTH} levels deep")]
    faults: list[Fault] = []
    _find_repeated(value, faults)
    return value, faults


def _not_yaml(text: str) -> Fault | None:
    """Find what JSON allows and the YAML parser, with which runtimes read JSON, does not."""
    for match in _ESCAPE_OR_CONTROL.finditer(text):
        code, control = match["code"], match["control"]
        if control:
            reason = f"holds U+{ord(control):04X}, which runtimes refuse"
        elif code and 0xD800 <= int(code, 16) <= 0xDFFF:
            reason = (
                f"holds \\u{code}, a surrogate, which runtimes refuse; write the character itself"
            )
        elif match[0] == r"\/":
            reason = r"holds \/, which runtimes refuse; write / alone"
        else:
            continue
        line = text.count("\n", 0, match.start()) + 1
        return Fault(path="", reason=f"line {line}: {reason}")
    return None


def _pairs(pairs: list[tuple[str, object]]) -> _Object:
    found = _Object(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        found.repeated = tuple(key for key, count in counts.items() if count > 1)
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has more than {_MAX_DIGITS} digits")
    return int(digits)


def _find_repeated(root: object, faults: list[Fault]) -> None:
    """Note every repeated key with its path, and too deep nesting, without recursion."""
    todo: list[tuple[object, str, int]] = [(root, "", 0)]
    while todo:
        value, path, depth = todo.pop()
        if depth > MAX_DEPTH:
            faults[:] = [Fault(path="", reason=f"nested more than {MAX_DEPTH} levels deep")]
            return
        below: Iterable[tuple[object, str]] = ()
        if isinstance(value, _Object):
            faults.extend(
                Fault(path=join(path, key), reason="is given twice") for key in value.repeated
            )
            below = ((element, join(path, key)) for key, element in value.items())
        elif isinstance(value, list):
            below = ((element, f"{path}[{i}]") for i, element in enumerate(value))
        todo.extend((element, place, depth + 1) for element, place in below)
