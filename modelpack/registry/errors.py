"""What a registry's answers mean in the project's own errors.

Owns the one mapping from status codes and registry error documents to ``modelpack.errors``, and
the cleaning of text that a server chose before it reaches a terminal. Leaves out connection
failures (``retry.py``).

    >>> body = b'{"errors":[{"code":"DENIED","message":"not yours"}]}'
    >>> response_error(403, body, what="push to r.example/m", registry="r.example")
    AuthError('push to r.example/m: DENIED: not yours; try: modelpack login r.example')
"""

import re

from modelpack.errors import (
    AuthError,
    FormatError,
    IntegrityError,
    ModelpackError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    SpaceError,
)
from modelpack.manifest import load_json

# A screen's worth: a server may send megabytes of HTML as an error.
MAX_MESSAGE = 300
# distribution-spec, "Error Codes": the document is small; more than this is not read.
MAX_ERROR_BYTES = 64 * 1024

# distribution-spec 1.1, "Error Codes"
_AUTH_CODES = {"UNAUTHORIZED", "DENIED"}
_MISSING_CODES = {"NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "BLOB_UPLOAD_UNKNOWN"}
_BYTES_CODES = {"DIGEST_INVALID", "SIZE_INVALID"}
# Registries have no common code for a full quota (Harbor says DENIED, GitLab TOOMANYREQUESTS), but
# they all say the word.
_QUOTA = re.compile(r"quota|storage limit|insufficient storage|no space left", re.IGNORECASE)
# CNCF distribution on a full disk: a 500 whose detail has the operating system's words, or numbers
# (ENOSPC, EDQUOT).
_DISK_FULL = re.compile(rb'no space left on device|disk quota exceeded|"Err":\s?(28|122)\b')
# Go's and nginx's answers to plain HTTP on a port that speaks TLS.
_WANTS_TLS = re.compile(rb"http request (was sent )?to (an )?https (server|port)", re.IGNORECASE)
_URL_SECRETS = re.compile(
    r"(?P<scheme>https?://)(?:[^\s/@\"']*@)?(?P<rest>[^\s?\"']*)(?:\?[^\s\"']*)?"
)
_HEADER_SECRETS = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that say "not now" rather than "no"."""


class UnsafeAddressError(ProtocolError):
    """A registry pointed to an address that must not be followed, or must not get credentials."""


def response_error(
    status: int, body: bytes, *, what: str, registry: str, logged_in: bool = False
) -> ModelpackError:
    """Return, not raise, the error for a refused request.

    ``what`` says what was being done to which reference. ``logged_in`` tells whether credentials
    were sent, which changes the advice.
    """
    code, message = error_document(body)
    said = ": ".join(part for part in (code, message) if part) or f"HTTP status {status}"
    text = f"{what}: {said}"
    if status == 400 and _WANTS_TLS.search(body):
        return NetworkError(
            f"{what}: {registry} speaks TLS; leave out --plain-http, and on loopback name its "
            "authority with --ca-file"
        )
    if is_out_of_space(status, body):
        return SpaceError(
            f"{text}; the registry at {registry} takes no more, free some space there"
        )
    if status in RETRIED_STATUSES:
        return NetworkError(f"{text}; the registry at {registry} is in trouble, try again later")
    if code in _BYTES_CODES:
        return IntegrityError(f"{text}; the bytes were damaged on the way or changed, try again")
    if code in _AUTH_CODES or status in {401, 403}:
        return AuthError(f"{text}; {login_hint(registry, logged_in=logged_in)}")
    if code in _MISSING_CODES or status in {404, 410}:
        return NotFoundError(text)
    if status >= 500 and status != 501:
        return NetworkError(f"{text}; the registry at {registry} is in trouble, try again later")
    return ModelpackError(f"{text} (HTTP status {status})" if code or message else text)


def is_out_of_space(status: int, body: bytes) -> bool:
    """Tell whether a refusal means that the registry, or the user's share of it, is full.

    A 429 that speaks of a quota means requests per minute, and passes.
    """
    words = " ".join(error_document(body))
    if status in {413, 507}:
        return True
    return status != 429 and bool(_QUOTA.search(words) or _DISK_FULL.search(body))


def passing_reason(status: int, body: bytes) -> str:
    """Say why a request that will be tried again was refused."""
    said = ": ".join(part for part in error_document(body) if part)
    return f"HTTP status {status}: {said}" if said else f"HTTP status {status}"


def login_hint(registry: str, *, logged_in: bool) -> str:
    """Return what to do about a refusal."""
    if logged_in:
        return f"these credentials do not allow it, try others: modelpack login {registry}"
    return f"try: modelpack login {registry}"


def error_document(body: bytes) -> tuple[str, str]:
    """Return the code and message of the first error in a registry's answer, cleaned.

    Anything that is not such a document gives empty strings: error pages of proxies are HTML, and
    nobody wants them in a terminal.
    """
    try:
        value = load_json(body[:MAX_ERROR_BYTES], "error document")
    except FormatError:
        return "", ""
    errors = value.get("errors") if isinstance(value, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return "", ""
    code, message = first.get("code"), first.get("message")
    return (
        clean(code)[:60] if isinstance(code, str) else "",
        clean(message) if isinstance(message, str) else "",
    )


def clean(text: str) -> str:
    """Return a server's text on one bounded line without control characters or secrets.

    Query strings and user information of URLs, and anything that looks like an Authorization
    header echoed back, are cut out: they may be credentials.
    """
    text = _URL_SECRETS.sub(r"\g<scheme>\g<rest>", text[: 4 * MAX_MESSAGE])
    text = _HEADER_SECRETS.sub(r"\1 [removed]", text)
    text = "".join(character if character.isprintable() else " " for character in text)
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
