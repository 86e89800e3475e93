"""Pulling: from a reference to verified files in a directory.

Owns the order of the steps (docs/format.md, "Pulling") and the results. Leaves out the parts:
planning, downloading, staging, placing. A manifest that modelpack did not pack, or whose layers a
copier has recompressed, goes through ``plainpull.py`` instead.

    result = pull(open_repository("localhost:5000/team/model:v1"), Path("model"))
    print(result.digest, result.fetched_bytes)
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelpack import plan
from modelpack.artifact import Artifact, is_intact, is_packed, load_artifact
from modelpack.chunkindex import ChunkIndex
from modelpack.errors import FormatError, NotFoundError, UsageError
from modelpack.events import Finished, Observer, Planned, Resolved, Warned, ignore, one_at_a_time
from modelpack.filling import check_layer, fill_staging
from modelpack.manifest import Index, Manifest
from modelpack.parallel import for_each
from modelpack.plainpull import Judge, plain_pull
from modelpack.plan import ChunkMap
from modelpack.ratelimit import RateLimiter
from modelpack.reference import Reference
from modelpack.reuse import LocalChunks
from modelpack.selection import Selection
from modelpack.storage import Repository
from modelpack.stores.destination import Destination, open_destination
from modelpack.stores.staging import Staging

_logger = logging.getLogger(__name__)

VERIFY_LEVELS = ("chunks", "full")

Gate = Callable[[Reference, Manifest], None]
"""Decides whether a manifest may be pulled, before any of its layers is fetched; raises if not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PullOptions:
    """How to pull."""

    selection: Selection = field(default_factory=Selection)
    seeds: tuple[Path, ...] = ()
    """Directories whose files may hold some of the chunks."""
    verify: str = "chunks"
    """``chunks``: BLAKE3 of every chunk that arrives. ``full``: also re-read what is in place, and
    the SHA-256 of every layer."""
    force: bool = False
    """Overwrite files that no pull put there."""
    max_connections: int | None = None
    limit_rate: int | None = None
    """Bytes per second over all connections."""
    page_cache: bool | None = True
    """Whether files are written through it, so that they can be read at once; None is as long as
    there is free memory for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PullResult:
    """What a pull did."""

    reference: str
    digest: str
    files: int
    bytes: int
    """Of all files that were asked for."""
    fetched_bytes: int
    """Body bytes off the wire, manifest and index included."""
    reused_bytes: int
    """Of file content that did not have to be fetched."""
    removed: int
    """Files of an earlier version that this one lacks."""
    verified: str
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {
            "reference": self.reference,
            "digest": self.digest,
            "files": self.files,
            "bytes": self.bytes,
            "fetched_bytes": self.fetched_bytes,
            "reused_bytes": self.reused_bytes,
            "removed": self.removed,
            "verified": self.verified,
            "warnings": list(self.warnings),
        }


def pull(
    repository: Repository,
    destination: Path,
    options: PullOptions | None = None,
    *,
    gate: Gate | None = None,
    judge: Judge | None = None,
    limiter: RateLimiter | None = None,
    observer: Observer = ignore,
) -> PullResult:
    """Bring a directory to the state of an artifact, and prove it.

    Idempotent: what is in place is left alone, and an interrupted pull goes on where it stopped.
    A normal return proves that every file asked for is complete, has the chunk hashes of an index
    that the manifest's digest covers, and is durable.

    ``judge`` is asked about the unpacked files of an artifact without a chunk index, into which
    ``gate`` could not look, before they get their names. A ``limiter``, which other transfers may
    share, takes the place of ``limit_rate``.

    Raises:
        NotFoundError: no such reference, or no file matches the selection.
        PolicyError: ``gate`` or ``judge`` refuses.
        IntegrityError: the registry's bytes are not what the manifest promises, or the
            destination holds a link where a file or directory must be.
        UsageError: the destination holds files that no pull put there.
        NetworkError, SpaceError: try again; what is verified is kept.
    """
    chosen = options or PullOptions()
    if chosen.verify not in VERIFY_LEVELS:
        raise UsageError(f"--verify takes {' or '.join(VERIFY_LEVELS)}, not {chosen.verify!r}")
    for seed in chosen.seeds:
        if not seed.is_dir():
            raise NotFoundError(f"--seed {seed} is not a directory")
    watcher = _Watcher(one_at_a_time(observer))
    manifest = resolve_model(repository, watcher)
    if gate is not None:
        gate(repository.reference, manifest)
    if not (is_packed(manifest) and is_intact(manifest)):
        return _pull_plain(repository, manifest, destination, chosen, judge, watcher)
    artifact = load_artifact(repository, manifest)
    selected = _select(artifact.index, chosen.selection)
    with open_destination(destination, watcher) as target:
        run = _Pull(repository, artifact, selected, target, chosen, limiter, watcher)
        return run.run()


def resolve_model(repository: Repository, observer: Observer) -> Manifest:
    """Fetch the manifest that a reference names.

    Raises:
        NotFoundError: there is none.
        FormatError: it is an index, which no model is.
    """
    reference = repository.reference
    name = reference.digest or reference.tag
    if name is None:
        raise UsageError(f"{reference} has neither tag nor digest")
    try:
        manifest = repository.fetch_manifest(name)
    except NotFoundError as error:
        raise NotFoundError(f"{error}; see: modelpack tags {reference.repository_name}") from error
    if isinstance(manifest, Index):
        listed = ", ".join(str(entry.digest) for entry in manifest.manifests[:3])
        raise FormatError(
            f"{reference} is an index of {len(manifest.manifests)} manifests, not a model; "
            f"pull one by digest ({listed})"
        )
    observer(Resolved(reference=str(reference), digest=manifest.digest))
    return manifest


class _Watcher:
    """Passes events on and keeps the warnings."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.warnings: list[str] = []

    def __call__(self, event: Any) -> None:
        if isinstance(event, Warned):
            self.warnings.append(event.message)
        self._observer(event)


class _Pull:
    """One pull of a packed artifact into a locked destination."""

    def __init__(
        self,
        repository: Repository,
        artifact: Artifact,
        selected: list[int],
        target: Destination,
        options: PullOptions,
        limiter: RateLimiter | None,
        observer: _Watcher,
    ) -> None:
        self._repository = repository
        self._artifact = artifact
        self._index = artifact.index
        self._selected = selected
        self._target = target
        self._options = options
        self._limiter = limiter
        self._observer = observer
        self._full = options.verify == "full"

    def run(self) -> PullResult:
        files = self._index.files
        set_of_selected = set(self._selected)
        kept = {
            number
            for number in self._selected
            if self._target.in_place(files[number], self._index, rehash=self._full)
        }
        missing = [number for number in self._selected if number not in kept]
        # A narrower selection fetches less; it does not take away what is there and right.
        beside = [
            file
            for number, file in enumerate(files)
            if number not in set_of_selected
            and self._target.owns(file.path)
            and self._target.in_place(file, self._index, rehash=self._full)
        ]
        wanted = [files[number].path for number in missing]
        if not self._options.force:
            self._target.refuse_strangers(wanted)
        self._target.check_way(wanted)
        reference = str(self._repository.reference)
        digest = str(self._artifact.manifest.digest)
        fetched = self._artifact.fetched_bytes
        self._moved = 0
        self._target.tell_of_edits(wanted)
        if missing:
            fetched += self._build(missing, kept)
        else:
            self._announce(None, kept)
        for number in kept:
            self._target.set_mode(files[number].path, files[number].mode)
        if self._full:
            verify_layers(self._target, self._artifact, self._selected)
        chosen = [files[number] for number in self._selected]
        removed = self._target.finish(
            reference=reference,
            digest=digest,
            manifest=self._artifact.manifest.raw,
            paths=[file.path for file in (*chosen, *beside)],
            selected=len(chosen) + len(beside) < len(files),
            metadata_files=self._artifact.metadata,
        )
        total = sum(file.size for file in chosen)
        return PullResult(
            reference=reference,
            digest=digest,
            files=len(chosen),
            bytes=total,
            fetched_bytes=fetched,
            reused_bytes=total - self._moved,
            removed=removed,
            verified=self._options.verify,
            warnings=tuple(self._observer.warnings),
        )

    def _build(self, missing: list[int], kept: set[int]) -> int:
        """Build the missing files in the staging directory and place them; return bytes read."""
        files = self._index.files
        chunk_map = ChunkMap.of(self._index)
        key = hashlib.sha256(str(self._artifact.manifest.layers[-1].digest).encode()).digest()
        staging = Staging(
            self._target.staging_path(key),
            key=key,
            chunk_map=chunk_map,
            files=missing,
            observer=self._observer,
        )
        local = self._local_chunks(missing, kept)
        try:
            received = fill_staging(
                self._repository,
                self._artifact,
                chunk_map=chunk_map,
                staging=staging,
                local=local,
                announce=lambda work: self._announce(work, kept),
                observer=self._observer,
                connections=self._options.max_connections or plan_connections(),
                max_connections=self._options.max_connections,
                limit_rate=self._options.limit_rate,
                limiter=self._limiter,
                page_cache=self._options.page_cache,
            )
        finally:
            local.close()
            staging.close()
        reference, digest = str(self._repository.reference), str(self._artifact.manifest.digest)
        self._target.begin_placing(reference, digest, [files[number].path for number in missing])
        for number in missing:
            self._target.place(staging.path(number), files[number].path, files[number].mode)
            self._observer(Finished(item=files[number].path))
        staging.remove()
        self._moved = staging.fetched_bytes
        return received

    def _local_chunks(self, missing: list[int], kept: set[int]) -> LocalChunks:
        index = self._index
        wanted = {
            index.hash_of(chunk) for number in missing for chunk in index.files[number].chunks
        }
        local = LocalChunks(wanted)
        if kept:
            local.add_indexed(self._target.path, index, [index.files[number] for number in kept])
        previous = self._target.previous
        if previous is not None:
            local.add_indexed(self._target.path, previous, previous.files)
        for seed in self._options.seeds:
            local.add_directory(seed)
        return local

    def _announce(self, work: plan.PullPlan | None, kept: set[int]) -> None:
        files = self._index.files
        total = sum(files[number].size for number in self._selected)
        self._observer(
            Planned(
                total_bytes=total,
                reused_bytes=total - (work.fetch_bytes if work else 0),
                items=tuple((files[number].path, files[number].size) for number in self._selected),
            )
        )
        for number in sorted(kept):
            self._observer(Finished(item=files[number].path))


def plan_connections() -> int:
    """Return how many connections to start with: two for each core, from 4 to 8.

    On two cores, four saturate a local registry; the governor adds more where the network is what
    limits.
    """
    return max(4, min(8, 2 * len(os.sched_getaffinity(0))))


def verify_layers(target: Destination, artifact: Artifact, selected: Sequence[int]) -> None:
    """Rebuild every layer's tar from the files in place and compare its SHA-256.

    Layers of which a file was not selected cannot be rebuilt and are passed over.

    Raises:
        IntegrityError: a layer differs, so its files are not those that were signed.
    """
    chosen = set(selected)
    files = artifact.index.files
    numbers = range(len(artifact.index.layers))
    by_layer: dict[int, list[int]] = {number: [] for number in numbers}
    for number, file in enumerate(files):
        by_layer[file.layer].append(number)
    whole = [layer for layer in numbers if chosen.issuperset(by_layer[layer])]

    def check(layer: int) -> None:
        members = [files[number] for number in by_layer[layer]]
        digest = artifact.index.layers[layer].digest
        check_layer(digest, members, target.tree.open, str(target.path))

    for_each(check, whole, os.cpu_count() or 1)


def _select(index: ChunkIndex, selection: Selection) -> list[int]:
    selected = [number for number, file in enumerate(index.files) if selection.takes(file.path)]
    if not selected:
        raise NotFoundError("no file of the artifact matches --include and --exclude")
    return selected


def _pull_plain(
    repository: Repository,
    manifest: Manifest,
    destination: Path,
    options: PullOptions,
    judge: Judge | None,
    observer: _Watcher,
) -> PullResult:
    if is_packed(manifest):
        observer(
            Warned(
                message="the layers were changed on the way here, probably recompressed by a "
                "copier; pulling them whole, verified by their own digests"
            )
        )
    done = plain_pull(
        repository,
        manifest,
        destination,
        selection=options.selection,
        force=options.force,
        observer=observer,
        judge=judge,
    )
    return PullResult(
        reference=str(repository.reference),
        digest=str(manifest.digest),
        files=done.files,
        bytes=done.bytes,
        fetched_bytes=done.fetched_bytes + len(manifest.raw),
        reused_bytes=0,
        removed=done.removed,
        verified="layers",
        warnings=tuple(observer.warnings),
    )
