"""cosign's encrypted private key file: scrypt and NaCl's secretbox around a PKCS8 key.

Owns the PEM block labelled ``ENCRYPTED SIGSTORE PRIVATE KEY`` (older: ``ENCRYPTED COSIGN PRIVATE
KEY``) and the JSON inside it. Leaves out what the key is (``keys.py``) and where passwords come
from. The secretbox comes from PyNaCl, imported when a key is opened: XSalsa20 is not in
``cryptography``, and nobody should write a cipher of their own.

    >>> pem = encrypt(b"the key", b"secret")
    >>> pem.splitlines()[0]
    b'-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----'
    >>> decrypt(pem, b"secret")
    b'the key'
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable
from typing import Any

from modelpack.errors import FormatError, UsageError
from modelpack.manifest import canonical_json, load_json
from modelpack.signing._fields import base64_bytes, base64_text, members

LABELS = (b"ENCRYPTED SIGSTORE PRIVATE KEY", b"ENCRYPTED COSIGN PRIVATE KEY")

# The three strengths that cosign's own library accepts. Anything larger would let a key file
# choose how much memory (128 * N * r bytes) and time it takes to open it.
_SCRYPT_N = (32768, 65536, 131072)
_SCRYPT_R = 8
_SCRYPT_P = 1
# What cosign 3.1 itself writes.
_WRITE_N = 65536
_SCRYPT_MEMORY = 2 * 128 * max(_SCRYPT_N) * _SCRYPT_R
_KEY_BYTES = 32
_SALT_BYTES = 32
_NONCE_BYTES = 24
_MAX_SALT_BYTES = 256
# An RSA key of 8192 bits in PKCS8 is under 5 KiB.
_MAX_SECRET_BYTES = 32 * 1024
_PEM_WIDTH = 64

_BLOCK = re.compile(
    rb"\s*-----BEGIN (?P<label>ENCRYPTED (?:SIGSTORE|COSIGN) PRIVATE KEY)-----\s"
    rb"(?P<body>[A-Za-z0-9+/=\s]*)-----END (?P=label)-----\s*\Z"
)


def is_cosign_key(pem: bytes) -> bool:
    """Tell whether the file claims to be a key of this form."""
    return any(b"-----BEGIN " + label + b"-----" in pem for label in LABELS)


def decrypt(pem: bytes, password: bytes) -> bytes:
    """Return what is inside: the PKCS8 DER of a private key.

    Raises:
        FormatError: not such a file, or parameters that cosign does not use either.
        UsageError: the password is wrong.
    """
    match = _BLOCK.match(pem)
    if not match:
        raise FormatError("the private key is not one complete PEM block; restore it from a backup")
    try:
        raw = base64.b64decode(b"".join(match["body"].split()), validate=True)
    except binascii.Error as error:
        raise FormatError("the private key's PEM block is not base64") from error
    value = members(
        load_json(raw, "the private key"),
        "the private key",
        required=("kdf", "cipher", "ciphertext"),
    )
    salt, cost = _key_derivation(value["kdf"])
    nonce = _nonce(value["cipher"])
    secret = base64_bytes(value["ciphertext"], "ciphertext", max_bytes=_MAX_SECRET_BYTES)

    from nacl.exceptions import CryptoError  # only where a key is opened
    from nacl.secret import SecretBox

    try:
        return bytes(SecretBox(_derive(password, salt, cost)).decrypt(secret, nonce))
    except CryptoError as error:
        raise UsageError("the password does not open this private key") from error


def encrypt(der: bytes, password: bytes, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Return ``der`` as a PEM file that cosign opens with the same password."""
    from nacl.secret import SecretBox  # only where a key is written

    salt, nonce = random(_SALT_BYTES), random(_NONCE_BYTES)
    box = SecretBox(_derive(password, salt, _WRITE_N)).encrypt(der, nonce)
    value = {
        "kdf": {
            "name": "scrypt",
            "params": {"N": _WRITE_N, "r": _SCRYPT_R, "p": _SCRYPT_P},
            "salt": base64_text(salt),
        },
        "cipher": {"name": "nacl/secretbox", "nonce": base64_text(nonce)},
        "ciphertext": base64_text(box.ciphertext),
    }
    text = base64.b64encode(canonical_json(value))
    lines = [text[start : start + _PEM_WIDTH] for start in range(0, len(text), _PEM_WIDTH)]
    return b"\n".join(
        [b"-----BEGIN " + LABELS[0] + b"-----", *lines, b"-----END " + LABELS[0] + b"-----", b""]
    )


def _key_derivation(value: Any) -> tuple[bytes, int]:
    kdf = members(value, "kdf", required=("name", "params", "salt"))
    params = members(kdf["params"], "kdf.params", required=("N", "r", "p"))
    if kdf["name"] != "scrypt":
        raise FormatError("the private key does not use scrypt; cosign wrote no such key")
    cost = params["N"]
    # 32768.0 and True compare equal to integers; only integers are meant.
    if any(type(params[name]) is not int for name in ("N", "r", "p")) or (
        cost not in _SCRYPT_N or params["r"] != _SCRYPT_R or params["p"] != _SCRYPT_P
    ):
        raise FormatError(
            f"the private key's scrypt parameters are not N in {_SCRYPT_N}, r {_SCRYPT_R}, "
            f"p {_SCRYPT_P}"
        )
    return base64_bytes(kdf["salt"], "kdf.salt", max_bytes=_MAX_SALT_BYTES), int(cost)


def _nonce(value: Any) -> bytes:
    cipher = members(value, "cipher", required=("name", "nonce"))
    if cipher["name"] != "nacl/secretbox":
        raise FormatError("the private key does not use nacl/secretbox; cosign wrote no such key")
    nonce = base64_bytes(cipher["nonce"], "cipher.nonce", max_bytes=_NONCE_BYTES)
    if len(nonce) != _NONCE_BYTES:
        raise FormatError(f"cipher.nonce is not {_NONCE_BYTES} bytes long")
    return nonce


def _derive(password: bytes, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(
        password,
        salt=salt,
        n=cost,
        r=_SCRYPT_R,
        p=_SCRYPT_P,
        maxmem=_SCRYPT_MEMORY,
        dklen=_KEY_BYTES,
    )
