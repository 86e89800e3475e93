"""Names of models: ``host/name:tag@digest`` in a registry, ``oci:PATH:tag`` in a layout on disk.

Owns parsing and formatting (distribution-spec, "Pulling manifests"; the grammar of
``docker/distribution/reference``, without its implied Docker Hub). Leaves out resolving.

    >>> parse_reference("localhost:5000/team/model:v1")
    RegistryReference(registry='localhost:5000', repository='team/model', tag='v1', digest=None)
    >>> str(parse_reference("oci:./store:v1"))
    'oci:./store:v1'
"""

import ipaddress
import re
from dataclasses import dataclass, replace

from modelpack.digest import Digest
from modelpack.errors import FormatError, UsageError

DEFAULT_TAG = "latest"
COMPANION_SUFFIX = "-modelpack"
LAYOUT_SCHEME = "oci:"

# distribution-spec 1.1: <name> and <reference>
_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_HOST = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*)(:(?P<port>[0-9]{1,5}))?\Z"
)
_ALGORITHMS = ("sha256:", "sha512:")
# Registries limit the whole name; 255 is distribution's own bound.
_MAX_NAME = 255
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class RegistryReference:
    """A repository in a registry, and optionally what in it."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, so that plain HTTP is the default."""
        return is_loopback_host(split_host_port(self.registry)[0])

    @property
    def repository_name(self) -> str:
        """``registry/repository``, without tag or digest."""
        return f"{self.registry}/{self.repository}"

    def with_tag(self, tag: str) -> "RegistryReference":
        """Return the same repository with this tag and no digest."""
        return replace(self, tag=check_tag(tag), digest=None)

    def with_digest(self, digest: Digest) -> "RegistryReference":
        """Return the same name pinned to ``digest``."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


@dataclass(frozen=True, slots=True)
class LayoutReference:
    """An OCI image layout directory on this machine, and optionally what in it."""

    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def repository_name(self) -> str:
        """``oci:PATH``, without tag or digest."""
        return f"{LAYOUT_SCHEME}{self.path}"

    def with_tag(self, tag: str) -> "LayoutReference":
        """Return the same layout with this tag and no digest."""
        return replace(self, tag=check_tag(tag), digest=None)

    def with_digest(self, digest: Digest) -> "LayoutReference":
        """Return the same name pinned to ``digest``."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{LAYOUT_SCHEME}{self.path}{tag}{digest}"


Reference = RegistryReference | LayoutReference


def parse_reference(text: str, *, default_tag: str | None = DEFAULT_TAG) -> Reference:
    """Parse a reference; without tag and digest it gets ``default_tag``.

    Raises:
        UsageError: the text is not a reference; the message says which part and why.
    """
    rest, digest = _split_digest(text)
    reference: Reference
    if rest.startswith(LAYOUT_SCHEME):
        reference = _parse_layout(text, rest.removeprefix(LAYOUT_SCHEME), digest)
    else:
        reference = _parse_registry(text, rest, digest)
    if reference.tag is None and reference.digest is None and default_tag is not None:
        return replace(reference, tag=default_tag)
    return reference


def check_tag(tag: str) -> str:
    """Return ``tag`` if it is one.

    Raises:
        UsageError: it is not.
    """
    if not _TAG.match(tag):
        raise UsageError(
            f"{tag[:140]!r} is not a tag: letters, digits, '.', '_', '-', at most 128 characters"
        )
    return tag


def companion_tag(tag: str) -> str:
    """Return the tag of a model's companion.

    Raises:
        UsageError: there is no room for it.
    """
    if not _TAG.match(tag + COMPANION_SUFFIX):
        raise UsageError(
            f"tag {tag} leaves no room for its companion, TAG{COMPANION_SUFFIX}; "
            "use a shorter one, or push with --no-modelpack"
        )
    return tag + COMPANION_SUFFIX


def split_host_port(registry: str) -> tuple[str, int | None]:
    """Split ``host:port``; brackets of an IPv6 literal are removed."""
    match = _HOST.match(registry)
    if not match:
        raise UsageError(f"{registry[:140]!r} is not a registry host")
    port = match["port"]
    return match["host"].strip("[]"), int(port) if port else None


def is_loopback_host(host: str) -> bool:
    """Tell whether a host name or address is this machine's own loopback."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split_digest(text: str) -> tuple[str, Digest | None]:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise UsageError("a reference cannot hold control characters")
    rest, at, digest_text = text.rpartition("@")
    if not at or ":" not in digest_text or "/" in digest_text:
        return text, None
    if text.startswith(LAYOUT_SCHEME) and not digest_text.startswith(_ALGORITHMS):
        return text, None  # a path may hold an '@' before its tag
    try:
        return rest, Digest.parse(digest_text)
    except FormatError as error:
        raise UsageError(f"reference {text[:200]!r}: {error}") from error


def _parse_layout(text: str, rest: str, digest: Digest | None) -> LayoutReference:
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        path, colon, tag = rest, "", ""
    if not path:
        raise UsageError(f"reference {text[:200]!r} has no path; write oci:PATH or oci:PATH:tag")
    if colon:
        check_tag(tag)
    return LayoutReference(path, tag or None, digest)


def _parse_registry(text: str, rest: str, digest: Digest | None) -> RegistryReference:
    if "://" in rest:
        raise UsageError(f"reference {text[:200]!r} is a URL; write it without the scheme")
    registry, slash, name = rest.partition("/")
    match = _HOST.match(registry)
    looks_like_host = match and ("." in registry or ":" in registry or registry == "localhost")
    if not slash or not match or not looks_like_host:
        raise UsageError(
            f"reference {text[:200]!r} does not start with a registry host; "
            "write HOST/NAME:TAG, or oci:PATH:TAG for a layout on disk"
        )
    if match["port"] and not 0 < int(match["port"]) <= _MAX_PORT:
        raise UsageError(f"reference {text[:200]!r}: port {match['port']} is out of range")
    repository, colon, tag = name.partition(":")
    if colon:
        check_tag(tag)
    if not _NAME.match(repository) or len(repository) > _MAX_NAME:
        raise UsageError(
            f"reference {text[:200]!r}: {repository[:140]!r} is not a repository name "
            "(lower-case letters, digits, separators '.', '_', '-', '/')"
        )
    return RegistryReference(registry, repository, tag or None, digest)
