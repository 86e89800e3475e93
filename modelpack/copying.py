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
from modelpack.errors import FormatError, InterruptedTransferError, NotFoundError, UsageError
from modelpack.events import Finished, Moved, Observer, Planned, Resolved, ignore, one_at_a_time
from modelpack.manifest import Index, Manifest
from modelpack.parallel import for_each
from modelpack.reference import companion_tag
from modelpack.signing.names import signature_tag
from modelpack.storage import Repository, iterate

_PARALLEL_BLOBS = 4
# A signature of a signature of a signature is as deep as anything goes, and an index of indexes.
_MAX_DEPTH = 4
# An image for every platform, with signatures and SBOMs of each, is some hundred of a few KiB.
MAX_MANIFESTS = 2000
MAX_MANIFEST_TOTAL = 64 * 1024 * 1024


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
    size: int = 0
    """Bytes of all manifests, which are held in memory."""

    def add(self, manifest: Manifest | Index) -> None:
        """Take a manifest in.

        Raises:
            FormatError: there are more than belong to any artifact.
        """
        self.size += len(manifest.raw)
        if len(self.manifests) >= MAX_MANIFESTS or self.size > MAX_MANIFEST_TOTAL:
            raise FormatError(
                f"the artifact has more than {MAX_MANIFESTS} manifests and referrers, or more than "
                f"{MAX_MANIFEST_TOTAL} bytes of them; copy one by its digest, or --no-referrers"
            )
        self.manifests[manifest.digest] = manifest


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
    observer = one_at_a_time(observer)
    graph = _Graph()
    root = source.fetch_manifest(name)
    observer(Resolved(reference=str(source.reference), digest=root.digest))
    _collect(source, root, graph)
    if tag is not None:
        graph.tags[tag] = root.digest
        _collect_companion(source, root, tag, graph)
    if with_referrers:
        for digest in list(graph.manifests):
            _collect_referrers(source, digest, graph, _MAX_DEPTH)
        _collect_older_signature(source, root.digest, graph)
    moved = _copy_blobs(source, target, graph, observer)
    tagged = set(graph.tags.values())
    for digest, manifest in graph.manifests.items():
        if digest not in tagged:
            target.push_manifest(manifest)
    for name_, digest in sorted(graph.tags.items(), key=lambda item: item[1] == root.digest):
        target.push_manifest(graph.manifests[digest], name_)
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


def _collect(
    source: Repository, manifest: Manifest | Index, graph: _Graph, depth: int = _MAX_DEPTH
) -> None:
    """Add a manifest and all that it names, children first."""
    if manifest.digest in graph.manifests:
        return
    if depth == 0:
        raise FormatError(f"manifest {manifest.digest}: indexes are nested too deeply")
    if isinstance(manifest, Index):
        for entry in manifest.manifests:
            if entry.digest not in graph.manifests:
                _collect(source, source.fetch_manifest(entry.digest), graph, depth - 1)
    else:
        for blob in (manifest.config, *manifest.layers):
            graph.blobs.setdefault(blob.digest, blob)
    graph.add(manifest)


def _collect_companion(source: Repository, root: Manifest | Index, tag: str, graph: _Graph) -> None:
    """Add the ModelPack companion, if the source has one over the same layers."""
    if isinstance(root, Index) or source.reference.tag is None:
        return
    try:
        companion = source.fetch_manifest(companion_tag(source.reference.tag))
    except (NotFoundError, UsageError):  # a tag that leaves no room for it has none
        return
    if isinstance(companion, Index):
        return
    layers = {layer.digest for layer in root.layers}
    if all(layer.digest in layers for layer in companion.layers):
        _collect(source, companion, graph)
        graph.tags[companion_tag(tag)] = companion.digest


def _collect_referrers(source: Repository, digest: Digest, graph: _Graph, depth: int) -> None:
    if depth == 0:
        return
    for entry in source.referrers(digest):
        if entry.digest in graph.manifests:
            continue
        manifest = source.fetch_manifest(entry.digest)
        # A registry may list anything; only the manifest itself can say what it refers to.
        if isinstance(manifest, Index) or not _refers(manifest, digest):
            continue
        _collect(source, manifest, graph)
        graph.referrers += 1
        _collect_referrers(source, entry.digest, graph, depth - 1)


def _refers(manifest: Manifest, digest: Digest) -> bool:
    return manifest.subject is not None and manifest.subject.digest == digest


def _collect_older_signature(source: Repository, digest: Digest, graph: _Graph) -> None:
    """Add the signature that is found by its tag alone, if there is one."""
    tag = signature_tag(digest)
    try:
        signature = source.fetch_manifest(tag)
    except NotFoundError:
        return
    _collect(source, signature, graph)
    graph.tags[tag] = signature.digest


def _copy_blobs(source: Repository, target: Repository, graph: _Graph, observer: Observer) -> int:
    """Bring all blobs over, several at once; return the bytes that moved."""
    lock = threading.Lock()
    stop = threading.Event()
    moved = 0

    def copy(blob: Descriptor) -> None:
        nonlocal moved
        item = str(blob.digest)
        if target.has_blob(blob) or target.mount_blob(blob, source.reference):
            observer(Moved(item=item, size=blob.size, reused=True))
        else:

            def progress(size: int) -> None:
                if stop.is_set():
                    raise InterruptedTransferError("stopped")
                observer(Moved(item=item, size=size))

            target.push_blob(blob, RemoteContent(source, blob), progress)
            with lock:
                moved += blob.size
        observer(Finished(item=item))

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
