"""What a model artifact is: its manifest, its image config, and reading one back.

Owns the mapping between a packed model and its OCI documents (docs/format.md); all of it is pure
but ``load_artifact``, which fetches the metadata layer. Leaves out packing and transferring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.chunkindex import ChunkIndex, decode_index
from modelpack.descriptor import (
    DEFAULT_PLATFORM,
    FORMAT_VERSION,
    METADATA_LAYER,
    OCI_CONFIG,
    OCI_LAYER_TAR,
    Descriptor,
)
from modelpack.errors import FormatError, UsageError
from modelpack.manifest import Manifest, canonical_json
from modelpack.metadata import CHUNKS, MAX_METADATA_BYTES, read_metadata_layer
from modelpack.storage import Fetcher

VERSION = "1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A model artifact that carries a valid chunk index for the layers it really has."""

    manifest: Manifest
    index: ChunkIndex
    metadata: Mapping[str, bytes]
    """The files of the metadata layer by name, the encoded index among them."""

    @property
    def data_layers(self) -> tuple[Descriptor, ...]:
        """The layers that hold the model's files."""
        return self.manifest.layers[:-1]

    @property
    def fetched_bytes(self) -> int:
        """What was fetched to know this much."""
        return len(self.manifest.raw) + self.manifest.layers[-1].size


def build_config(
    layers: Sequence[tuple[Descriptor, str]], *, platform: str = DEFAULT_PLATFORM
) -> bytes:
    """Return the image config for layers and their titles, in order.

    Raises:
        UsageError: ``platform`` is not OS/ARCHITECTURE[/VARIANT].
    """
    parts = platform.split("/")
    if len(parts) not in {2, 3} or not all(part.isalnum() for part in parts):
        raise UsageError(f"platform {platform!r} is not OS/ARCHITECTURE, such as linux/arm64")
    value: dict[str, Any] = {"architecture": parts[1], "os": parts[0]}
    if parts[2:]:
        value["variant"] = parts[2]
    value["config"] = {}
    value["rootfs"] = {
        "type": "layers",
        "diff_ids": [str(descriptor.digest) for descriptor, _ in layers],
    }
    value["history"] = [{"created_by": f"modelpack: {title}"} for _, title in layers]
    return canonical_json(value)


def build_manifest(
    *,
    config: bytes,
    data_layers: Sequence[Descriptor],
    metadata_layer: bytes,
    annotations: Mapping[str, str],
) -> Manifest:
    """Return the image manifest that goes to the tag."""
    metadata = Descriptor.of(metadata_layer, media_type=OCI_LAYER_TAR)
    return Manifest.build(
        config=Descriptor.of(config, media_type=OCI_CONFIG),
        layers=[*data_layers, metadata],
        annotations={
            **annotations,
            FORMAT_VERSION: VERSION,
            METADATA_LAYER: str(metadata.digest),
        },
    )


def is_packed(manifest: Manifest) -> bool:
    """Tell whether a manifest was written by modelpack, in any version."""
    return FORMAT_VERSION in manifest.annotations


def is_intact(manifest: Manifest) -> bool:
    """Tell whether the layers are those that were packed, not a copier's recompression."""
    return (
        bool(manifest.layers)
        and manifest.annotations.get(METADATA_LAYER) == str(manifest.layers[-1].digest)
        and all(layer.media_type == OCI_LAYER_TAR for layer in manifest.layers)
    )


def load_artifact(fetcher: Fetcher, manifest: Manifest) -> Artifact:
    """Fetch and validate the metadata layer of a packed, intact manifest.

    Raises:
        FormatError: a newer format, or an index that is invalid or belongs to other layers.
        IntegrityError: the layer's bytes do not have its digest.
    """
    version = manifest.annotations.get(FORMAT_VERSION)
    if version != VERSION:
        raise FormatError(
            f"manifest {manifest.digest} has format version {version!r:.40}, this modelpack reads "
            f"{VERSION}: update it"
        )
    raw = fetcher.fetch_blob(manifest.layers[-1], max_bytes=MAX_METADATA_BYTES)
    metadata = read_metadata_layer(raw)
    if CHUNKS not in metadata:
        raise FormatError(f"manifest {manifest.digest}: its metadata layer has no chunk index")
    index = decode_index(metadata[CHUNKS])
    promised = [(layer.digest, layer.size) for layer in index.layers]
    actual = [(layer.digest, layer.size) for layer in manifest.layers[:-1]]
    if promised != actual:
        raise FormatError(f"manifest {manifest.digest}: its chunk index describes other layers")
    return Artifact(manifest=manifest, index=index, metadata=metadata)
