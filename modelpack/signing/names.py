"""The names by which bundles are told at a registry: media types and annotations.

Apart from the rest because whoever only carries a bundle needs them, and no cryptography.
"""

from modelpack.digest import Digest

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MEDIA_TYPE_PREFIX = "application/vnd.dev.sigstore.bundle"
"""What a referrer's layer must start with to be worth fetching."""

# What cosign puts on the referrer's manifest beside the bundle.
CONTENT_ANNOTATION = "dev.sigstore.bundle.content"
CONTENT_DSSE = "dsse-envelope"
PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"

# A payload of 24 MiB in base64 is a third larger; certificates, proofs and timestamps are a few KiB.
MAX_BUNDLE_BYTES = 24 * 1024 * 1024 * 4 // 3 + 256 * 1024


def signature_tag(digest: Digest) -> str:
    """Return the tag under which the older signatures of a manifest are found."""
    return f"{digest.algorithm}-{digest.hex}.sig"
