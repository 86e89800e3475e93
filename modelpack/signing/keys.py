"""Private and public keys: EC P-256 (the default), P-384 and P-521, Ed25519, RSA.

Owns loading, generating and writing key files, the two hints by which signatures name a key, and
raw signatures. Leaves out what is signed (``dsse.py``) and asking for passwords, which callers
pass as bytes and which never appear in a message.

What is signed how was tried against cosign 3.1.1, whose ``verify --key`` takes SHA-256 for every
EC curve, RSA PKCS #1 v1.5 with SHA-256 and pure Ed25519, while its ``sign --key`` hashes P-384 and
P-521 messages with SHA-384 and SHA-512 and uses Ed25519ph. So signing does what it verifies, and
verifying takes what it signs too.

    >>> key = PrivateKey.generate()
    >>> key.public_key.verifies(key.sign(b"message"), b"message")
    True
    >>> key.public_key.verifies(key.sign(b"message"), b"another")
    False
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    load_pem_public_key,
)

from modelpack.errors import FormatError, UsageError
from modelpack.signing import cosignkey
from modelpack.signing._fields import base64_text

# The largest real key file, RSA 8192 encrypted, is under 10 KiB.
MAX_KEY_FILE_BYTES = 64 * 1024
# NIST SP 800-131A; below it a signature can be forged.
MIN_RSA_BITS = 2048
# Verifying takes time that grows with the square of the size; nobody signs with more.
MAX_RSA_BITS = 8192

DEFAULT_KIND = "ecdsa-p256"
KINDS = ("ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa-3072", "rsa-4096")
"""What ``PrivateKey.generate`` makes."""

_CURVES: dict[str, tuple[str, type[ec.EllipticCurve], type[hashes.HashAlgorithm]]] = {
    "secp256r1": ("ecdsa-p256", ec.SECP256R1, hashes.SHA256),
    "secp384r1": ("ecdsa-p384", ec.SECP384R1, hashes.SHA384),
    "secp521r1": ("ecdsa-p521", ec.SECP521R1, hashes.SHA512),
}
_EXPONENT = 65537
_PRIVATE_MODE = 0o600
_PUBLIC_MODE = 0o644

_AnyPublic = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
_AnyPrivate = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True, eq=False)
class PublicKey:
    """A key that verifies. Two are equal when their SubjectPublicKeyInfo is."""

    kind: str
    """One of ``KINDS``, or ``rsa-`` and another size."""
    der: bytes
    """SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7)."""
    _key: _AnyPublic = field(repr=False)

    @classmethod
    def from_pem(cls, data: bytes, what: str = "the public key") -> "PublicKey":
        """Load exactly one PEM public key.

        Raises:
            FormatError: not a public key in PEM; ``what`` names the file in the message.
            UsageError: a key of a kind or size that is not accepted.
        """
        _check_file(data, what)
        if b"PRIVATE KEY-----" in data:
            raise UsageError(
                f"{what} is a private key; give its public key, and keep this one safe"
            )
        try:
            key = load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FormatError(f"{what} is not a PEM public key") from error
        return cls._of(key, what)

    @classmethod
    def _of(cls, key: object, what: str) -> "PublicKey":
        kind, known = _kind(key, what)
        return cls(kind, known.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), known)

    @property
    def pem(self) -> bytes:
        """The key as a PEM file, with its final newline."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the DER: what tells keys apart, for people and in verdicts."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def cosign_hint(self) -> str:
        """How cosign's bundles name this key: base64 of SHA-256 of the DER."""
        return base64_text(hashlib.sha256(self.der).digest())

    @property
    def oms_hint(self) -> str:
        """How OpenSSF Model Signing names it: hex SHA-256 of the PEM with its final newline."""
        return hashlib.sha256(self.pem).hexdigest()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Tell whether this key made ``signature`` over ``message``, in any accepted scheme."""
        key = self._key
        if isinstance(key, ec.EllipticCurvePublicKey):
            return _ecdsa_verifies(key, signature, message)
        if isinstance(key, ed25519.Ed25519PublicKey):
            return _ed25519_verifies(key, signature, message)
        return _rsa_verifies(key, signature, message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.der == self.der

    def __hash__(self) -> int:
        return hash(self.der)


@dataclass(frozen=True, slots=True, eq=False)
class PrivateKey:
    """A key that signs. Its representation shows no secret."""

    public_key: PublicKey
    _key: _AnyPrivate = field(repr=False)

    @classmethod
    def generate(cls, kind: str = DEFAULT_KIND) -> "PrivateKey":
        """Make a new key of one of ``KINDS``.

        Raises:
            UsageError: no such kind.
        """
        key: _AnyPrivate
        curves = {name: curve for name, curve, _ in _CURVES.values()}
        if kind in curves:
            key = ec.generate_private_key(curves[kind]())
        elif kind == "ed25519":
            key = ed25519.Ed25519PrivateKey.generate()
        elif kind in KINDS:
            key = rsa.generate_private_key(_EXPONENT, int(kind.removeprefix("rsa-")))
        else:
            raise UsageError(f"{kind!a} is not a kind of key; choose one of {', '.join(KINDS)}")
        return cls._of(key, "the new key")

    @classmethod
    def from_pem(
        cls, data: bytes, password: bytes | None = None, what: str = "the private key"
    ) -> "PrivateKey":
        """Load a PEM private key: PKCS8 plain or encrypted, SEC1, PKCS1, or cosign's own form.

        ``password`` is ignored by a file that is not encrypted.

        Raises:
            FormatError: not a private key in PEM; ``what`` names the file in the message.
            UsageError: the password is missing or wrong, or the key is of a kind or size that is
                not accepted.
        """
        _check_file(data, what)
        key: object
        try:
            if cosignkey.is_cosign_key(data):
                if password is None:
                    raise UsageError(_needs_password(what))
                key = load_der_private_key(cosignkey.decrypt(data, password), None)
            else:
                encrypted = b"-----BEGIN ENCRYPTED" in data or b"Proc-Type: 4,ENCRYPTED" in data
                if encrypted and password is None:
                    raise UsageError(_needs_password(what))
                key = load_pem_private_key(data, password if encrypted else None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            if "password" in str(error).lower():
                raise UsageError(f"the password does not open {what}") from error
            raise FormatError(f"{what} is not a PEM private key") from error
        return cls._of(key, what)

    @classmethod
    def _of(cls, key: object, what: str) -> "PrivateKey":
        if not isinstance(
            key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
        ):
            raise UsageError(f"{what} is {_refused_kind(key)}; use EC P-256, Ed25519 or RSA")
        return cls(PublicKey._of(key.public_key(), what), key)  # noqa: SLF001  # same module

    def sign(self, message: bytes, *, curve_hash: bool = False) -> bytes:
        """Sign as cosign verifies; with ``curve_hash`` as OpenSSF Model Signing verifies.

        The two differ for EC P-384 and P-521 only: SHA-256, or the hash of the curve's own size.
        """
        key = self._key
        if isinstance(key, ec.EllipticCurvePrivateKey):
            own_hash = _CURVES[key.curve.name][2]
            return key.sign(message, ec.ECDSA(own_hash() if curve_hash else hashes.SHA256()))
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(message)
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())

    def to_pem(self, password: bytes | None) -> bytes:
        """Return PKCS8 in PEM, encrypted when there is a password."""
        encryption: KeySerializationEncryption = NoEncryption()
        if password:
            encryption = BestAvailableEncryption(password)
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def to_cosign_pem(self, password: bytes) -> bytes:
        """Return the encrypted form that cosign reads, for any password, the empty one included."""
        der = self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return cosignkey.encrypt(der, password)


def write_key_pair(key: PrivateKey, private_path: Path, public_path: Path, password: bytes) -> None:
    """Write ``key`` in cosign's encrypted form (mode 0600) and its public key in PEM (0644).

    Neither file is ever overwritten: a lost signing key cannot be had back.

    Raises:
        UsageError: one of the files exists, or cannot be written.
    """
    for path in (private_path, public_path):
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists and is not overwritten; choose another name")
    _write_new(private_path, key.to_cosign_pem(password), _PRIVATE_MODE)
    _write_new(public_path, key.public_key.pem, _PUBLIC_MODE)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            # The umask can only have taken bits away; 0600 must not depend on it either way.
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _check_file(data: bytes, what: str) -> None:
    if len(data) > MAX_KEY_FILE_BYTES:
        raise FormatError(f"{what} is larger than {MAX_KEY_FILE_BYTES} bytes; it is no key file")
    if data.count(b"-----BEGIN ") > 1:
        raise FormatError(f"{what} holds more than one PEM block; keep one key per file")


def _kind(key: object, what: str) -> tuple[str, _AnyPublic]:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name][0], key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519", key
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise UsageError(
                f"{what} is an RSA key of {key.key_size} bits; "
                f"from {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted"
            )
        return f"rsa-{key.key_size}", key
    raise UsageError(f"{what} is {_refused_kind(key)}; use EC P-256, Ed25519 or RSA")


def _refused_kind(key: object) -> str:
    curve = getattr(getattr(key, "curve", None), "name", None)
    return f"an EC key on {curve}" if curve else "a key of a kind that is not accepted"


def _needs_password(what: str) -> str:
    return f"{what} is encrypted; give its password in MODELPACK_KEY_PASSWORD or at the prompt"


def _ecdsa_verifies(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    algorithms: list[type[hashes.HashAlgorithm]] = [hashes.SHA256]
    own_hash = _CURVES[key.curve.name][2]
    if own_hash is not hashes.SHA256:
        algorithms.append(own_hash)
    for algorithm in algorithms:
        try:
            key.verify(signature, message, ec.ECDSA(algorithm()))
        except InvalidSignature:
            continue
        return True
    return False


def _rsa_verifies(key: rsa.RSAPublicKey, signature: bytes, message: bytes) -> bool:
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
    schemes: Sequence[padding.PKCS1v15 | padding.PSS] = (padding.PKCS1v15(), pss)
    for scheme in schemes:
        try:
            key.verify(signature, message, scheme, hashes.SHA256())
        except InvalidSignature:
            continue
        return True
    return False


def _ed25519_verifies(key: ed25519.Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return _ed25519ph_verifies(key, signature, message)
    return True


def _ed25519ph_verifies(key: ed25519.Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Verify the pre-hashed variant (RFC 8032, section 5.1), which ``cryptography`` lacks."""
    from nacl import bindings  # only for what a plain verification refused
    from nacl.exceptions import CryptoError

    state = bindings.crypto_sign_ed25519ph_state()
    bindings.crypto_sign_ed25519ph_update(state, message)
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    try:
        return bool(bindings.crypto_sign_ed25519ph_final_verify(state, signature, raw))
    except (CryptoError, ValueError, TypeError):
        return False
