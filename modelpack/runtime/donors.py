"""Chunks in the snapshots of other models that a node has.

Owns finding them: which images are models of modelpack's, where their layers' files lie, and what
their chunk indexes say. Leaves out reading them: ``LocalChunks`` hashes every chunk it copies.

A snapshot that is read is held by a view under the import's lease, so that it cannot be collected
meanwhile.
"""

import logging
from collections.abc import Iterator

from modelpack.artifact import is_intact, is_packed
from modelpack.chunkindex import MAX_INDEX_BYTES, ChunkIndex, decode_index
from modelpack.descriptor import MANIFEST_TYPES, MAX_MANIFEST_BYTES
from modelpack.digest import ChunkHash, Digest
from modelpack.errors import ModelpackError
from modelpack.manifest import Manifest, parse_manifest
from modelpack.metadata import CHUNKS
from modelpack.reuse import LocalChunks
from modelpack.runtime.client import Containerd, ImageRecord
from modelpack.runtime.layers import read_metadata_files
from modelpack.runtime.records import chain_ids
from modelpack.runtime.workplace import Workplace

_logger = logging.getLogger(__name__)

# A node has some tens of models at most; each costs reading its index.
_MAX_DONORS = 64
# Each is an open directory, and 1024 descriptors are what a process may have by default.
_MAX_LAYERS = 400


def add_donors(
    place: Workplace, local: LocalChunks, wanted: set[ChunkHash], *, own: Digest, repository: str
) -> None:
    """Offer the chunks that other models on the node have of those wanted.

    Models of the same ``repository`` come first, since what has been asked for is most often
    another version of them. An image that cannot be read is passed over.
    """
    layers = 0
    for number, manifest in enumerate(_models(place.client, own, repository)):
        if number >= _MAX_DONORS:
            return
        try:
            layers += _add(place, local, wanted, manifest, number, _MAX_LAYERS - layers)
        except (ModelpackError, OSError) as error:
            _logger.debug("%s offers no chunks: %s", manifest.digest, error)
        if layers >= _MAX_LAYERS:
            return


def _models(client: Containerd, own: Digest, repository: str) -> Iterator[Manifest]:
    """Yield the manifests of modelpack's images, those of ``repository`` first."""
    records = client.images()
    records.sort(
        key=lambda record: not record.name.startswith((f"{repository}:", f"{repository}@"))
    )
    seen = {own}
    for record in records:
        if record.target.digest in seen or record.target.media_type not in MANIFEST_TYPES:
            continue
        seen.add(record.target.digest)
        manifest = _read_manifest(client, record)
        if manifest is not None and is_packed(manifest) and is_intact(manifest):
            yield manifest


def _read_manifest(client: Containerd, record: ImageRecord) -> Manifest | None:
    try:
        raw = client.read_content(record.target, max_bytes=MAX_MANIFEST_BYTES)
        manifest = parse_manifest(raw, record.target.media_type)
    except ModelpackError as error:
        _logger.debug("image %s cannot be read: %s", record.name, error)
        return None
    return manifest if isinstance(manifest, Manifest) else None


def _add(
    place: Workplace,
    local: LocalChunks,
    wanted: set[ChunkHash],
    manifest: Manifest,
    number: int,
    room: int,
) -> int:
    """Offer one model's chunks from at most ``room`` of its layers; return from how many."""
    chain = chain_ids(layer.digest for layer in manifest.layers)
    mounts = place.view(f"donor-{number}", chain[-1])
    directories = place.host.layer_directories(mounts, len(chain))
    index = decode_index(read_metadata_files(directories[-1], MAX_INDEX_BYTES)[CHUNKS])
    if [layer.digest for layer in index.layers] != [layer.digest for layer in manifest.layers[:-1]]:
        return 0
    useful = _useful_layers(index, wanted)[:room]
    for layer in useful:
        local.add_indexed(directories[layer], index, index.files_of_layer(layer))
    return len(useful)


def _useful_layers(index: ChunkIndex, wanted: set[ChunkHash]) -> list[int]:
    return sorted(
        {
            file.layer
            for file in index.files
            if any(index.hash_of(chunk) in wanted for chunk in file.chunks)
        }
    )
