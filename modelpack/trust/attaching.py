"""Signatures at a registry or in a layout: bundles as referrers, and the older ``.sig`` tag.

Owns writing them so that cosign finds them, and so that two signers at once lose nothing. Leaves
out making them (``authors.py``) and reading them (``collecting.py``).

A bundle's referrer is what cosign 3 writes: an empty config, one layer, three annotations. Where
there is no referrers API the repository keeps the list at a tag (``registry/tagschema.py``). The
``.sig`` tag has no such help: it is read, extended, written, and read again.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from modelpack.content import BlobContent
from modelpack.descriptor import EMPTY_CONFIG, OCI_CONFIG, Descriptor
from modelpack.errors import FormatError, NetworkError, NotFoundError, UsageError
from modelpack.manifest import Index, Manifest, canonical_json
from modelpack.reference import RegistryReference
from modelpack.signing import simplesigning
from modelpack.signing.names import (
    CONTENT_ANNOTATION,
    CONTENT_DSSE,
    MEDIA_TYPE,
    PREDICATE_ANNOTATION,
    signature_tag,
)
from modelpack.signing.policy import CREATED
from modelpack.signing.simplesigning import SimpleSignature
from modelpack.storage import Repository

_EMPTY = b"{}"
# With every round one writer at least gets through, so this many can meet.
_MAX_ROUNDS = 8
# Long enough for a writer that read before us to have written.
_SETTLE_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Attached:
    """Something that was attached to a manifest."""

    predicate_type: str
    manifest: str
    """The digest of the manifest that carries it."""
    blob: str
    """The digest of the bundle itself."""

    def to_json(self) -> dict[str, str]:
        """Return the form that ``--json`` prints."""
        return {
            "predicateType": self.predicate_type,
            "manifest": self.manifest,
            "bundle": self.blob,
        }


def attach_bundle(
    repository: Repository,
    subject: Manifest | Index,
    raw: bytes,
    *,
    predicate_type: str,
    created: datetime,
) -> Attached:
    """Store a bundle and make it a referrer of ``subject``.

    Raises:
        AuthError, NetworkError, SpaceError: as the repository says.
    """
    bundle = Descriptor.of(raw, media_type=MEDIA_TYPE)
    config = Descriptor.of(_EMPTY, media_type=EMPTY_CONFIG)
    manifest = Manifest.build(
        config=config,
        layers=[bundle],
        artifact_type=MEDIA_TYPE,
        subject=Descriptor.of(subject.raw, media_type=subject.media_type),
        annotations={
            CONTENT_ANNOTATION: CONTENT_DSSE,
            PREDICATE_ANNOTATION: predicate_type,
            CREATED: created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
    )
    for descriptor, data in ((config, _EMPTY), (bundle, raw)):
        if not repository.has_blob(descriptor):
            repository.push_blob(descriptor, BlobContent((data,)))
    repository.push_manifest(manifest)
    return Attached(
        predicate_type=predicate_type, manifest=str(manifest.digest), blob=str(bundle.digest)
    )


def attach_simple(
    repository: Repository,
    subject: Manifest | Index,
    signature: SimpleSignature,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Attached:
    """Add a signature of the older shape to the tag ``sha256-<hex>.sig``; idempotent.

    Raises:
        UsageError: the repository is a layout, whose path nobody else calls by that name.
        FormatError: the tag holds something else.
        NetworkError: other writers did not let this one through.
    """
    if not isinstance(repository.reference, RegistryReference):
        raise UsageError(
            f"{repository.reference} is a layout; a .sig names a repository of a registry"
        )
    tag = signature_tag(subject.digest)
    layer = Descriptor.of(
        signature.payload,
        media_type=simplesigning.LAYER_TYPE,
        annotations={simplesigning.SIGNATURE_ANNOTATION: signature.annotation},
    )
    if not repository.has_blob(layer):
        repository.push_blob(layer, BlobContent((signature.payload,)))
    seen: list[Descriptor] = [layer]
    for _ in range(_MAX_ROUNDS):
        present = _layers_at(repository, tag)
        missing = [one for one in seen if not _holds(present, one)]
        if not missing:
            break
        # What was there once and is gone was overwritten by a writer that had not seen it.
        seen += [one for one in present if not _holds(seen, one)]
        _push_simple(repository, [*present, *missing], tag)
        sleep(_SETTLE_SECONDS * random.uniform(1.0, 2.0))  # noqa: S311  # jitter, not a secret
    else:
        raise NetworkError(f"{tag}: other writers keep replacing the signatures; run it again")
    carrier = repository.fetch_manifest(tag)
    return Attached(
        predicate_type=simplesigning.LAYER_TYPE,
        manifest=str(carrier.digest),
        blob=str(layer.digest),
    )


def _layers_at(repository: Repository, tag: str) -> tuple[Descriptor, ...]:
    try:
        found = repository.fetch_manifest(tag)
    except NotFoundError:
        return ()
    if isinstance(found, Index):
        raise FormatError(f"{tag} is an index where signatures should be; remove that tag")
    return found.layers


def _holds(layers: "tuple[Descriptor, ...] | list[Descriptor]", wanted: Descriptor) -> bool:
    """Tell whether a signature is there; equal payloads have one digest and many signatures."""
    key = simplesigning.SIGNATURE_ANNOTATION
    return any(
        layer.digest == wanted.digest and layer.annotations.get(key) == wanted.annotations.get(key)
        for layer in layers
    )


def _push_simple(repository: Repository, layers: list[Descriptor], tag: str) -> None:
    config = canonical_json(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        }
    )
    described = Descriptor.of(config, media_type=OCI_CONFIG)
    repository.push_blob(described, BlobContent((config,)))
    repository.push_manifest(Manifest.build(config=described, layers=layers), tag)
