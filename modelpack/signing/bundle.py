"""Sigstore bundles, version 0.3: an envelope and what it takes to verify it, in one JSON file.

Owns reading and writing the bundle of a key (``verificationMaterial.publicKey.hint``) and telling
it from the bundle of a certificate, whose raw bytes ``keyless.py`` verifies. Leaves out verifying.
Bundles are compared as parsed values, never as text: writers order and space them differently.

    >>> from modelpack.signing import dsse, keys
    >>> key = keys.PrivateKey.generate()
    >>> raw = key_bundle(dsse.sign(b"{}", key), key.public_key.cosign_hint)
    >>> parse_bundle(raw).hint == key.public_key.cosign_hint
    True
"""

from dataclasses import dataclass, field
from typing import Any

from modelpack.errors import FormatError
from modelpack.manifest import canonical_json, load_json
from modelpack.signing._fields import base64_bytes, items, members, text
from modelpack.signing.dsse import Envelope
from modelpack.signing.keys import PublicKey
from modelpack.signing.names import MAX_BUNDLE_BYTES, MEDIA_TYPE

# The second is how the protobuf specification first spelled 0.3. Older versions lack the log's
# inclusion proof; a newer one may mean something else, and is refused until it is known.
ACCEPTED_MEDIA_TYPES = (MEDIA_TYPE, "application/vnd.dev.sigstore.bundle+json;version=0.3")

MAX_CERTIFICATE_BYTES = 64 * 1024
# sigstore's clients take one entry and at most 32 timestamps.
_MAX_LOG_ENTRIES = 32
_MAX_HINT = 512
# Lists, objects and members; a bundle with 32 timestamps has some hundred. What is large in one is a
# text. Parsed JSON of nothing but brackets takes thirty times the memory.
_MAX_VALUES = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A parsed bundle; exactly one of ``hint`` and ``certificate`` is not None."""

    envelope: Envelope
    hint: str | None
    """How the signer named the key; empty when it did not. It proves nothing."""
    certificate: bytes | None
    """The signing certificate, DER. Nothing about it is verified here."""
    raw: bytes = field(repr=False)

    def may_be_by(self, key: PublicKey) -> bool:
        """Tell whether the hint leaves it open that ``key`` signed, in cosign's or OMS's form.

        A hint proves nothing, but one that names another key spares hashing the payload, and a
        bundle whose hint was changed is not what its signer made.
        """
        return not self.hint or self.hint in (key.cosign_hint, key.oms_hint)


def parse_bundle(raw: bytes) -> Bundle:
    """Read a bundle, strictly.

    Raises:
        FormatError: too large, another version, a missing, unknown or malformed member, a content
            other than a DSSE envelope with exactly one signature.
    """
    if len(raw) > MAX_BUNDLE_BYTES:
        raise FormatError(f"the bundle is larger than {MAX_BUNDLE_BYTES} bytes")
    if sum(raw.count(mark) for mark in (b"[", b"{", b",")) > _MAX_VALUES:
        raise FormatError(f"the bundle holds more than {_MAX_VALUES} values")
    value = load_json(raw, "the bundle")
    if not isinstance(value, dict) or value.get("mediaType") not in ACCEPTED_MEDIA_TYPES:
        found = value.get("mediaType") if isinstance(value, dict) else type(value).__name__
        raise FormatError(f"{found!a:.100} is not a sigstore bundle of version 0.3")
    if "messageSignature" in value:
        raise FormatError("the bundle signs bare bytes; only a signed statement names a manifest")
    members(value, "the bundle", required=("mediaType", "verificationMaterial", "dsseEnvelope"))
    envelope = Envelope.from_json(value["dsseEnvelope"], "dsseEnvelope")
    if len(envelope.signatures) != 1:
        # sigstore bundle specification: more would leave open which one the material is about.
        raise FormatError(f"the bundle has {len(envelope.signatures)} signatures, not one")
    hint, certificate = _material(value["verificationMaterial"])
    return Bundle(envelope=envelope, hint=hint, certificate=certificate, raw=raw)


def key_bundle(envelope: Envelope, hint: str) -> bytes:
    """Return the bundle of an envelope that a key signed; ``hint`` names the key."""
    return canonical_json(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": envelope.to_json(),
        }
    )


def _material(value: Any) -> tuple[str | None, bytes | None]:
    where = "verificationMaterial"
    members(
        value,
        where,
        optional=("publicKey", "certificate", "tlogEntries", "timestampVerificationData"),
    )
    items(value.get("tlogEntries", []), f"{where}.tlogEntries", max_items=_MAX_LOG_ENTRIES)
    if ("publicKey" in value) == ("certificate" in value):
        raise FormatError(f"{where} must hold either a publicKey or a certificate")
    if "publicKey" in value:
        key = members(value["publicKey"], f"{where}.publicKey", optional=("hint",))
        hint = key.get("hint", "")
        return text(hint, f"{where}.publicKey.hint", max_length=_MAX_HINT), None
    where = f"{where}.certificate"
    certificate = members(value["certificate"], where, required=("rawBytes",))
    return None, base64_bytes(
        certificate["rawBytes"], f"{where}.rawBytes", max_bytes=MAX_CERTIFICATE_BYTES
    )
