"""DSSE, the envelope around what is signed (secure-systems-lab/dsse, protocol v1.0.2).

Owns the pre-authentication encoding and the envelope's JSON. Leaves out what the payload says
(``statement.py``) and how envelopes travel (``bundle.py``).

    >>> pae("text/plain", b"hello")
    b'DSSEv1 10 text/plain 5 hello'
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelpack.signing._fields import base64_bytes, base64_text, items, members, text
from modelpack.signing.keys import PrivateKey, PublicKey

IN_TOTO = "application/vnd.in-toto+json"

# The SBOM or the file list of a large model is a few megabytes. Parsing takes some ten times the
# payload in memory, so the bound is also one on that.
MAX_PAYLOAD_BYTES = 24 * 1024 * 1024
# RSA 8192 makes 1024 bytes.
MAX_SIGNATURE_BYTES = 2048
MAX_SIGNATURES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvelopeSignature:
    """One signature over the payload's encoding."""

    value: bytes
    key_id: str | None = None
    """Unauthenticated, and never used to choose a key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """A payload, its type, and who signed both."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    @classmethod
    def from_json(cls, value: Any, where: str = "the envelope") -> "Envelope":
        """Read the JSON form, strictly.

        Raises:
            FormatError: a missing, unknown, malformed or over-long member.
        """
        members(value, where, required=("payload", "payloadType", "signatures"))
        signatures = items(value["signatures"], f"{where}.signatures", max_items=MAX_SIGNATURES)
        return cls(
            payload_type=text(value["payloadType"], f"{where}.payloadType"),
            payload=base64_bytes(value["payload"], f"{where}.payload", max_bytes=MAX_PAYLOAD_BYTES),
            signatures=tuple(
                _signature(item, f"{where}.signatures[{number}]")
                for number, item in enumerate(signatures)
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "payload": base64_text(self.payload),
            "payloadType": self.payload_type,
            "signatures": [_signature_json(signature) for signature in self.signatures],
        }

    def signers(self, keys: Iterable[PublicKey]) -> tuple[PublicKey, ...]:
        """Return those of ``keys`` that signed this payload under this type (protocol, "Verify").

        Only after a key is returned may the payload be parsed or believed.
        """
        encoded = pae(self.payload_type, self.payload)
        return tuple(
            key
            for key in dict.fromkeys(keys)
            if any(key.verifies(signature.value, encoded) for signature in self.signatures)
        )


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding: what is really signed.

    Lengths are in bytes, so that no two pairs of type and payload encode alike.
    """
    encoded_type = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(encoded_type), encoded_type, len(payload), payload)


def sign(
    payload: bytes, key: PrivateKey, *, payload_type: str = IN_TOTO, curve_hash: bool = False
) -> Envelope:
    """Sign ``payload`` once; ``curve_hash`` as for ``PrivateKey.sign``."""
    value = key.sign(pae(payload_type, payload), curve_hash=curve_hash)
    return Envelope(
        payload_type=payload_type,
        payload=payload,
        signatures=(EnvelopeSignature(value=value),),
    )


def _signature(value: Any, where: str) -> EnvelopeSignature:
    members(value, where, required=("sig",), optional=("keyid",))
    key_id = value.get("keyid")
    return EnvelopeSignature(
        value=base64_bytes(value["sig"], f"{where}.sig", max_bytes=MAX_SIGNATURE_BYTES),
        key_id=None if key_id is None else text(key_id, f"{where}.keyid"),
    )


def _signature_json(signature: EnvelopeSignature) -> dict[str, str]:
    value = {"sig": base64_text(signature.value)}
    if signature.key_id is not None:
        value["keyid"] = signature.key_id
    return value
