"""Texts that formats restrict: IRIs, package URLs, times, identifiers made from content.

Owns accepting what is certainly valid and refusing the rest: a link that some validator would
refuse is left out of a document, never repaired. Leaves out where the texts come from.

    >>> iri_reference("https://example.org/a b") is None
    True
    >>> hub_purl("meta-llama/Llama-3.1-8B")
    'pkg:huggingface/meta-llama/Llama-3.1-8B'
"""

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from blake3 import blake3

from modelpack.errors import UsageError

SOURCE_DATE_EPOCH = "SOURCE_DATE_EPOCH"
"""The variable of reproducible-builds.org: the time, in seconds, that outputs are dated with."""

# Every character that is allowed unescaped in some part of a URI (RFC 3986); "%" only as an escape,
# "#" once. Hosts in brackets are left out: no link of a model has one.
_PART = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})"
_ABSOLUTE = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*):"
    rf"(?:(?P<host>//[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{{1,5}})?)(?=[/?#]|\Z)|(?!//)){_PART}*(?:#{_PART}*)?\Z"
)
_RELATIVE = re.compile(r"[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*\Z")
_PURL = re.compile(
    r"pkg:[a-z][a-z0-9.+-]*(?:/[A-Za-z0-9._~:%+-]+)+(?:@[A-Za-z0-9._~:%+-]+)?"
    r"(?:\?[A-Za-z0-9._~:%&=/+-]+)?(?:#[A-Za-z0-9._~:%/+-]+)?\Z"
)
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_HUB_URL = re.compile(r"https://(?:huggingface\.co|hf\.co)/(?P<id>[^/]+/[^/]+?)/?\Z")
_EPOCH = re.compile(r"[0-9]{1,12}\Z")
# The last second of the year 9999, which is as far as a datetime and RFC 3339 go.
_MAX_EPOCH = 253402300799


def iri_reference(text: str) -> str | None:
    """Return ``text`` if it is a URI, or a relative path such as ``LICENSE.md``; else None."""
    if absolute_uri(text) or (_RELATIVE.match(text) and ".." not in text.split("/")):
        return text
    return None


def absolute_uri(text: str) -> str | None:
    """Return ``text`` if it is a URI with a scheme; else None."""
    match = _ABSOLUTE.match(text)
    if match is None or match.end() == match.end("scheme") + 1:
        return None
    needs_host = match["scheme"] in {"http", "https", "oci"}
    return text if match["host"] or not needs_host else None


def package_url(text: str) -> str | None:
    """Return ``text`` if it is a package URL; else None."""
    return text if _PURL.match(text) else None


def hub_purl(name: str) -> str | None:
    """Return the package URL of a base model that is named by its id or URL on Hugging Face.

    A model card's ``base_model`` is defined to be an id there; any other text gives None.
    """
    url = _HUB_URL.match(name)
    identifier = url["id"] if url else name
    return f"pkg:huggingface/{identifier}" if _HUB_ID.match(identifier) else None


def time_text(moment: datetime) -> str:
    """Write a time in UTC as both formats want it: whole seconds and a Z."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def source_date(environ: Mapping[str, str]) -> datetime | None:
    """Return the time that SOURCE_DATE_EPOCH sets, None if it is not set.

    Raises:
        UsageError: it is set to something else than a number of seconds.
    """
    text = environ.get(SOURCE_DATE_EPOCH, "")
    if not text:
        return None
    if not _EPOCH.match(text) or int(text) > _MAX_EPOCH:
        raise UsageError(
            f"{SOURCE_DATE_EPOCH} is {text[:40]!a}; it must be seconds since 1970, or unset"
        )
    return datetime.fromtimestamp(int(text), UTC)


def content_uuid(content: bytes) -> uuid.UUID:
    """Return the UUID that stands for ``content``: a custom one (RFC 9562, version 8) of its BLAKE3."""
    value = bytearray(blake3(content).digest(16))
    value[6] = value[6] & 0x0F | 0x80
    value[8] = value[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(value))
