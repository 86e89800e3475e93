"""The adapter to oras-py, and its only importer.

oras-py knows how a login entry, a ``credHelpers`` or a ``credsStore`` yields a user and a secret,
and how a token is asked for. This module feeds it one checked entry or challenge at a time, over
this project's own transport, and turns its odd errors into the project's. Where the line runs and
why: docs/adr/0003-oras-and-own-client.md. Import it only when a registry asks for credentials:
oras imports ``requests``.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import oras.auth.utils
from oras.auth.base import AuthBackend
from oras.auth.token import TokenAuth
from oras.container import Container

from modelpack.errors import UsageError
from modelpack.registry import helpers


class Login(Protocol):
    """A user and a secret, such as ``credentials.Credentials``."""

    @property
    def username(self) -> str:
        """The user's name."""

    @property
    def password(self) -> str:
        """The secret."""


class TokenTransport(Protocol):
    """The part of a ``requests`` session that oras-py's token code uses."""

    def get(self, url: str, **parameters: Any) -> Any:
        """Send a GET request."""

    def request(self, method: str, url: str, **parameters: Any) -> Any:
        """Send a request."""


class _Login(AuthBackend):  # type: ignore[misc]
    """One registry's login, from a configuration that holds only what concerns it."""

    def __init__(self, config: Mapping[str, Any], helper_name: str) -> None:
        super().__init__()
        self._auth_config = dict(config)
        self._basic_auth: str | None = None
        self._helper_name = helper_name

    def find(self, registry: str) -> str | None:
        """Return ``user:secret`` in Base64, or None."""
        # A Container is given, because AuthBackend can only parse names once it has a hostname.
        self.load_configs(Container("any/name", registry=registry))
        return self._basic_auth

    def _get_auth_from_creds_store(self, suffix: str, hostname: str) -> str | None:
        # oras-py's own waits for ever, and raises KeyError or JSONDecodeError on odd answers.
        del hostname
        pair = helpers.get(suffix, self._helper_name)
        return None if pair is None else str(oras.auth.utils.get_basic_auth(*pair))


def look_up(
    registry: str,
    *,
    entry: Mapping[str, Any] | None,
    helper: tuple[str, str] | None,
    where: Path,
) -> tuple[str, str] | None:
    """Return user name and secret of a login entry, else from its helper, else None.

    Raises:
        UsageError: the entry is damaged; ``where`` is its file.
        AuthError: the helper failed.
    """
    config: dict[str, Any] = {"auths": {}}
    if entry:
        config["auths"][registry] = {"auth": _auth_member(entry)}
    if helper:
        config["credHelpers"] = {registry: helper[0]}
    encoded = _Login(config, helper[1] if helper else registry).find(registry)
    if not encoded:
        return None
    try:
        username, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise UsageError(
            f"login file {where}: the entry for {registry} is damaged; log in again"
        ) from error
    if not colon:
        raise UsageError(f"login file {where}: the entry for {registry} is damaged; log in again")
    # Docker pads secrets with NUL in old files.
    return username, secret.rstrip("\0")


def request_token(
    transport: TokenTransport,
    *,
    realm: str,
    service: str | None,
    scopes: Sequence[str],
    credentials: Login | None,
) -> object:
    """Run the token handshake over ``transport``; return whatever it gave as the token.

    None means that the service refused; the transport knows with which status.
    """
    backend = TokenAuth()
    backend.session = transport
    backend._tls_verify = True  # noqa: SLF001  (the transport has its own TLS context; oras only passes it on)
    header = oras.auth.utils.authHeader({"realm": realm, "service": service, "scope": list(scopes)})
    if credentials is None:
        return backend.request_anonymous_token(header)
    backend.set_basic_auth(credentials.username, credentials.password)
    return backend.request_token(header)


def _auth_member(entry: Mapping[str, Any]) -> str | None:
    """Return an entry's Base64 member, built from plain members if it has only those."""
    auth, username, password = (entry.get(name) for name in ("auth", "username", "password"))
    if isinstance(auth, str) and auth:
        return auth
    if isinstance(username, str) and isinstance(password, str) and username:
        return str(oras.auth.utils.get_basic_auth(username, password))
    return None
