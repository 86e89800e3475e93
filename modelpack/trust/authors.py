"""Who signs: a private key from a file, or an identity token that a certificate is issued for.

Owns reading keys, passwords and tokens from where people and CI systems keep them. Leaves out what
is signed (``making.py``) and the cryptography (``signing/``). Passwords and tokens come from the
environment, a file or a prompt, never from an argument, and no message holds one.

    author = KeyAuthor(name="team.key", key=load_private_key("team.key", os.environ, prompt=None))
    raw = author.sign(signature_statement(digest, name=author.subject_name))
"""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modelpack.errors import AuthError, NotFoundError, UsageError
from modelpack.signing import cosignkey, dsse, oms
from modelpack.signing.bundle import key_bundle
from modelpack.signing.keyless import (
    MAX_TOKEN_CHARACTERS,
    MAX_TRUST_CONFIG_BYTES,
    SigstoreSigner,
    detect_ci_token,
    find_token,
)
from modelpack.signing.keys import MAX_KEY_FILE_BYTES, PrivateKey
from modelpack.signing.oms import FileDigest
from modelpack.signing.verify import KeySigner

# cosign's own variable comes second, so that a pipeline that has one need not change.
PASSWORD_VARIABLES = ("MODELPACK_KEY_PASSWORD", "COSIGN_PASSWORD")
# How cosign, too, takes a key from a variable of the environment.
_FROM_ENVIRONMENT = "env://"

Prompt = Callable[[str], bytes]
"""Asks a person for a secret, given what to call it."""


class Author(Protocol):
    """Somebody who signs statements."""

    @property
    def name(self) -> str:
        """How people call it."""

    @property
    def subject_name(self) -> str | None:
        """What the one subject of a signature must be called for this author's tools, if at all."""

    @property
    def signer(self) -> KeySigner | None:
        """The verifying side, where it is known before signing."""

    def sign(self, statement: bytes) -> bytes:
        """Return the bundle of a signed statement."""

    def sign_files(self, model: str, files: Iterable[FileDigest], ignored: Sequence[str]) -> bytes:
        """Return the OpenSSF Model Signing bundle over a list of files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyAuthor:
    """Whoever holds a private key."""

    name: str
    key: PrivateKey

    @property
    def subject_name(self) -> str | None:
        """None: cosign leaves the name out."""
        return None

    @property
    def signer(self) -> KeySigner:
        """The public key."""
        return KeySigner(name=self.name, key=self.key.public_key)

    def sign(self, statement: bytes) -> bytes:
        """Return the bundle of a signed statement."""
        return key_bundle(dsse.sign(statement, self.key), self.key.public_key.cosign_hint)

    def sign_files(self, model: str, files: Iterable[FileDigest], ignored: Sequence[str]) -> bytes:
        """Return the OpenSSF Model Signing bundle over a list of files."""
        return oms.sign_files(model, files, self.key, ignored)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenAuthor:
    """Whoever an identity token speaks for; every signature gets a certificate of its own."""

    token: str = field(repr=False)
    trust_config: bytes | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The same for all, since who it is stands in the certificate."""
        return "an identity token"

    @property
    def subject_name(self) -> str:
        """Empty: sigstore's client wants the member to be there."""
        return ""

    @property
    def signer(self) -> None:
        """Unknown until a certificate is issued."""
        return

    def sign(self, statement: bytes) -> bytes:
        """Return the bundle of a signed statement; raises as ``SigstoreSigner.sign``."""
        return SigstoreSigner(self.token, trust_config=self.trust_config).sign(statement)

    def sign_files(self, model: str, files: Iterable[FileDigest], ignored: Sequence[str]) -> bytes:
        """Return the OpenSSF Model Signing bundle over a list of files."""
        return self.sign(oms.files_statement(model, files, ignored))


def load_private_key(
    where: str, environ: Mapping[str, str], prompt: Prompt | None = None
) -> PrivateKey:
    """Read a private key from a file, or from a variable named as ``env://NAME``.

    The password comes from ``PASSWORD_VARIABLES``, else from ``prompt``, and only if the key is
    encrypted.

    Raises:
        NotFoundError: no such file or variable.
        UsageError: not a key that can sign, or its password is missing or wrong.
    """
    if where.startswith(_FROM_ENVIRONMENT):
        name = where.removeprefix(_FROM_ENVIRONMENT)
        if not environ.get(name):
            raise NotFoundError(f"the variable {name!a:.80}, which should hold a key, is not set")
        data = environ[name].encode()
    else:
        data = read_bounded(Path(where), MAX_KEY_FILE_BYTES, "key")
    password = environment_password(environ)
    encrypted = cosignkey.is_cosign_key(data) or b"ENCRYPTED" in data
    if encrypted and password is None and prompt is not None:
        password = prompt(f"Password of {where}")
    return PrivateKey.from_pem(data, password, where)


def environment_password(environ: Mapping[str, str]) -> bytes | None:
    """Return the password that the environment gives for keys, which may be an empty one."""
    for name in PASSWORD_VARIABLES:
        if name in environ:
            return environ[name].encode()
    return None


def identity_token(where: str | None, environ: Mapping[str, str]) -> str:
    """Return an identity token from a file (``-``: stdin), or from around this process.

    Raises:
        AuthError: there is none, or not a usable one.
        NotFoundError: no such file.
    """
    if where is None:
        found = find_token(environ, _read_if_there, detect_ci_token)
        if found is None:
            raise AuthError(
                "no identity token is at hand: give one in SIGSTORE_ID_TOKEN or with "
                "--identity-token FILE, or sign with --key"
            )
        return found
    text = (
        sys.stdin.read(MAX_TOKEN_CHARACTERS + 1)
        if where == "-"
        else _text(read_bounded(Path(where), MAX_TOKEN_CHARACTERS, "identity token"))
    )
    if not text.strip() or len(text) > MAX_TOKEN_CHARACTERS:
        raise AuthError("the identity token is empty or too long")
    return text.strip()


def read_trust_config(path: Path | None) -> bytes | None:
    """Return the bytes of a sigstore client trust configuration, None for the public instance.

    Raises:
        NotFoundError, UsageError: it cannot be read.
    """
    return None if path is None else read_bounded(path, MAX_TRUST_CONFIG_BYTES, "trust config")


def read_bounded(path: Path, most: int, what: str) -> bytes:
    """Return a file's bytes, if it is one and not larger than ``most``.

    Raises:
        NotFoundError: there is none.
        UsageError: it cannot be read, or is too large to be what it should be.
    """
    try:
        with path.open("rb") as file:
            if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{what} {path} is a directory")
            data = file.read(most + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{what} {path} does not exist") from error
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise UsageError(f"{what} {path} is larger than {most} bytes; it is something else")
    return data


def _read_if_there(path: str) -> str | None:
    try:
        return _text(read_bounded(Path(path), MAX_TOKEN_CHARACTERS, "identity token"))
    except NotFoundError:
        return None


def _text(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise AuthError("the identity token is not text") from error
