"""The two sides of a comparison: what is at a reference, in a pulled directory, or in a plain one.

Owns opening them as an index and a way to read chunks. Leaves out comparing.

    with directory_side(Path("model")) as side:
        print(side.version.kind, len(side.version.numbers))
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelpack import layering
from modelpack.artifact import is_intact, is_packed, load_artifact
from modelpack.cache import Cache
from modelpack.chunkindex import ChunkIndex, IndexedFile, build_index, encode_index
from modelpack.diffing.report import Version
from modelpack.errors import FormatError, IntegrityError, InterruptedTransferError
from modelpack.events import Event, Observer, Planned, ignore
from modelpack.inspecting.indexedfile import ReadChunk, layer_chunks, tree_chunks
from modelpack.inspecting.pulled import has_index, read_pulled
from modelpack.layering import SourceFile
from modelpack.metadata import CHUNKS, build_metadata_layer
from modelpack.packing import Cores, PackedLayer, pack_layer
from modelpack.parallel import for_each
from modelpack.pulling import resolve_model
from modelpack.scan import ScannedFile, scan_directory
from modelpack.storage import Repository
from modelpack.stores.files import Tree, mapped_errors

# Enough to keep a disk busy.
_LAYERS_AT_ONCE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """A version to compare, and how to read its chunks."""

    version: Version
    read_chunk: ReadChunk
    warnings: tuple[str, ...] = ()


def reference_side(repository: Repository, *, observer: Observer = ignore) -> Side:
    """Return the artifact at a repository's reference; usable while the repository is open.

    Raises:
        NotFoundError: there is nothing.
        FormatError: it was not packed by modelpack, so it has no chunk index.
        IntegrityError: a copier changed its layers, so that its index no longer holds.
    """
    manifest = resolve_model(repository, observer)
    reference = str(repository.reference)
    if not is_packed(manifest):
        raise FormatError(
            f"{reference} was not packed by modelpack and has no chunk index to compare; "
            "pull it and name the directory"
        )
    if not is_intact(manifest):
        raise IntegrityError(
            f"{reference}: its layers are not those that were packed (a copier recompressed them?); "
            "pull it and name the directory"
        )
    artifact = load_artifact(repository, manifest)
    version = Version(
        name=reference,
        kind="artifact",
        digest=str(manifest.digest),
        index=artifact.index,
        numbers=tuple(range(len(artifact.index.files))),
        index_bytes=artifact.fetched_bytes,
    )
    return Side(version=version, read_chunk=layer_chunks(repository, artifact))


@contextmanager
def directory_side(
    directory: Path, *, use_cache: bool = True, observer: Observer = ignore
) -> Iterator[Side]:
    """Open a directory: by its index if it was pulled, else by hashing it as a push would.

    With ``use_cache``, a file that push or diff has hashed and nobody touched since is not read.

    Raises:
        NotFoundError: there is no such directory, or nothing in it.
        FormatError: something in it cannot be packed; the message holds its path.
        IntegrityError: its records contradict each other, or a file changed while it was read.
    """
    if not has_index(directory):
        yield _plain_side(directory, use_cache=use_cache, observer=observer)
        return
    with mapped_errors(f"cannot read {directory}"):
        tree = Tree(directory)
    try:
        yield _pulled_side(directory, tree)
    finally:
        tree.close()


def _pulled_side(directory: Path, tree: Tree) -> Side:
    pulled = read_pulled(directory)
    index, manifest = pulled.index, pulled.manifest
    assert index is not None
    in_place = pulled.present()
    touched = sorted(path for path, untouched in in_place.items() if not untouched)
    warnings = [
        f"{directory}: {path!a} was changed since it was pulled; compared is what was pulled"
        for path in touched
    ]
    if pulled.receipt is not None and not pulled.receipt.complete:
        warnings.append(f"{directory}: a pull into it is not finished; run it again")
    version = Version(
        name=str(directory),
        kind="pulled",
        digest=str(manifest.digest) if manifest else None,
        index=index,
        numbers=tuple(number for number, file in enumerate(index.files) if file.path in in_place),
        index_bytes=(
            len(manifest.raw) + manifest.layers[-1].size
            if manifest is not None and pulled.is_covered
            else len(build_metadata_layer(pulled.metadata))
        ),
    )
    return Side(version=version, read_chunk=tree_chunks(tree, index), warnings=tuple(warnings))


def _plain_side(directory: Path, *, use_cache: bool, observer: Observer) -> Side:
    """Hash a directory; its index is the one that a push would store."""
    scan = scan_directory(directory)
    sources = {file.path: file for file in scan.files}
    plan = layering.plan_layers(
        SourceFile(path=file.path, size=file.size, mode=file.mode) for file in scan.files
    )
    observer(
        Planned(
            total_bytes=sum(file.size for file in scan.files),
            reused_bytes=0,
            items=tuple((file.path, file.size) for file in scan.files),
        )
    )
    cache = Cache("layers") if use_cache else None
    lock = threading.Lock()
    stop = threading.Event()

    def tell(event: Event) -> None:
        if stop.is_set():
            raise InterruptedTransferError("stopped")
        with lock:
            observer(event)

    packed: dict[int, PackedLayer] = {}
    with Cores() as cores:

        def pack(number: int) -> None:
            packed[number] = pack_layer(
                plan[number], sources, cache=cache, observer=tell, cores=cores
            )

        for_each(pack, range(len(plan)), _LAYERS_AT_ONCE, stop=stop)
    layers = [packed[number] for number in range(len(plan))]
    index = build_index(
        plan,
        [layer.descriptor.digest for layer in layers],
        (chunks for layer in layers for chunks in layer.chunks),
    )
    version = Version(
        name=str(directory),
        kind="plain",
        digest=None,
        index=index,
        numbers=tuple(range(len(index.files))),
        index_bytes=len(build_metadata_layer({CHUNKS: encode_index(index)})),
    )
    return Side(version=version, read_chunk=_source_chunks(index, sources))


def _source_chunks(index: ChunkIndex, sources: Mapping[str, ScannedFile]) -> ReadChunk:
    """Return a way to read chunks of scanned files, whose links are resolved already."""

    def read_chunk(file: IndexedFile, chunk: int) -> bytes:
        source = sources[file.path].source
        with mapped_errors(f"cannot read {source}"):
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                return os.pread(fd, index.lengths[chunk], index.offsets[chunk])
            finally:
                os.close(fd)

    return read_chunk
