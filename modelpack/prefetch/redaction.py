"""What may be a secret is cut out of every text before it is shown.

Owns the one place through which the texts of logs, ``/v1/status``, the status page, metrics and
the service manager's status line pass. Whoever raises an error leaves secrets out already; this
holds even where a reference, a proxy's address or a foreign library's message brings one along.
Leaves out control characters: each of the formats escapes those in its own way.

    >>> redact("GET https://me:secret@r.example/v2/?sig=abc failed")
    'GET https://r.example/v2/ failed'
    >>> redact("r.example/team/model:v1@sha256:00ff")
    'r.example/team/model:v1@sha256:00ff'
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 4096
"""Characters kept of a text, also so that what a server sent cannot keep the patterns busy."""

REMOVED = "[removed]"

# `a:b@sha256:...` is a tag and a digest; `a:b@host` is a user, a password and a host.
_DIGEST = r"(?!(?:sha256|sha384|sha512|blake3):)"
_WORDS = r"pass(?:word|wd|phrase)?|pwd|secret|api[_-]?key|access[_-]?key|private[_-]?key"
_TOKENS = r"[a-z_-]*token|credentials?|authorization|auth|sig|signature|x-amz-[a-z-]+"
_VALUE = r"(?!\[removed\])(?:\"[^\"]*\"?|'[^']*'?|[^\s,;&\"']+)"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), replacement)
    for pattern, replacement in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", REMOVED),
        (r"\beyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?", REMOVED),
        (rf"(\bauthorization[\"']?\s*[:=]\s*)(?:(?:basic|bearer)\s+)?{_VALUE}", rf"\1{REMOVED}"),
        (r"\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}", rf"\1 {REMOVED}"),
        # A URL's user information, then its query and fragment.
        (rf"\b([a-z][a-z0-9+.-]{{1,20}}://)[^\s\"'<>]*@{_DIGEST}", r"\1"),
        (r"\b([a-z][a-z0-9+.-]{1,20}://[^\s\"'<>?#]*)[?#][^\s\"'<>]*", r"\1"),
        # The same where no scheme says that it is a URL.
        (rf"(?<![\w.-])[^\s/@:\"'=<>(),]+:[^\s/@\"'<>]+@{_DIGEST}(?=[\w.\[-])", f"{REMOVED}@"),
        (r"\?[^\s\"'<>=?]+=[^\s\"'<>]*", f"?{REMOVED}"),
        (rf"(?<![\w-])([\w-]*?(?:{_WORDS}))(\"?'?\s*[:=]\s*){_VALUE}", rf"\1\2{REMOVED}"),
        (rf"\b((?:{_TOKENS}))([\"']?\s*=\s*|[\"']\s*:\s*){_VALUE}", rf"\1\2{REMOVED}"),
    )
)


# Without one of these no rule applies; most names, stages and reasons have none.
_SUSPICIOUS = re.compile(
    rf"[@?=]|://|eyJ|-----BEGIN|bearer|basic|authorization|{_WORDS}|{_TOKENS}", re.IGNORECASE
)


@functools.lru_cache(maxsize=8192)
def redact(text: str, *, limit: int = MAX_TEXT) -> str:
    """Return the text without user information, query strings, tokens and passwords.

    Of a text longer than ``limit`` characters the beginning is kept.
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if _SUSPICIOUS.search(text) is None:
        return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def redact_all(value: Any) -> Any:
    """Return a JSON value in which every text, keys too, is redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(item) for item in value]
    return value
