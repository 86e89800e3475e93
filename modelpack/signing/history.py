"""What was accepted before under a name, so that nobody can hand out an old version again.

Owns the record and the question whether a manifest is a step back. Leaves out where records are
kept (one JSON file per name, written by whoever has accepted something).

A digest that was accepted and then followed by another is old whatever it says of itself; among
digests never seen the signed version number decides, then the signed creation date. When neither
can be compared there is no sign of a step back, and none is claimed.

    >>> old, new = (Accepted(digest=Digest.of(text), version=version, created=None)
    ...     for text, version in ((b"1", "1.9"), (b"2", "1.10")))
    >>> rollback([new], old)
    'version 1.9 is older than 1.10, accepted before'
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelpack.digest import Digest
from modelpack.errors import FormatError
from modelpack.manifest import canonical_json, load_json
from modelpack.signing._fields import items, members, text

# A model is released a few times a month; the oldest entries have long been passed by version.
MAX_ACCEPTED = 256
MAX_HISTORY_BYTES = 256 * 1024
_MAX_VERSION = 256

_VERSION = re.compile(r"[vV]?([0-9]{1,12}(?:\.[0-9]{1,12}){0,7})(?:\+.*)?\Z", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """A manifest that a policy accepted, and what it says of its own age."""

    digest: Digest
    version: str | None
    """``org.opencontainers.image.version``."""
    created: datetime | None
    """``org.opencontainers.image.created``."""


def rollback(accepted: Sequence[Accepted], candidate: Accepted) -> str | None:
    """Return why ``candidate`` is older than what was accepted last, or None.

    ``accepted`` is oldest first. The last one again is no step back.
    """
    if not accepted or accepted[-1].digest == candidate.digest:
        return None
    last = accepted[-1]
    if any(entry.digest == candidate.digest for entry in accepted):
        return f"it was accepted before {last.digest}, which has replaced it"
    ours, theirs = _version(candidate.version), _version(last.version)
    if ours is not None and theirs is not None and ours != theirs:
        older = ours < theirs
        return _older("version", candidate.version, last.version) if older else None
    if candidate.created and last.created and candidate.created < last.created:
        return _older("its date", candidate.created.isoformat(), last.created.isoformat())
    return None


def record(accepted: Sequence[Accepted], candidate: Accepted) -> tuple[Accepted, ...]:
    """Return the history with ``candidate`` as its last entry, each digest once, bounded."""
    others = tuple(entry for entry in accepted if entry.digest != candidate.digest)
    return (*others, candidate)[-MAX_ACCEPTED:]


def parse_history(raw: bytes) -> tuple[Accepted, ...]:
    """Read a record file.

    Raises:
        FormatError: not one. It must not be taken for an empty one: that would undo the protection.
    """
    if len(raw) > MAX_HISTORY_BYTES:
        raise FormatError(f"the history is larger than {MAX_HISTORY_BYTES} bytes")
    value = members(load_json(raw, "the history"), "the history", required=("accepted",))
    entries = items(value["accepted"], "accepted", max_items=MAX_ACCEPTED)
    return tuple(_entry(entry, f"accepted[{number}]") for number, entry in enumerate(entries))


def encode_history(accepted: Sequence[Accepted]) -> bytes:
    """Return the bytes of a record file."""
    return canonical_json(
        {
            "accepted": [
                {
                    "digest": str(entry.digest),
                    "version": entry.version,
                    "created": entry.created.isoformat() if entry.created else None,
                }
                for entry in accepted
            ]
        }
    )


def parse_time(value: object) -> datetime | None:
    """Return an RFC 3339 time, or None for anything else; a time without a zone is none."""
    if not isinstance(value, str) or len(value) > len("2000-01-01T00:00:00.000000000+00:00"):
        return None
    try:
        # Python reads at most six digits of a fraction; nothing here needs more.
        parsed = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", value))
        return parsed.astimezone(UTC) if parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _entry(value: Any, where: str) -> Accepted:
    members(value, where, required=("digest",), optional=("version", "created"))
    version = value.get("version")
    created = value.get("created")
    moment = parse_time(created)
    if created is not None and moment is None:
        raise FormatError(f"{where}.created is not a time")
    return Accepted(
        digest=Digest.parse(value["digest"]),
        version=None if version is None else text(version, f"{where}.version"),
        created=moment,
    )


def _version(value: str | None) -> tuple[int, ...] | None:
    """Return a dotted number as integers; pre-releases and names cannot be compared safely."""
    match = _VERSION.match(value) if value and len(value) <= _MAX_VERSION else None
    if not match:
        return None
    numbers = [int(number) for number in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _older(what: str, ours: object, theirs: object) -> str:
    return f"{what} {ours} is older than {theirs}, accepted before"
