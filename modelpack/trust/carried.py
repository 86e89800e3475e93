"""The signature over the files, fetched and kept beside them by a pull that verifies none.

Owns choosing it among the referrers by their annotations alone and keeping it in the directory. It
is unverified: ``modelpack verify DIR --key`` and ``model_signing`` verify it, offline, later. Imports
no cryptography, so that a pull without trust options stays as quick as it is.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from modelpack.digest import Digest
from modelpack.errors import IntegrityError, NotFoundError
from modelpack.manifest import Manifest
from modelpack.paths import METADATA_DIR, SIGNATURE_NAME
from modelpack.signing.names import MAX_BUNDLE_BYTES, MEDIA_TYPE_PREFIX, PREDICATE_ANNOTATION
from modelpack.signing.statement import OMS_SIGNATURE
from modelpack.storage import Fetcher
from modelpack.stores.files import write_atomically
from modelpack.stores.receipts import read_receipt

# Of a model's few signatures the newest is wanted; a flood of them is not followed.
_MAX_LOOKED_AT = 16
# No name that a file of the metadata layer can have (docs/format.md), so that a pull leaves it alone.
_COPY = ".model.sig"
_CREATED = "org.opencontainers.image.created"


def carried_signature(fetcher: Fetcher, digest: Digest) -> bytes | None:
    """Return the newest signature over a manifest's files, unverified; None if there is none.

    Raises:
        FormatError: the list of referrers is none.
        NetworkError, AuthError: the repository cannot be read.
    """
    listed = [
        entry
        for entry in fetcher.referrers(digest)
        if entry.annotations.get(PREDICATE_ANNOTATION, OMS_SIGNATURE) == OMS_SIGNATURE
        and (entry.artifact_type or MEDIA_TYPE_PREFIX).startswith(MEDIA_TYPE_PREFIX)
    ]
    found: list[tuple[str, int, bytes]] = []
    for number, entry in enumerate(listed[-_MAX_LOOKED_AT:]):
        try:
            manifest = fetcher.fetch_manifest(entry.digest)
            if not isinstance(manifest, Manifest) or not _is_wanted(manifest, digest):
                continue
            raw = fetcher.fetch_blob(manifest.layers[0], max_bytes=MAX_BUNDLE_BYTES)
        except (NotFoundError, IntegrityError):
            continue
        found.append((manifest.annotations.get(_CREATED, ""), number, raw))
    return max(found)[2] if found else None


def keep_signature(directory: Path, raw: bytes | None) -> str | None:
    """Bring ``model.sig`` of a pulled directory to the state of the artifact; None removes it.

    A copy below ``.modelpack/`` tells the next pull that the file is its own. Somebody else's stays,
    and so does one that is part of the artifact. Returns a warning where a file is in the way.

    Raises:
        SpaceError, ModelpackError: it cannot be written.
    """
    place, copy = directory / SIGNATURE_NAME, directory / METADATA_DIR / _COPY
    receipt = read_receipt(directory)
    if receipt is not None and SIGNATURE_NAME in receipt.files:
        return None
    there, ours = _bytes(place), _bytes(copy)
    if there is not None and there not in (ours, raw):
        if raw is None:
            return None
        return f"{place} was not put there by a pull; it stays, and may not be of these files"
    if raw is not None:
        write_atomically(copy, raw)
        if there != raw:
            write_atomically(place, raw)
    elif ours is not None:
        place.unlink(missing_ok=True)
        copy.unlink()
    return None


def _is_wanted(manifest: Manifest, subject: Digest) -> bool:
    annotations: Mapping[str, str] = manifest.annotations
    return (
        annotations.get(PREDICATE_ANNOTATION) == OMS_SIGNATURE
        and manifest.subject is not None
        and manifest.subject.digest == subject
        and len(manifest.layers) == 1
    )


def _bytes(path: Path) -> bytes | None:
    """Return a regular file's bytes, None if there is nothing.

    Anything else in its place counts as a file of other bytes, and stays.
    """
    if not os.path.lexists(path):
        return None
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BUNDLE_BYTES:
        return b""
    return path.read_bytes()
