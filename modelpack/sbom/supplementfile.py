"""The supplement file: YAML in, ``Supplement`` out, with the path of whatever is wrong.

Owns reading the file's text and building values; ``schemas/sbom-supplement.schema.json`` describes
the same file for editors. Leaves out finding the file.

Everything unknown is an error: a misspelt fact must not be missing without a word.

    >>> parse_supplement(b"model: {version: '1.2'}").model.version
    '1.2'
    >>> parse_supplement(b"model: {verison: '1.2'}")
    Traceback (most recent call last):
    modelpack.errors.UsageError: supplement: model.verison is not known
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from modelpack.errors import UsageError
from modelpack.sbom.elements import ELEMENTS
from modelpack.sbom.supplement import (
    Dataset,
    Energy,
    Hardware,
    Link,
    Metric,
    Model,
    Party,
    Risk,
    Security,
    Software,
    Supplement,
    System,
    Training,
    Vulnerability,
)
from modelpack.sbom.texts import absolute_uri, package_url

T = TypeVar("T")
Reader = Callable[[Any, str], T]
"""Takes a value and its path in the file; raises ``_InvalidError`` if the value is not fit."""

VERSION = 1
# Far beyond any that people write; what ``load_yaml`` takes.
MAX_SUPPLEMENT_BYTES = 1024 * 1024
# A paragraph, and a page: what people write into fields like these.
MAX_LINE = 1024
MAX_TEXT = 16 * 1024
MAX_ITEMS = 256

APPROACHES = (
    "supervised",
    "unsupervised",
    "reinforcement-learning",
    "semi-supervised",
    "self-supervised",
)
ACTIVITIES = (
    *("design", "data-collection", "data-preparation", "training", "fine-tuning", "validation"),
    *("deployment", "inference", "other"),
)
LINK_TYPES = (
    *("vcs", "issue-tracker", "website", "advisories", "documentation", "support", "distribution"),
    *("license", "release-notes", "security-contact", "model-card", "risk-assessment", "evidence"),
    *("threat-model", "adversary-model", "pentest-report", "certification-report"),
    *("quality-metrics", "vulnerability-assertion", "exploitability-statement", "other"),
)
STATES = (
    *("resolved", "resolved_with_pedigree", "exploitable", "in_triage", "false_positive"),
    "not_affected",
)
KINDS = ("operational", "security")

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250})\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?\Z")
_FIRST_YEAR = 1970


class _InvalidError(Exception):
    """Something is wrong at a path in the file."""


def parse_supplement(raw: bytes, what: str = "supplement") -> Supplement:
    """Read a supplement; ``what`` names the file in messages.

    Raises:
        UsageError: it is not one; the message holds the path inside the file, such as
            ``datasets[1].license``.
    """
    from modelpack.signing.policyfile import load_yaml  # noqa: PLC0415 - loads cryptography

    value = load_yaml(raw, what)
    try:
        if isinstance(value, dict) and "version" in value:
            _version(value["version"], "version")
            value = {name: item for name, item in value.items() if name != "version"}
        return _supplement(value, "")
    except _InvalidError as error:
        raise UsageError(f"{what}: {error}") from error


def _version(value: Any, where: str) -> None:
    if type(value) is not int or value != VERSION:
        raise _InvalidError(f"{where} is not {VERSION}; a newer modelpack may read it")


# --- readers of single values --------------------------------------------------------------------


def _text(value: Any, where: str, *, most: int = MAX_TEXT, lines: bool = True) -> str:
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, (int, float, date)) else ""
        raise _InvalidError(f"{where} is not a text{hint}")
    text = value.strip()
    if not 0 < len(text) <= most:
        raise _InvalidError(f"{where} is not a text of 1 to {most} characters")
    allowed = text.replace("\n", "") if lines else text
    if not allowed.isprintable():
        raise _InvalidError(
            f"{where} holds invisible characters" + ("" if lines else " or line breaks")
        )
    return text


def _line(value: Any, where: str) -> str:
    return _text(value, where, most=MAX_LINE, lines=False)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _InvalidError(f"{where} is neither true nor false")
    return value


def _amount(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _InvalidError(f"{where} is not a number")
    number = float(value) if abs(value) < 10**15 else math.inf
    if not 0 <= number < math.inf:
        raise _InvalidError(f"{where} is not a number from 0 to 10^15")
    return number


def _value(value: Any, where: str) -> str:
    """Take a text or a number as a text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return _line(str(value), where)
    return _line(value, where)


def _time(value: Any, where: str) -> datetime:
    try:
        if isinstance(value, datetime):  # YAML reads an unquoted time as one
            moment = (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
        else:
            text = value.isoformat() if isinstance(value, date) else value
            fit = isinstance(text, str) and _TIME.match(text)
            moment = datetime.fromisoformat(text if fit else "").replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise _InvalidError(
            f"{where} is not a date, or a time in UTC such as 2026-01-31T12:00:00Z"
        ) from error
    if moment.year < _FIRST_YEAR:
        raise _InvalidError(f"{where} lies before {_FIRST_YEAR}")
    return moment


def _uri(value: Any, where: str) -> str:
    found = absolute_uri(_line(value, where))
    if found is None:
        raise _InvalidError(f"{where} is not a URL")
    return found


def _purl(value: Any, where: str) -> str:
    found = package_url(_line(value, where))
    if found is None:
        raise _InvalidError(f"{where} is not a package URL such as pkg:huggingface/org/model")
    return found


def _matching(pattern: re.Pattern[str], what: str) -> Reader[str]:
    def read(value: Any, where: str) -> str:
        text = _line(value, where)
        if not pattern.match(text):
            raise _InvalidError(f"{where} is not {what}")
        return text

    return read


def _one_of(*choices: str) -> Reader[str]:
    def read(value: Any, where: str) -> str:
        if value not in choices:
            raise _InvalidError(f"{where} is not one of {', '.join(choices)}")
        return str(value)

    return read


def _list(read_item: Reader[T]) -> Reader[tuple[T, ...]]:
    def read(value: Any, where: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _InvalidError(f"{where} is not a list")
        if len(value) > MAX_ITEMS:
            raise _InvalidError(f"{where} has more than {MAX_ITEMS} entries")
        return tuple(read_item(item, f"{where}[{number}]") for number, item in enumerate(value))

    return read


def _table(value: Any, where: str) -> dict[str, str]:
    _mapping(value, where)
    if len(value) > MAX_ITEMS:
        raise _InvalidError(f"{where} has more than {MAX_ITEMS} entries")
    return {_line(key, where): _value(item, f"{where}.{key[:80]}") for key, item in value.items()}


def _mapping(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise _InvalidError(f"{where or 'the file'} is not a mapping")


def _record(made: type[T], members: Mapping[str, Reader[Any]]) -> Reader[T]:
    """Return a reader of mappings with these members, of which those without default are needed."""
    required = [
        each.name
        for each in fields(made)  # type: ignore[arg-type]
        if each.default is MISSING and each.default_factory is MISSING
    ]

    def read(value: Any, where: str) -> T:
        _mapping(value, where)
        prefix = f"{where}." if where else ""
        for name in value:
            if name not in members:
                raise _InvalidError(f"{prefix}{name[:80]} is not known")
        for name in required:
            if name not in value:
                raise _InvalidError(f"{prefix}{name} is missing")
        return made(**{name: members[name](item, prefix + name) for name, item in value.items()})

    return read


# --- the file ------------------------------------------------------------------------------------

_lines = _list(_line)
_texts = _list(_text)
_party = _record(
    Party,
    {"name": _line, "url": _uri, "email": _matching(_EMAIL, "an e-mail address"), "person": _flag},
)
_model = _record(
    Model,
    {
        "name": _line,
        "version": _line,
        "released": _time,
        "description": _text,
        "purl": _purl,
        "producer": _party,
        "supplier": _party,
        "licenses": _lines,
        "family": _line,
        "inputs": _lines,
        "outputs": _lines,
        "users": _texts,
        "use_cases": _texts,
        "limitations": _texts,
        "tradeoffs": _texts,
        "risks": _list(_record(Risk, {"name": _text, "mitigation": _text})),
        "links": _list(
            _record(Link, {"type": _one_of(*LINK_TYPES), "url": _uri, "comment": _line})
        ),
    },
)
_training = _record(
    Training,
    {
        "approach": _one_of(*APPROACHES),
        "description": _text,
        "preprocessing": _texts,
        "hyperparameters": _table,
        "energy": _list(
            _record(
                Energy,
                {"activity": _one_of(*ACTIVITIES), "kwh": _amount, "co2_tonnes": _amount},
            )
        ),
    },
)
_dataset = _record(
    Dataset,
    {
        "name": _line,
        "version": _line,
        "built": _time,
        "released": _time,
        "producer": _party,
        "description": _text,
        "content": _lines,
        "identifier": _line,
        "url": _uri,
        "sha256": _matching(_SHA256, "64 lower-case hexadecimal digits"),
        "provenance": _text,
        "statistics": _text,
        "classification": _line,
        "sensitive": _texts,
        "licenses": _lines,
    },
)
_system = _record(
    System,
    {
        "name": _line,
        "version": _line,
        "released": _time,
        "producer": _party,
        "data_flow": _text,
        "data_usage": _text,
        "inputs": _lines,
        "outputs": _lines,
        "application_area": _lines,
    },
)
_vulnerability = _record(
    Vulnerability,
    {
        "id": _line,
        "source": _line,
        "url": _uri,
        "detail": _text,
        "recommendation": _text,
        "state": _one_of(*STATES),
    },
)
_security = _record(
    Security,
    {
        "controls": _texts,
        "compliance": _texts,
        "policy": _uri,
        "contact": _uri,
        "vulnerabilities": _list(_vulnerability),
    },
)
_metric = _record(Metric, {"name": _line, "value": _value, "slice": _line, "kind": _one_of(*KINDS)})
_software = _record(
    Software, {"name": _line, "version": _line, "purl": _purl, "description": _text}
)
_supplement = _record(
    Supplement,
    {
        "author": _party,
        "model": _model,
        "training": _training,
        "datasets": _list(_dataset),
        "metrics": _list(_metric),
        "system": _system,
        "software": _list(_software),
        "hardware": _list(_record(Hardware, {"name": _line, "description": _text})),
        "security": _security,
        "unknown": _list(_one_of(*(element.id for element in ELEMENTS))),
    },
)
