"""Referrers in a registry without the referrers API: an index at the tag ``sha256-<hex>``.

Owns reading that index and adding to it (distribution-spec, "Referrers Tag Schema"). Registries
offer no compare-and-swap, so two writers that read the same index overwrite each other. Here every
writer looks again after it has written, and writes again when its own entry or one it has seen is
gone; the wait before that look is several times as long as the gap in which it could itself have
overwritten another. Leaves out the API proper (``repository.py``).
"""

import random
import time
from collections.abc import Callable
from typing import Any

from modelpack.descriptor import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    Descriptor,
)
from modelpack.digest import Digest
from modelpack.errors import FormatError, NetworkError
from modelpack.manifest import Index, canonical_json, load_json, parse_manifest
from modelpack.registry.auth import PULL, PUSH
from modelpack.registry.client import RegistryClient

# With every round one writer at least wins, so this many can meet.
_MAX_ROUNDS = 12
# The look after writing comes after this many times the duration of the write before it.
_SETTLE_FACTOR = 3.0
_SHORTEST_SETTLE = 0.1
_LONGEST_SETTLE = 5.0


def tag_of(digest: Digest) -> str:
    """Return the tag at which referrers of ``digest`` are listed, at most 128 characters."""
    return f"{digest.algorithm[:32]}-{digest.hex[:64]}"


def read(client: RegistryClient, digest: Digest) -> Index:
    """Return the index of referrers, empty when there is none.

    Raises:
        FormatError: the tag holds something else.
    """
    raw = _raw(client, digest)
    return _parsed(client, digest, raw) if raw is not None else Index.build([])


def add(
    client: RegistryClient,
    digest: Digest,
    referrer: Descriptor,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """List ``referrer`` among the referrers of ``digest``; idempotent, safe against other writers.

    Members of the index that this version does not know are kept.

    Raises:
        FormatError: the tag holds something else than an index, or the index would be too large.
        NetworkError: other writers did not let this one through.
    """
    wanted: dict[str, Any] = {str(referrer.digest): referrer.to_json()}
    written = False
    for _ in range(_MAX_ROUNDS):
        started = clock()
        raw = _raw(client, digest)
        if raw is not None:
            _parsed(client, digest, raw)
        value: dict[str, Any] = _empty() if raw is None else load_json(raw, "index")
        listed = {entry["digest"]: entry for entry in value["manifests"]}
        missing = [entry for key, entry in wanted.items() if key not in listed]
        if not missing:
            return
        # What was seen once and is gone was overwritten by a writer that had not seen it.
        wanted.update(listed)
        value["manifests"] = [*value["manifests"], *missing]
        _write(client, digest, canonical_json(value))
        written = True
        gap = clock() - started
        settle = min(_LONGEST_SETTLE, max(_SHORTEST_SETTLE, _SETTLE_FACTOR * gap))
        sleep(settle * random.uniform(1.0, 2.0))  # noqa: S311  (jitter, not a secret)
    assert written
    raise NetworkError(
        f"{client.name}:{tag_of(digest)}: other writers keep replacing the list of referrers; "
        "run the same command again"
    )


def _raw(client: RegistryClient, digest: Digest) -> bytes | None:
    tag = tag_of(digest)
    response = client.request(
        "GET",
        f"manifests/{tag}",
        what=f"{client.name}:{tag}",
        # Manifests too: one that is in the way must be seen, not taken for nothing and replaced.
        headers={"Accept": ", ".join([*INDEX_TYPES, *MANIFEST_TYPES])},
        expect=(200, 404),
        actions=PULL,
    )
    return response.body if response.status == 200 else None


def _parsed(client: RegistryClient, digest: Digest, raw: bytes) -> Index:
    where = f"{client.name}:{tag_of(digest)}"
    try:
        index = parse_manifest(raw, OCI_INDEX)
    except FormatError as error:
        raise FormatError(
            f"{where} should list referrers but is something else ({error}); remove that tag"
        ) from error
    assert isinstance(index, Index)
    return index


def _write(client: RegistryClient, digest: Digest, raw: bytes) -> None:
    tag = tag_of(digest)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise FormatError(f"{client.name}:{tag} lists too many referrers to take another")
    client.request(
        "PUT",
        f"manifests/{tag}",
        what=f"{client.name}:{tag}",
        expect=(200, 201, 202),
        actions=PUSH,
        headers={"Content-Type": OCI_INDEX},
        content=raw,
    )


def _empty() -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
