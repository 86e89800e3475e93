"""OCI manifests and indexes, as values that remember the exact bytes they came from.

Owns strict, bounded parsing and canonical writing. The raw bytes are the identity (the digest is
over them), so a parsed manifest is never re-serialized to be stored. Leaves out fetching and what
the layers mean.

    >>> manifest = Manifest.build(
    ...     config=Descriptor.of(b"{}", media_type=EMPTY_CONFIG), layers=[], artifact_type="a/b"
    ... )
    >>> parse_manifest(manifest.raw, OCI_MANIFEST).digest == manifest.digest
    True
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    EMPTY_CONFIG,
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    string_map,
)
from modelpack.digest import Digest
from modelpack.errors import FormatError

__all__ = [
    "DOCKER_INDEX",
    "DOCKER_MANIFEST",
    "EMPTY_CONFIG",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "Index",
    "Manifest",
    "canonical_json",
    "load_json",
    "parse_manifest",
]

# What a 4 MiB manifest of minimal descriptors could hold; a bound for hostile input.
MAX_LAYERS = 20_000
# Nesting that real manifests and configs never reach; json recurses in C and raises on its own.
_MAX_DEPTH_ERROR = "is nested too deeply"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """An image manifest (image-spec, "Image Manifest")."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    artifact_type: str | None = None
    subject: Descriptor | None = None

    @classmethod
    def build(
        cls,
        *,
        config: Descriptor,
        layers: Sequence[Descriptor],
        annotations: Mapping[str, str] | None = None,
        artifact_type: str | None = None,
        subject: Descriptor | None = None,
    ) -> "Manifest":
        """Make a manifest in canonical JSON: the same arguments give the same bytes."""
        value: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
        if artifact_type:
            value["artifactType"] = artifact_type
        value["config"] = config.to_json()
        value["layers"] = [layer.to_json() for layer in layers]
        if subject:
            value["subject"] = subject.to_json()
        if annotations:
            value["annotations"] = dict(sorted(annotations.items()))
        return cls(
            raw=canonical_json(value),
            media_type=OCI_MANIFEST,
            config=config,
            layers=tuple(layers),
            annotations=annotations or {},
            artifact_type=artifact_type,
            subject=subject,
        )

    @property
    def digest(self) -> Digest:
        """The sha256 digest of the raw bytes."""
        return Digest.of(self.raw)

    def descriptor(self, annotations: Mapping[str, str] | None = None) -> Descriptor:
        """Describe this manifest, as an index or a ``subject`` would."""
        return Descriptor.of(
            self.raw,
            media_type=self.media_type,
            annotations=annotations,
            artifact_type=self.artifact_type
            or (self.config.media_type if self.subject is not None else None),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """An image index (image-spec, "Image Index")."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @classmethod
    def build(
        cls, manifests: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
    ) -> "Index":
        """Make an index in canonical JSON."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [manifest.to_json() for manifest in manifests],
        }
        if annotations:
            value["annotations"] = dict(sorted(annotations.items()))
        return cls(
            raw=canonical_json(value),
            media_type=OCI_INDEX,
            manifests=tuple(manifests),
            annotations=annotations or {},
        )

    @property
    def digest(self) -> Digest:
        """The sha256 digest of the raw bytes."""
        return Digest.of(self.raw)


def parse_manifest(raw: bytes, media_type: str) -> Manifest | Index:
    """Parse what a registry or layout returned as ``media_type``.

    A document that could be read as both a manifest and an index is refused (CVE-2021-41190), and
    so is one whose own ``mediaType`` differs from the transport's.

    Raises:
        FormatError: anything that is not one unambiguous manifest or index within bounds.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise FormatError(f"manifest is larger than {MAX_MANIFEST_BYTES} bytes")
    value = load_json(raw, "manifest")
    if not isinstance(value, dict):
        raise FormatError("manifest is not a JSON object")
    if value.get("schemaVersion") != 2:
        raise FormatError("manifest schemaVersion is not 2")
    own_type = value.get("mediaType")
    if own_type is not None and own_type != media_type:
        raise FormatError(f"manifest says it is {own_type!r:.100} but was served as {media_type!r}")
    if media_type in INDEX_TYPES:
        if "layers" in value or "config" in value:
            raise FormatError("index also has manifest members (ambiguous)")
        return Index(
            raw=raw,
            media_type=media_type,
            manifests=_descriptors(value.get("manifests"), "manifests"),
            annotations=string_map(value.get("annotations"), "annotations"),
        )
    if media_type in MANIFEST_TYPES:
        if "manifests" in value:
            raise FormatError("manifest also has index members (ambiguous)")
        artifact_type = value.get("artifactType")
        if artifact_type is not None and not isinstance(artifact_type, str):
            raise FormatError("manifest artifactType is not a string")
        subject = value.get("subject")
        return Manifest(
            raw=raw,
            media_type=media_type,
            config=Descriptor.from_json(value.get("config"), "config"),
            layers=_descriptors(value.get("layers"), "layers"),
            annotations=string_map(value.get("annotations"), "annotations"),
            artifact_type=artifact_type or None,
            subject=None if subject is None else Descriptor.from_json(subject, "subject"),
        )
    raise FormatError(f"{media_type!r:.100} is not a manifest or index type")


def load_json(raw: bytes, what: str) -> Any:
    """Parse JSON strictly: UTF-8, no duplicate keys, no NaN, no runaway nesting.

    Raises:
        FormatError: ``what`` names the document in the message.
    """
    try:
        return json.loads(
            raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constants
        )
    except RecursionError as error:
        raise FormatError(f"{what} {_MAX_DEPTH_ERROR}") from error
    except ValueError as error:
        raise FormatError(f"{what} is not valid JSON: {error!s:.200}") from error


def canonical_json(value: object) -> bytes:
    """Write JSON one way only: UTF-8, no spaces, members in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _descriptors(value: object, where: str) -> tuple[Descriptor, ...]:
    if not isinstance(value, list):
        raise FormatError(f"{where} is not a list")
    if len(value) > MAX_LAYERS:
        raise FormatError(f"{where} has more than {MAX_LAYERS} entries")
    return tuple(
        Descriptor.from_json(item, f"{where}[{number}]") for number, item in enumerate(value)
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return value


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
