"""The metadata that a recompressed copy still carries in its last layer.

Owns unpacking that one small layer within bounds. Leaves out the other layers, which can only be
read whole (``plainpull.py``).
"""

from typing import cast

from modelpack.descriptor import Descriptor
from modelpack.errors import FormatError, IntegrityError
from modelpack.manifest import Manifest
from modelpack.metadata import MAX_METADATA_BYTES
from modelpack.paths import METADATA_DIR
from modelpack.storage import Repository, VerifyingStream
from modelpack.untar import Decompressed, decompressed, entries, is_metadata

# The metadata of an artifact of 4 GiB compresses to some 40 KiB; a layer beyond this is a weight.
_MAX_COMPRESSED_BYTES = 64 * 1024 * 1024


def carried_metadata(
    repository: Repository, manifest: Manifest, warnings: list[str]
) -> tuple[dict[str, bytes], int]:
    """Return the files of a recompressed metadata layer by name, and the bytes fetched for them.

    A layer that is not one, or no longer last, gives no files and a warning.
    """
    if not manifest.layers or manifest.layers[-1].size > _MAX_COMPRESSED_BYTES:
        warnings.append(f"manifest {manifest.digest}: its last layer is not the metadata layer")
        return {}, 0
    layer = manifest.layers[-1]
    try:
        return _unpack(repository, layer), layer.size
    except FormatError as error:
        warnings.append(f"layer {layer.digest}: {error}; files are not shown")
        return {}, layer.size


def _unpack(repository: Repository, layer: Descriptor) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with repository.open_blob(layer) as raw:
        stream = _Bounded(decompressed(VerifyingStream(raw, layer), layer.media_type))
        # entries() only reads and drains, which is what _Bounded offers
        for path, size, _, content in entries(cast("Decompressed", stream)):
            if not is_metadata(path):
                raise FormatError("holds other files than the metadata")
            data = content.read()
            if len(data) != size:
                raise IntegrityError(f"layer {layer.digest}: {path!a} is cut short")
            found[path.removeprefix(f"{METADATA_DIR}/")] = data
    return found


class _Bounded:
    """A decompressed layer that ends in an error rather than filling the memory."""

    def __init__(self, inner: Decompressed) -> None:
        self._inner = inner
        self._left = MAX_METADATA_BYTES

    def read(self, size: int) -> bytes:
        data = self._inner.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise FormatError(f"unpacks to more than {MAX_METADATA_BYTES} bytes")
        return data

    def drain(self) -> None:
        while self.read(64 * 1024):
            continue
