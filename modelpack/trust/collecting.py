"""Reading what is attached to a manifest: bundles, model signatures, older signatures.

Owns finding them among the referrers, within bounds. Leaves out verifying: what comes back is
bytes that anyone who may push could have put there. What cannot be read is a verdict with a reason,
as a signature that does not hold is: one bad referrer must not hide the good ones.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from modelpack.descriptor import EMPTY_CONFIG, Descriptor
from modelpack.digest import Digest
from modelpack.errors import FormatError, IntegrityError, NotFoundError, PolicyError
from modelpack.manifest import Index, Manifest
from modelpack.parallel import for_each
from modelpack.signing import simplesigning
from modelpack.signing.names import (
    MAX_BUNDLE_BYTES,
    MEDIA_TYPE_PREFIX,
    PREDICATE_ANNOTATION,
    signature_tag,
)
from modelpack.signing.simplesigning import MAX_PAYLOAD_BYTES, SimpleSignature
from modelpack.signing.statement import OMS_SIGNATURE
from modelpack.signing.verify import MAX_BUNDLES, MAX_BUNDLES_BYTES, SignatureVerdict
from modelpack.storage import Fetcher

_THREADS = 8
# One per signer; the older shape had no attestations that would add to them.
_MAX_SIMPLE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """What is attached to a manifest, unverified."""

    bundles: tuple[tuple[str, bytes], ...] = ()
    """(digest of the blob, bytes): what claims to speak of the manifest."""
    model_signatures: tuple[tuple[str, bytes], ...] = ()
    """Likewise: what claims to speak of the files."""
    problems: tuple[SignatureVerdict, ...] = ()
    """What is listed but cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    source: str
    raw: bytes = b""
    of_files: bool = False
    problem: str | None = None


def collect(fetcher: Fetcher, digest: Digest) -> Collected:
    """Fetch every bundle that refers to a manifest.

    Raises:
        PolicyError: there are more, or larger ones, than are verified. Leaving some out would let
            whoever can attach bundles choose which are seen.
        NetworkError, AuthError: the repository cannot be read.
    """
    # 1. Only referrers that may be bundles are looked at. Their number is bounded before any of
    #    them is fetched.
    entries = [entry for entry in fetcher.referrers(digest) if _may_be_bundle(entry)]
    entries = list({entry.digest: entry for entry in entries}.values())
    if len(entries) > MAX_BUNDLES:
        raise PolicyError(
            f"{digest} has {len(entries)} signature bundles attached, more than the {MAX_BUNDLES} "
            "that are verified; remove those that do not belong to it"
        )
    # 2. Each is held to its own subject and to its bounds.
    budget = _Budget(MAX_BUNDLES_BYTES, digest)
    items: dict[int, _Item | None] = {}

    def fetch(number: int) -> None:
        items[number] = _fetch(fetcher, entries[number], digest, budget)

    for_each(fetch, range(len(entries)), _THREADS)
    found = [item for _, item in sorted(items.items()) if item is not None]
    good = [item for item in found if item.problem is None]
    return Collected(
        bundles=tuple((item.source, item.raw) for item in good if not item.of_files),
        model_signatures=tuple((item.source, item.raw) for item in good if item.of_files),
        problems=tuple(_problem(item) for item in found if item.problem is not None),
    )


def collect_simple(fetcher: Fetcher, digest: Digest) -> list[tuple[str, SimpleSignature]]:
    """Fetch the signatures at the tag ``sha256-<hex>.sig``, as (digest of the payload, signature).

    Layers that are no such signature are passed over, as cosign does.

    Raises:
        NetworkError, AuthError: the repository cannot be read.
    """
    try:
        manifest = fetcher.fetch_manifest(signature_tag(digest))
    except (NotFoundError, FormatError):
        return []
    if isinstance(manifest, Index):
        return []
    found = []
    for layer in manifest.layers[:_MAX_SIMPLE]:
        if layer.media_type != simplesigning.LAYER_TYPE or layer.size > MAX_PAYLOAD_BYTES:
            continue
        try:
            value = simplesigning.parse_annotation(
                layer.annotations.get(simplesigning.SIGNATURE_ANNOTATION)
            )
            payload = fetcher.fetch_blob(layer, max_bytes=MAX_PAYLOAD_BYTES)
        except (NotFoundError, IntegrityError):
            continue
        found.append((str(layer.digest), SimpleSignature(payload=payload, signature=value)))
    return found


class _Budget:
    """The bytes that all bundles together may have."""

    def __init__(self, most: int, digest: Digest) -> None:
        self._left = most
        self._digest = digest
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        with self._lock:
            self._left -= size
            exhausted = self._left < 0
        if exhausted:
            raise PolicyError(
                f"{self._digest} has more than {MAX_BUNDLES_BYTES} bytes of signature bundles "
                "attached; remove those that do not belong to it"
            )


def _may_be_bundle(entry: Descriptor) -> bool:
    """Tell whether a referrer may hold a bundle; some lists leave the type out."""
    kind = entry.artifact_type
    return kind is None or kind == EMPTY_CONFIG or kind.startswith(MEDIA_TYPE_PREFIX)


def _fetch(fetcher: Fetcher, entry: Descriptor, subject: Digest, budget: _Budget) -> _Item | None:
    source = str(entry.digest)
    try:
        manifest = fetcher.fetch_manifest(entry.digest)
        if not isinstance(manifest, Manifest) or not _is_bundle(manifest):
            return None
        layer = manifest.layers[0]
        source = str(layer.digest)
        # The list proves nothing; the manifest's own subject does.
        if manifest.subject is None or manifest.subject.digest != subject:
            return _Item(source=source, problem="attached, but its subject is another manifest")
        if layer.size > MAX_BUNDLE_BYTES:
            return _Item(
                source=source, problem=f"{layer.size} bytes, more than a bundle may have; not read"
            )
        budget.take(layer.size)
        raw = fetcher.fetch_blob(layer, max_bytes=MAX_BUNDLE_BYTES)
    except (NotFoundError, IntegrityError) as error:
        return _Item(source=source, problem=f"attached, but cannot be read: {error}")
    of_files = manifest.annotations.get(PREDICATE_ANNOTATION) == OMS_SIGNATURE
    return _Item(source=source, raw=raw, of_files=of_files)


def _is_bundle(manifest: Manifest) -> bool:
    layers: Sequence[Descriptor] = manifest.layers
    return len(layers) == 1 and layers[0].media_type.startswith(MEDIA_TYPE_PREFIX)


def _problem(item: _Item) -> SignatureVerdict:
    return SignatureVerdict(ok=False, kind="unknown", detail=item.problem or "", source=item.source)
