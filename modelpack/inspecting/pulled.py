"""What a pulled directory or mounted volume says of itself in its ``.modelpack/``.

Owns reading the index, the manifest, the model's facts and the receipt, and proving that they
belong together. Leaves out the files themselves (``verifying.py`` hashes them).

    pulled = read_pulled(Path("model"))
    print(pulled.reference, len(pulled.present()))
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelpack import metadata
from modelpack.artifact import is_intact, is_packed
from modelpack.chunkindex import ChunkIndex, IndexedFile, decode_index
from modelpack.descriptor import OCI_MANIFEST
from modelpack.digest import Digest
from modelpack.errors import FormatError, IntegrityError, NotFoundError, UsageError
from modelpack.manifest import Manifest, load_json, parse_manifest
from modelpack.metadata import MAX_METADATA_BYTES
from modelpack.paths import METADATA_DIR
from modelpack.stores.destination import MANIFEST, STAGING
from modelpack.stores.files import Tree, mapped_errors
from modelpack.stores.receipts import Receipt, is_untouched, read_receipt

_LAYOUT_FILE = "oci-layout"


@dataclass(frozen=True, kw_only=True, slots=True)
class PulledDirectory:
    """A directory with the records that a pull, or a mount of the image, left in it."""

    path: Path
    index: ChunkIndex | None
    """None when what was pulled had none: another tool's artifact."""
    manifest: Manifest | None
    """None in a mounted volume; otherwise proved to cover the index, if it is intact."""
    metadata: Mapping[str, bytes]
    receipt: Receipt | None

    @property
    def reference(self) -> str | None:
        """What it was pulled from, if a receipt says so."""
        return self.receipt.reference if self.receipt else None

    @property
    def is_covered(self) -> bool:
        """Whether the manifest's digest covers the index: both are there, and it is intact."""
        manifest = self.manifest
        return (
            self.index is not None
            and manifest is not None
            and is_packed(manifest)
            and is_intact(manifest)
        )

    def needed_index(self) -> ChunkIndex:
        """Return the index.

        Raises:
            NotFoundError: there is none; the message says why.
        """
        if self.index is None:
            raise _no_index(self.path)
        return self.index

    def present(self) -> dict[str, bool]:
        """Return the index's files that are in place, and whether each looks untouched.

        By length and, where a receipt knows the file, by its times; nothing is read.
        """
        known = self.receipt.files if self.receipt else None
        found = {}
        tree = Tree(self.path)
        try:
            for file in self.index.files if self.index else ():
                if known is not None and file.path not in known:
                    continue
                status = _status(tree, file)
                if status is not None:
                    found[file.path] = status.st_size == file.size and (
                        known is None or is_untouched(known[file.path], status)
                    )
        finally:
            tree.close()
        return found


def has_index(directory: Path) -> bool:
    """Tell whether a directory has a chunk index of its own."""
    return os.path.isfile(directory / METADATA_DIR / metadata.CHUNKS)


def read_pulled(directory: Path) -> PulledDirectory:
    """Read a directory's records.

    Raises:
        NotFoundError: there is no such directory, or nothing of modelpack's in it.
        FormatError: a record is malformed.
        IntegrityError: the index is not the one that the manifest's digest covers.
    """
    with mapped_errors(f"cannot read {directory}"):
        tree = Tree(directory)
        try:
            files = {
                name: data
                for name in _names(tree)
                if metadata.is_name(name) and (data := _read(tree, name)) is not None
            }
            raw = _read(tree, MANIFEST)
        finally:
            tree.close()
    if metadata.CHUNKS not in files and raw is None:
        if os.path.isfile(directory / _LAYOUT_FILE):
            raise UsageError(f"{directory} is an OCI layout; write oci:{directory}:TAG")
        raise _no_index(directory)
    manifest = _manifest(directory, raw, files)
    index = decode_index(files[metadata.CHUNKS]) if metadata.CHUNKS in files else None
    return PulledDirectory(
        path=directory,
        index=index,
        manifest=manifest,
        metadata=files,
        receipt=read_receipt(directory),
    )


def _no_index(directory: Path) -> NotFoundError:
    state = directory / METADATA_DIR
    why = "it was not pulled by modelpack"
    if (state / STAGING).exists():
        why = "a pull into it is not finished; run it again"
    elif (state / MANIFEST).exists():
        why = "what was pulled had none; it cannot be checked offline"
    return NotFoundError(f"{directory} holds no {METADATA_DIR}/{metadata.CHUNKS}: {why}")


def _manifest(directory: Path, raw: bytes | None, files: Mapping[str, bytes]) -> Manifest | None:
    """Parse the manifest and prove that the metadata files rebuild its last layer."""
    if raw is None:
        return None
    try:
        value = load_json(raw, "manifest")
        own_type = value.get("mediaType") if isinstance(value, dict) else None
        manifest = parse_manifest(raw, own_type if isinstance(own_type, str) else OCI_MANIFEST)
    except FormatError as error:
        raise FormatError(f"{directory / METADATA_DIR / MANIFEST}: {error}") from error
    if not isinstance(manifest, Manifest):
        raise FormatError(f"{directory / METADATA_DIR / MANIFEST} is an index, not a manifest")
    if is_packed(manifest) and is_intact(manifest):
        rebuilt = Digest.of(metadata.build_metadata_layer(files))
        if rebuilt != manifest.layers[-1].digest:
            raise IntegrityError(
                f"{directory / METADATA_DIR}: the chunk index, facts or SBOM are not those of "
                f"manifest {manifest.digest}; pull again"
            )
    return manifest


def _status(tree: Tree, file: IndexedFile) -> os.stat_result | None:
    try:
        return tree.stat(file.path)
    except IntegrityError:
        return None


def _names(tree: Tree) -> list[str]:
    try:
        with tree.parent(f"{METADATA_DIR}/.") as (fd, _):
            return sorted(os.listdir(fd))
    except FileNotFoundError:
        return []


def _read(tree: Tree, name: str) -> bytes | None:
    path = f"{METADATA_DIR}/{name}"
    try:
        fd = tree.open(path)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        data = file.read(MAX_METADATA_BYTES + 1)
    if len(data) > MAX_METADATA_BYTES:
        raise FormatError(f"{tree.root / path} is larger than any real one")
    return data
