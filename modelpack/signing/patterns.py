"""Patterns over the names of models: which rule of a policy is about which reference.

Owns matching, without regular expressions, whose cost a pattern's author could choose. ``*`` stands
for any characters within one segment, ``**`` for one or more whole segments. Without a tag a
pattern is about every tag and digest. Only ``**`` alone is about registries and layouts alike;
a layout's pattern starts with ``oci:``, as its references do. Names are compared as they are
resolved: a host in any case, with the port that HTTPS has anyway or without, is the same one.

    >>> matches("registry.example/team/**", "registry.example/team/llama", "v1")
    True
    >>> matches("registry.example/team/**", "registry.example/teams/llama", "v1")
    False
    >>> matches("registry.example/team/*:v*", "registry.example/team/llama", None)
    False
    >>> matches("registry.example/bad/**", "REGISTRY.example:443/bad/llama", None)
    True
"""

import re

from modelpack.errors import UsageError
from modelpack.reference import LAYOUT_SCHEME

# A reference has at most some 400 characters.
MAX_PATTERN = 512
_MAX_SEGMENTS = 64
_PORT = re.compile(r":0*(?P<number>[0-9]+)\Z")
_HTTPS_PORT = "443"
# Names of one registry, as Docker and containerd treat them.
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io"})


def check_pattern(pattern: str) -> str:
    """Return ``pattern`` if it is one.

    Raises:
        UsageError: empty, too long, with a digest, or with ``**`` beside other characters.
    """
    if not pattern or len(pattern) > MAX_PATTERN:
        raise UsageError(f"the pattern is empty or longer than {MAX_PATTERN} characters")
    if any(character.isspace() or not character.isprintable() for character in pattern):
        raise UsageError("the pattern holds a space or a control character")
    if "@" in pattern:
        raise UsageError("the pattern holds a digest; list allowed digests under 'digests'")
    _, name, tag = _split(pattern)
    segments = name.split("/")
    if len(segments) > _MAX_SEGMENTS:
        raise UsageError(f"the pattern has more than {_MAX_SEGMENTS} segments")
    if any("**" in segment and segment != "**" for segment in segments) or "**" in (tag or ""):
        raise UsageError("'**' must be a whole segment, as in registry.example/team/**")
    if tag == "":
        raise UsageError("the pattern ends in ':' without a tag")
    return pattern


def canonical_name(name: str) -> str:
    """Return the one spelling of a name (``host/repository`` or ``oci:PATH``) or of its pattern.

    Only what certainly leads to the same place is made alike; ``..`` may not, where links are.
    """
    if name.startswith(LAYOUT_SCHEME):
        path = name.removeprefix(LAYOUT_SCHEME)
        kept = [part for part in path.split("/") if part not in ("", ".")]
        return f"{LAYOUT_SCHEME}{'/' * path.startswith('/')}{'/'.join(kept)}"
    host, slash, rest = name.partition("/")
    host = _PORT.sub(r":\g<number>", host.lower()).removesuffix(f":{_HTTPS_PORT}")
    return f"{_DOCKER_HUB if host in _DOCKER_HUB_NAMES else host}{slash}{rest}"


def matches(pattern: str, name: str, tag: str | None) -> bool:
    """Tell whether a checked pattern is about ``name`` (``host/repository`` or ``oci:PATH``)."""
    scheme, wanted, wanted_tag = _split(pattern)
    wanted = canonical_name(scheme + wanted).removeprefix(scheme)
    name = canonical_name(name)
    if wanted_tag is not None and (tag is None or not _wildcard(wanted_tag, tag)):
        return False
    if wanted == "**" and not scheme:
        return True
    if name.startswith(LAYOUT_SCHEME) != bool(scheme):
        return False
    segments = name.removeprefix(scheme).split("/")
    # Where ".." leads cannot be told from the text, so no narrower pattern is about it.
    if ".." in segments and wanted != "**":
        return False
    return _segments(wanted.split("/"), segments)


def _split(pattern: str) -> tuple[str, str, str | None]:
    scheme = LAYOUT_SCHEME if pattern.startswith(LAYOUT_SCHEME) else ""
    rest = pattern.removeprefix(scheme)
    head, colon, tag = rest.rpartition(":")
    # A colon before a slash is a port; without any slash there is no repository to tag.
    if not colon or "/" in tag or ("/" not in head and not scheme):
        return scheme, rest, None
    return scheme, head, tag


def _segments(pattern: list[str], name: list[str]) -> bool:
    # reachable[j]: the pattern so far matches the first j segments of the name.
    reachable = [True] + [False] * len(name)
    for part in pattern:
        following = [False] * (len(name) + 1)
        for position, segment in enumerate(name):
            if part == "**":
                following[position + 1] = reachable[position] or following[position]
            elif reachable[position]:
                following[position + 1] = _wildcard(part, segment)
        reachable = following
    return reachable[-1]


def _wildcard(pattern: str, text: str) -> bool:
    """Match ``*`` greedily from the left, which is enough when it is the only wildcard."""
    first, *others = pattern.split("*")
    if not others:
        return pattern == text
    if not text.startswith(first):
        return False
    position = len(first)
    for part in others[:-1]:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return len(text) - position >= len(others[-1]) and text.endswith(others[-1])
