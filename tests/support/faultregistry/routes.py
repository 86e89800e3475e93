"""Which endpoint of the distribution specification a path names.

Owns the grammar of paths, names, tags and digests. Leaves out methods, queries and answers.

    >>> parse_route("/v2/team/model/tags/list")
    Route(kind='tags', repo='team/model', digest=None, reference=None)
"""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "base", "blob", "manifest", "uploads", "upload", "tags", "referrers", "token", "unknown"
]

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ENDPOINTS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("uploads", re.compile(r"/v2/(.+)/blobs/uploads/()")),
    ("upload", re.compile(r"/v2/(.+)/blobs/uploads/([^/]+)")),
    ("blob", re.compile(r"/v2/(.+)/blobs/([^/]*)")),
    ("manifest", re.compile(r"/v2/(.+)/manifests/([^/]*)")),
    ("tags", re.compile(r"/v2/(.+)/tags/list()")),
    ("referrers", re.compile(r"/v2/(.+)/referrers/([^/]*)")),
)


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint and what the path says about it, not yet checked."""

    kind: Kind
    repo: str | None = None
    digest: str | None = None
    reference: str | None = None
    """A tag, an upload's id, or a digest that is none."""


UNKNOWN = Route("unknown")


def parse_route(path: str) -> Route:
    """Return the endpoint that a decoded path names; ``unknown`` when it names none."""
    if path == "/v2/":
        return Route("base")
    for kind, pattern in _ENDPOINTS:
        if match := pattern.fullmatch(path):
            repo, reference = match.groups()
            if is_digest(reference):
                return Route(kind, repo, reference)
            return Route(kind, repo, None, reference or None)
    return UNKNOWN


def is_digest(text: str) -> bool:
    """Return whether a string is a digest of a registered algorithm (image-spec, "Digests")."""
    return _DIGEST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Return whether a string is a tag (distribution-spec, "Pulling manifests")."""
    return _TAG.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Return whether a string is a repository's name (distribution-spec, "Pulling manifests")."""
    return len(text) <= 255 and _NAME.fullmatch(text) is not None
