"""What a manifest must be for the registry to take it (image-spec 1.1, distribution-spec 1.1).

Owns the checks of ``PUT``, and builders of small manifests for tests. Leaves out storing. A test
that needs a bad manifest in a registry puts it there itself, past these checks.

    registry.put_manifest("team/model", "v1", build_manifest(b"layer", config=b"{}"))
"""

import hashlib
import json
from typing import Any

from tests.support.faultregistry.routes import is_digest
from tests.support.faultregistry.store import Store
from tests.support.faultregistry.wire import Refusal, violation

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = (OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
INDEX_TYPES = (OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")


def describe(data: bytes, media_type: str = "application/octet-stream") -> dict[str, Any]:
    """Return the descriptor of some bytes, as JSON."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def build_manifest(*layers: bytes, config: bytes = b"{}", **more: Any) -> dict[str, Any]:
    """Return an image manifest over these blobs, as JSON; ``more`` are further members of it."""
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": describe(config, "application/vnd.oci.empty.v1+json"),
        "layers": [describe(layer) for layer in layers],
        **more,
    }


def check_manifest(store: Store, repo: str, data: bytes, content_type: str) -> dict[str, Any]:
    """Return the JSON of a manifest that may be stored.

    Raises:
        Refusal: MANIFEST_INVALID, a violation; or MANIFEST_BLOB_UNKNOWN, which is none.
    """
    if content_type not in MANIFEST_TYPES + INDEX_TYPES:
        raise _invalid(f"the Content-Type {content_type!r} is no manifest's")
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _invalid(f"not JSON: {error}") from None
    if not isinstance(value, dict) or value.get("schemaVersion") != 2:
        raise _invalid("not an object with schemaVersion 2")
    if value.get("mediaType", content_type) != content_type:
        raise _invalid(f"mediaType {value['mediaType']!r} under Content-Type {content_type!r}")
    if "subject" in value:
        _check_descriptor(value["subject"], "subject")
    if content_type in INDEX_TYPES:
        for number, descriptor in enumerate(_list(value, "manifests")):
            _check_descriptor(descriptor, f"manifests[{number}]")
            child = store.manifest(repo, descriptor["digest"])
            _check_held(descriptor, None if child is None else len(child.data))
        return value
    _check_descriptor(value.get("config"), "config")
    layers = _list(value, "layers")
    for number, layer in enumerate(layers):
        _check_descriptor(layer, f"layers[{number}]")
    for descriptor in [value["config"], *layers]:
        if "urls" not in descriptor:  # a foreign layer is somewhere else
            blob = store.blob(descriptor["digest"], repo)
            _check_held(descriptor, None if blob is None else blob.size)
    return value


def _list(value: dict[str, Any], name: str) -> list[Any]:
    items = value.get(name)
    if not isinstance(items, list):
        raise _invalid(f"{name} is not a list")
    return items


def _check_descriptor(value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise _invalid(f"{where} is not a descriptor")
    digest, size, media_type = (value.get(key) for key in ("digest", "size", "mediaType"))
    if not isinstance(digest, str) or not is_digest(digest):
        raise _invalid(f"{where}.digest is none: {digest!r}")
    if type(size) is not int or size < 0:
        raise _invalid(f"{where}.size is none: {size!r}")
    if not isinstance(media_type, str) or "/" not in media_type:
        raise _invalid(f"{where}.mediaType is none: {media_type!r}")
    if not isinstance(value.get("annotations", {}), dict):
        raise _invalid(f"{where}.annotations is not an object")


def _check_held(descriptor: dict[str, Any], size: int | None) -> None:
    if size is None:
        message = f"{descriptor['digest']} is not in the repository"
        raise Refusal(404, "MANIFEST_BLOB_UNKNOWN", message)
    if size != descriptor["size"]:
        raise _invalid(f"{descriptor['digest']} has {size} bytes, not {descriptor['size']}")


def _invalid(message: str) -> Refusal:
    return violation("MANIFEST_INVALID", message)
