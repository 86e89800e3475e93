"""The older cosign signature, which Podman's and CRI-O's ``policy.json`` still read.

Owns its payload ("simple signing", containers/image signature protocol) and its signature. Leaves
out the manifest at the tag ``sha256-<hex>.sig`` whose layers carry both: a layer holds the payload,
its annotation ``SIGNATURE_ANNOTATION`` the signature in base64.

Nothing but the digest and a repository name is signed, so unlike a bundle it can say nothing else.

    >>> from modelpack.signing.keys import PrivateKey
    >>> key, digest = PrivateKey.generate(), Digest.of(b"manifest")
    >>> signed = sign("registry.example/team/llama", digest, key)
    >>> parse_payload(signed.payload).digest == digest
    True
"""

from dataclasses import dataclass

from modelpack.digest import Digest
from modelpack.errors import FormatError
from modelpack.manifest import canonical_json, load_json
from modelpack.signing._fields import base64_bytes, base64_text, members, text
from modelpack.signing.dsse import MAX_SIGNATURE_BYTES
from modelpack.signing.keys import PrivateKey

LAYER_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"

# A reference and a digest; annotations in "optional" are a handful.
MAX_PAYLOAD_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class SimpleSignature:
    """A payload and the signature over exactly those bytes."""

    payload: bytes
    signature: bytes

    @property
    def annotation(self) -> str:
        """The signature as the layer's annotation holds it."""
        return base64_text(self.signature)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedImage:
    """What the payload says."""

    reference: str
    """The repository that the signer meant, as it wrote it."""
    digest: Digest


def sign(repository: str, digest: Digest, key: PrivateKey) -> SimpleSignature:
    """Sign a manifest for a repository (``host/name``, no tag), as cosign does."""
    payload = canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": str(digest)},
                "type": _TYPE,
            },
            "optional": None,
        }
    )
    return SimpleSignature(payload=payload, signature=key.sign(payload))


def parse_annotation(value: object) -> bytes:
    """Return the signature that a layer's annotation holds.

    Raises:
        FormatError: not canonical base64, or too long for a signature.
    """
    return base64_bytes(value, SIGNATURE_ANNOTATION, max_bytes=MAX_SIGNATURE_BYTES)


def parse_payload(raw: bytes) -> SignedImage:
    """Read a payload whose signature the caller has verified.

    ``critical`` must hold exactly what is understood here; ``optional`` may hold anything.

    Raises:
        FormatError: not such a payload.
    """
    if len(raw) > MAX_PAYLOAD_BYTES:
        raise FormatError(f"the signed payload is larger than {MAX_PAYLOAD_BYTES} bytes")
    value = members(
        load_json(raw, "the signed payload"),
        "the signed payload",
        required=("critical",),
        optional=("optional",),
    )
    critical = members(value["critical"], "critical", required=("identity", "image", "type"))
    if critical["type"] != _TYPE:
        raise FormatError(f"{critical['type']!a:.80} is not the type of a cosign signature")
    identity = members(critical["identity"], "critical.identity", required=("docker-reference",))
    image = members(critical["image"], "critical.image", required=("docker-manifest-digest",))
    return SignedImage(
        reference=text(identity["docker-reference"], "docker-reference"),
        digest=Digest.parse(image["docker-manifest-digest"]),
    )
