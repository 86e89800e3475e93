"""Copying artifacts between registries and layouts, as they are.

Owns walking from a manifest to all that belongs to it: its blobs, its companion tag and, unless
told otherwise, its referrers (signatures, SBOMs) with theirs. Digests stay what they are, because
nothing is rewritten. Leaves out where things live (``storage.Repository``).

    report = copy_artifact(source, destination)
    print(report.uploaded_bytes)
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from modelpack.content import PIECE_BYTES
from modelpack.descriptor import Descriptor
from modelpack.digest import Digest
from modelpack.errors import InterruptedTransferError, NotFoundError, UsageError
from modelpack.events import Event, Finished, Moved, Observer, Planned, Resolved, ignore
from modelpack.manifest import Index, Manifest
from modelpack.parallel import for_each
from modelpack.reference import COMPANION_SUFFIX
from modelpack.storage import Repository, iterate

_PARALLEL_BLOBS = 4
# A signature of a signature of a signature is as deep as anything goes.
_MAX_REFERRER_DEPTH = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyResult:
    """What a copy did."""

    source: str
    reference: str
    digest: str
    manifests: int
    referrers: int
    bytes: int
    uploaded_bytes: int
    reused_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass
class _Graph:
    """Everything to copy, children before parents."""

    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    manifests: dict[Digest, Manifest | Index] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)
    referrers: int = 0


class RemoteContent:
    """A blob of another repository as content that can be read again from any offset."""

    def __init__(self, source: Repository, descriptor: Descriptor) -> None:
        self._source = source
        self._descriptor = descriptor

    @property
    def size(self) -> int:
        """Total bytes."""
        return self._descriptor.size

    def pieces(self, start: int = 0) -> Iterator[memoryview]:
        """Yield the bytes from ``start`` on; the target verifies them."""
        with self._source.open_blob(self._descriptor, start) as stream:
            yield from iterate(stream, PIECE_BYTES)


def copy_artifact(
    source: Repository,
    target: Repository,
    *,
    with_referrers: bool = True,
    observer: Observer = ignore,
) -> CopyResult:
    """Copy what a reference names, with its companion and referrers, to another reference.

    The target's tag is set last. A source named by digest alone keeps its digest, and the target
    may then go without a tag.

    Raises:
        NotFoundError: the source does not exist, or lacks a blob of its own.
        IntegrityError: bytes of the source are not what their digest says.
    """
    name = source.reference.digest or source.reference.tag
    if name is None:
        raise UsageError(f"{source.reference} has neither tag nor digest")
    tag = target.reference.tag
    if target.reference.digest is not None:
        raise UsageError(f"{target.reference}: a copy's target takes a tag, not a digest")
    graph = _Graph()
    root = source.fetch_manifest(name)
    observer(Resolved(reference=str(source.reference), digest=root.digest))
    _collect(source, root, graph)
    if tag is not None:
        graph.tags[tag] = root.digest
        _collect_companion(source, root, tag, graph)
    if with_referrers:
        for digest in list(graph.manifests):
            _collect_referrers(source, digest, graph, _MAX_REFERRER_DEPTH)
    moved = _copy_blobs(source, target, graph, observer)
    tagged = set(graph.tags.values())
    for digest, manifest in graph.manifests.items():
        if digest not in tagged:
            target.push_manifest(manifest)
    for name_, digest in sorted(graph.tags.items(), key=lambda item: item[1] == root.digest):
        target.push_manifest(graph.manifests[digest], name_)
    if root.digest not in tagged:
        target.push_manifest(root)
    total = sum(blob.size for blob in graph.blobs.values())
    return CopyResult(
        source=str(source.reference),
        reference=str(target.reference),
        digest=str(root.digest),
        manifests=len(graph.manifests),
        referrers=graph.referrers,
        bytes=total,
        uploaded_bytes=moved,
        reused_bytes=total - moved,
    )


def _collect(source: Repository, manifest: Manifest | Index, graph: _Graph) -> None:
    """Add a manifest and all that it names, children first."""
    if manifest.digest in graph.manifests:
        return
    if isinstance(manifest, Index):
        for entry in manifest.manifests:
            _collect(source, source.fetch_manifest(entry.digest), graph)
    else:
        for blob in (manifest.config, *manifest.layers):
            graph.blobs.setdefault(blob.digest, blob)
    graph.manifests[manifest.digest] = manifest


def _collect_companion(source: Repository, root: Manifest | Index, tag: str, graph: _Graph) -> None:
    """Add the ModelPack companion, if the source has one over the same layers."""
    if isinstance(root, Index) or source.reference.tag is None:
        return
    try:
        companion = source.fetch_manifest(source.reference.tag + COMPANION_SUFFIX)
    except NotFoundError:
        return
    if isinstance(companion, Index):
        return
    layers = {layer.digest for layer in root.layers}
    if all(layer.digest in layers for layer in companion.layers):
        _collect(source, companion, graph)
        graph.tags[tag + COMPANION_SUFFIX] = companion.digest


def _collect_referrers(source: Repository, digest: Digest, graph: _Graph, depth: int) -> None:
    if depth == 0:
        return
    for entry in source.referrers(digest):
        if entry.digest in graph.manifests:
            continue
        manifest = source.fetch_manifest(entry.digest)
        _collect(source, manifest, graph)
        graph.referrers += 1
        _collect_referrers(source, entry.digest, graph, depth - 1)


def _copy_blobs(source: Repository, target: Repository, graph: _Graph, observer: Observer) -> int:
    """Bring all blobs over, several at once; return the bytes that moved."""
    lock = threading.Lock()
    stop = threading.Event()
    moved = 0

    def tell(event: Event) -> None:
        with lock:
            observer(event)

    def copy(blob: Descriptor) -> None:
        nonlocal moved
        item = str(blob.digest)
        if target.has_blob(blob) or target.mount_blob(blob, source.reference):
            tell(Moved(item=item, size=blob.size, reused=True))
        else:

            def progress(size: int) -> None:
                if stop.is_set():
                    raise InterruptedTransferError("stopped")
                tell(Moved(item=item, size=size))

            target.push_blob(blob, RemoteContent(source, blob), progress)
            with lock:
                moved += blob.size
        tell(Finished(item=item))

    blobs = list(graph.blobs.values())
    observer(
        Planned(
            total_bytes=sum(blob.size for blob in blobs),
            reused_bytes=0,
            items=tuple((str(blob.digest), blob.size) for blob in blobs),
        )
    )
    for_each(copy, blobs, _PARALLEL_BLOBS, stop=stop)
    return moved
