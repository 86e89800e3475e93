"""OCI content descriptors, and every media type and annotation key that modelpack knows.

Owns the value type and the names. Leaves out manifests (``manifest.py``) and fetching.

    >>> Descriptor.of(b"{}", media_type=EMPTY_CONFIG).size
    2
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelpack.digest import Digest
from modelpack.errors import FormatError

# image-spec 1.1
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_TAR_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
# Docker's schema 2, which some copiers still turn images into
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_TAR_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
# CNCF ModelPack model-spec
MODEL_MANIFEST = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
MODEL_LAYER_PREFIX = "application/vnd.cncf.model."
MODEL_FILEPATH = "org.cncf.model.filepath"

MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)

# Annotations
REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
OUR_PREFIX = "dev.modelpack."
FORMAT_VERSION = OUR_PREFIX + "format"
METADATA_LAYER = OUR_PREFIX + "metadata"

DEFAULT_PLATFORM = "linux/amd64"

# distribution-spec asks registries to take manifests of 4 MiB and lets them refuse larger ones.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
# Sizes are int64 in Go implementations; a larger one cannot be real.
MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptor:
    """A reference to content by type, digest and size (image-spec, "Descriptor")."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Members this version does not know, kept so that a rewritten index loses nothing."""

    @classmethod
    def of(
        cls,
        data: bytes,
        *,
        media_type: str,
        annotations: Mapping[str, str] | None = None,
        artifact_type: str | None = None,
    ) -> "Descriptor":
        """Describe ``data``."""
        return cls(
            media_type=media_type,
            digest=Digest.of(data),
            size=len(data),
            annotations=annotations or {},
            artifact_type=artifact_type,
        )

    @classmethod
    def from_json(cls, value: object, where: str = "descriptor") -> "Descriptor":
        """Read a descriptor object; ``where`` names it in errors.

        Raises:
            FormatError: a member is missing, of the wrong type or out of bounds.
        """
        if not isinstance(value, dict):
            raise FormatError(f"{where} is not an object")
        media_type = value.get("mediaType")
        if not isinstance(media_type, str) or not media_type:
            raise FormatError(f"{where}.mediaType is missing")
        size = value.get("size")
        if type(size) is not int or not 0 <= size <= MAX_SIZE:
            raise FormatError(f"{where}.size is not a size: {size!r:.40}")
        try:
            digest = Digest.parse(value.get("digest"))
        except FormatError as error:
            raise FormatError(f"{where}: {error}") from error
        artifact_type = value.get("artifactType")
        if artifact_type is not None and not isinstance(artifact_type, str):
            raise FormatError(f"{where}.artifactType is not a string")
        known = {"mediaType", "digest", "size", "annotations", "artifactType"}
        return cls(
            media_type=media_type,
            digest=digest,
            size=size,
            annotations=string_map(value.get("annotations"), f"{where}.annotations"),
            artifact_type=artifact_type or None,
            extra={key: value[key] for key in value if key not in known},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as a JSON object, members in a fixed order."""
        value: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(sorted(self.annotations.items()))
        value.update(self.extra)
        return value


def string_map(value: object, where: str) -> dict[str, str]:
    """Read an optional JSON object of strings.

    Raises:
        FormatError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise FormatError(f"{where} is not an object of strings")
    return dict(value)
