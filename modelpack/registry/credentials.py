"""Who the user is at a registry: reading, storing and removing logins.

Owns the places where Docker and Podman keep logins, their order, and writing them safely. Reading
an entry or asking a credential helper is oras-py's work, behind ``_oras.py``. Leaves out checking
a login against the registry (``login.py``).

Read in this order, the first that knows the registry wins: ``$REGISTRY_AUTH_FILE`` (then nothing
else is read, as with Podman); ``$XDG_RUNTIME_DIR/containers/auth.json``;
``~/.config/containers/auth.json``; ``$DOCKER_CONFIG/config.json``, without that variable
``~/.docker/config.json``.

    >>> Credentials(username="me", password="secret")
    Credentials(username='me')
"""

import base64
import contextlib
import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelpack.errors import FormatError, UsageError
from modelpack.manifest import load_json
from modelpack.registry import helpers
from modelpack.stores.files import mapped_errors, write_atomically

_logger = logging.getLogger(__name__)
# Real files are a few KiB; a bound keeps a mistaken path from being read into memory.
MAX_CONFIG_BYTES = 4 * 1024 * 1024
# What Docker Hub's login is filed under, for historical reasons.
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
# The user name by which a helper says that the secret is an identity token.
TOKEN_USER = "<token>"  # noqa: S105
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A login: a user name and password, or an identity token. Never shown."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if ":" in self.username:
            raise UsageError("a user name cannot hold a colon")

    @property
    def basic(self) -> str:
        """``username:password`` in Base64 (RFC 7617)."""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthFile:
    """One file of logins, read; ``config`` is its whole JSON object."""

    path: Path
    config: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "AuthFile | None":
        """Read a file; None when it does not exist.

        Raises:
            UsageError: it is not a JSON object of the expected shape, or cannot be read.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_CONFIG_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UsageError(f"login file {path} cannot be read: {error.strerror}") from error
        try:
            config = load_json(data, "it") if data.strip() else {}
            _check_shape(config, len(data))
        except FormatError as error:
            raise UsageError(
                f"login file {path} is damaged: {error}; repair or remove it"
            ) from error
        return cls(path=path, config=config)

    def entry(self, registry: str, repository: str | None) -> tuple[str, Mapping[str, Any]] | None:
        """Return the key and entry under which the registry's login is filed."""
        auths: Mapping[str, Any] = self.config.get("auths") or {}
        normalized = {_normalized(key): key for key in auths}
        for name in _names(registry, repository):
            key = name if name in auths else normalized.get(name)
            if key is not None and auths[key]:
                return key, auths[key]
        return None

    def helper(self, registry: str, repository: str | None) -> tuple[str, str] | None:
        """Return the helper's suffix and the name that it knows the registry by.

        Raises:
            UsageError: the configured helper has a name that cannot be a program's.
        """
        named: Mapping[str, str] = self.config.get("credHelpers") or {}
        for name in _names(registry, repository):
            if name in named:
                return self._checked(named[name]), name
        store = self.config.get("credsStore")
        if not store:
            return None
        if not helpers.installed(self._checked(store)):
            # Docker Desktop leaves such files behind; most registries need no login to pull.
            _logger.warning("%s names docker-credential-%s, which is missing", self.path, store)
            return None
        return store, _names(registry, None)[0]

    def _checked(self, suffix: str) -> str:
        if not _HELPER_NAME.match(suffix):
            raise UsageError(f"login file {self.path}: {suffix[:60]!r} is not a credential helper")
        return suffix


def auth_files(only: Path | None = None) -> list[Path]:
    """Return the paths of the login files in the order they are read; they need not exist."""
    environment = os.environ
    if only is not None:
        return [only]
    if named := environment.get("REGISTRY_AUTH_FILE"):
        return [Path(named)]
    home = Path.home()
    runtime = environment.get("XDG_RUNTIME_DIR")
    config = environment.get("XDG_CONFIG_HOME") or home / ".config"
    docker = environment.get("DOCKER_CONFIG") or home / ".docker"
    return [
        Path(
            f"{runtime}/containers" if runtime else f"/run/containers/{os.geteuid()}", "auth.json"
        ),
        Path(config, "containers", "auth.json"),
        Path(docker, "config.json"),
    ]


def find_credentials(
    registry: str, repository: str | None = None, *, only: Path | None = None
) -> Credentials | None:
    """Return the stored login for a registry (or, in Podman's files, for a part of it).

    Raises:
        UsageError: a login file is damaged.
        AuthError: a credential helper failed.
    """
    for path in auth_files(only):
        file = AuthFile.read(path)
        found = file and _from_file(file, registry, repository)
        if found:
            return found
    return None


def store_credentials(registry: str, credentials: Credentials, *, only: Path | None = None) -> str:
    """File a login where the next look finds it; return the file's path or the helper's name.

    The file is replaced atomically with mode 0600 and keeps everything else it held. A login that
    an earlier file in the order already has is replaced there; a new one goes to Docker's file.

    Raises:
        AuthError: the configured helper refused.
        UsageError, SpaceError, ModelpackError: the file is damaged or cannot be written.
    """
    paths = auth_files(only)
    target = paths[-1]
    for path in paths:
        file = AuthFile.read(path)
        if file and (
            file.entry(registry, None) or registry in (file.config.get("credHelpers") or {})
        ):
            target = path
            break
    with _exclusive(target):
        file = AuthFile.read(target) or AuthFile(path=target, config={})
        helper = file.helper(registry, None)
        entry: dict[str, str] = {}
        if helper:
            helpers.store(*helper, *_as_pair(credentials))
        elif credentials.identity_token is not None:
            entry = {"auth": credentials.basic, "identitytoken": credentials.identity_token}
        else:
            entry = {"auth": credentials.basic}
        _rewrite(file, registry, entry)
    return f"docker-credential-{helper[0]}" if helper else str(target)


def remove_credentials(registry: str, *, only: Path | None = None) -> list[str]:
    """Remove a registry's login everywhere; return the files and helpers that had it."""
    places = []
    for path in auth_files(only):
        file = AuthFile.read(path)
        if file is None:
            continue
        helper = file.helper(registry, None)
        if helper and helpers.get(*helper) is not None:
            helpers.erase(*helper)
            places.append(f"docker-credential-{helper[0]}")
        if file.entry(registry, None):
            with _exclusive(path):
                file = AuthFile.read(path)
                if file:
                    _rewrite(file, registry, None)
            places.append(str(path))
    return places


def _from_file(file: AuthFile, registry: str, repository: str | None) -> Credentials | None:
    found = file.entry(registry, repository)
    if found and isinstance(found[1].get("identitytoken"), str) and found[1]["identitytoken"]:
        return Credentials(identity_token=found[1]["identitytoken"])
    helper = file.helper(registry, repository)
    if not found and not helper:
        return None
    from modelpack.registry._oras import look_up  # noqa: PLC0415  (oras imports requests: 0.2 s)

    pair = look_up(registry, entry=found[1] if found else None, helper=helper, where=file.path)
    if pair is None:
        return None
    username, secret = pair
    if username == TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username=username, password=secret)


def _rewrite(file: AuthFile, registry: str, entry: Mapping[str, str] | None) -> None:
    names = _names(registry, None)
    kept = {
        key: value
        for key, value in (file.config.get("auths") or {}).items()
        if key not in names and _normalized(key) not in names
    }
    if entry is not None:
        kept[names[0]] = dict(entry)
    config = {**file.config, "auths": kept}
    text = json.dumps(config, indent="\t") + "\n"
    write_atomically(file.path.resolve(), text.encode(), mode=0o600)


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Keep other runs of this program from changing a file's directory meanwhile."""
    with mapped_errors(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with mapped_errors(f"cannot lock {path.parent}"):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _as_pair(credentials: Credentials) -> tuple[str, str]:
    if credentials.identity_token is not None:
        return TOKEN_USER, credentials.identity_token
    return credentials.username, credentials.password


def _names(registry: str, repository: str | None) -> list[str]:
    """Return the keys a login may be filed under, the most specific first."""
    if registry in {"docker.io", "index.docker.io", "registry-1.docker.io"}:
        return [DOCKER_HUB_KEY, "docker.io", "index.docker.io"]
    names = list(_prefixes(registry, repository)) if repository else []
    return [*names, registry]


def _prefixes(registry: str, repository: str) -> Iterator[str]:
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join([registry, *parts[:count]])


def _normalized(key: str) -> str:
    """Return the host of a key that Docker wrote as a URL; Podman's keys stay as they are."""
    scheme, separator, rest = key.partition("://")
    return rest.partition("/")[0] if separator and scheme in {"http", "https"} else key


def _check_shape(config: object, size: int) -> None:
    if size > MAX_CONFIG_BYTES:
        raise FormatError("it is too large")
    if not isinstance(config, dict):
        raise FormatError("it is not a JSON object")
    for name in ("auths", "credHelpers"):
        value = config.get(name)
        if value is not None and not isinstance(value, dict):
            raise FormatError(f"{name} is not an object")
    for entry in (config.get("auths") or {}).values():
        if entry is not None and not isinstance(entry, dict):
            raise FormatError("an entry of auths is not an object")
    for value in [*(config.get("credHelpers") or {}).values(), config.get("credsStore") or ""]:
        if not isinstance(value, str):
            raise FormatError("the name of a credential helper is not a string")
