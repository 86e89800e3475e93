"""From an artifact to committed snapshots: the files of each layer under the layer's chain ID.

Owns what is there already, what has to be fetched, and moving files into snapshots one layer at a
time. Leaves out holding it all (``workplace.py``) and telling containerd that it is an image
(``records.py``).

The names of snapshots are a hash chain, so those that are there are always the lowest ones; they
are kept, whoever made them.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelpack.artifact import Artifact
from modelpack.chunkindex import ChunkIndex
from modelpack.errors import IntegrityError, NetworkError
from modelpack.events import Finished, Observer, Planned
from modelpack.filling import check_layer, fill_staging
from modelpack.metadata import MAX_METADATA_BYTES, build_metadata_layer
from modelpack.parallel import for_each
from modelpack.plan import ChunkMap
from modelpack.pulling import plan_connections
from modelpack.ratelimit import RateLimiter
from modelpack.registry.options import ConnectionOptions
from modelpack.reuse import LocalChunks
from modelpack.runtime.damage import is_sound, set_aside
from modelpack.runtime.donors import add_donors
from modelpack.runtime.grpcapi import AlreadyExistsError, MissingError
from modelpack.runtime.layers import (
    place_layer,
    place_metadata,
    read_metadata_files,
    reclaim_layer,
)
from modelpack.runtime.options import NothingHereError
from modelpack.runtime.records import SNAPSHOT_REF
from modelpack.runtime.workplace import Workplace
from modelpack.storage import Repository
from modelpack.stores.files import Tree, mapped_errors
from modelpack.stores.staging import Staging

# Each takes a containerd that dies within the same few milliseconds.
_COMMIT_TRIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """What building took."""

    imported_bytes: int = 0
    """Of the files in snapshots that were made."""
    received_bytes: int = 0
    """Off the wire, those thrown away included."""
    content_bytes: int = 0
    """Of file content that came over the wire."""


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds the snapshots of one artifact in a workplace; ``name`` is its repository's."""

    place: Workplace
    repository: Repository
    artifact: Artifact
    chain: Sequence[str]
    name: str
    fetch: bool
    seeds: Sequence[Path]
    full: bool
    connection: ConnectionOptions
    limiter: RateLimiter | None
    page_cache: bool | None
    observer: Observer

    @property
    def _index(self) -> ChunkIndex:
        return self.artifact.index

    def run(self) -> Built:
        """Make the snapshots that are not there; a normal return proves that all are.

        Raises:
            IntegrityError: what arrived, or with ``full`` what is there, is not what was signed.
            NetworkError, SpaceError: try again; what is verified is kept.
            NothingHereError: something is missing, and nothing may be fetched.
        """
        present = self._present()
        if not self.fetch:
            # What is there has a name that holds it; a lease that stays would outlive that.
            self.place.keep = False
            if present < len(self.chain):
                raise NothingHereError(f"{self.name} is not in containerd any more")
        missing = [number for number, file in enumerate(self._index.files) if file.layer >= present]
        self._take_over(set(missing))
        set_aside(self.place, self.chain[present:], present, self._index)
        # Nothing is held by the leases of interrupted runs alone any more.
        self.place.drop_older_leases()
        if self.full:
            self._check_present(present)
        if present == len(self.chain):
            announce(self._index, (), fetch_bytes=0, observer=self.observer)
            return Built()
        chunk_map = ChunkMap.of(self._index)
        key = hashlib.sha256(str(self.artifact.manifest.layers[-1].digest).encode()).digest()
        staging = Staging(
            self.place.staging, key=key, chunk_map=chunk_map, files=missing, observer=self.observer
        )
        try:
            received = self._fill(staging, chunk_map)
        finally:
            staging.close()
        if self.full:
            self._check_staged(staging, present)
        for layer in range(present, len(self.chain)):
            self._commit(layer, staging)
        staging.remove()
        return Built(
            imported_bytes=sum(self._index.files[number].size for number in missing),
            received_bytes=received,
            content_bytes=staging.fetched_bytes,
        )

    # What is there

    def _present(self) -> int:
        """Return how many of the lowest layers have their snapshots, and hold those."""
        client = self.place.client
        for number in reversed(range(len(self.chain))):
            if not is_sound(client.snapshot(self.chain[number])):
                continue
            with suppress(MissingError):  # collected at this very moment
                client.hold_snapshot(self.chain[number])
                self.place.keep = True
                return number + 1
        return 0

    def _take_over(self, missing: set[int]) -> None:
        """Move what an interrupted run placed in unfinished snapshots back to staging."""
        place = self.place
        unfinished = set(place.unfinished())
        for layer in range(len(self.chain)):
            key = self._key(layer)
            if key not in unfinished:
                continue
            with mapped_errors(f"cannot use {place.staging}"):
                place.staging.mkdir(mode=0o700, exist_ok=True)
            root = place.host.writable_directory(place.client.mounts(key))
            files = [number for number in self._numbers(layer) if number in missing]
            reclaim_layer(
                root,
                [(self._index.files[number], place.staging / str(number)) for number in files],
            )
            place.client.remove_snapshot(key)

    # What is fetched

    def _fill(self, staging: Staging, chunk_map: ChunkMap) -> int:
        index = self._index
        wanted = {index.hash_of(chunk) for n in staging.files for chunk in index.files[n].chunks}
        local = LocalChunks(wanted)
        try:
            add_donors(
                self.place,
                local,
                wanted,
                own=self.artifact.manifest.digest,
                repository=self.name,
            )
            for seed in self.seeds:
                local.add_directory(seed)
            return fill_staging(
                self.repository,
                self.artifact,
                chunk_map=chunk_map,
                staging=staging,
                local=local,
                announce=lambda work: announce(
                    index, staging.files, fetch_bytes=work.fetch_bytes, observer=self.observer
                ),
                observer=self.observer,
                connections=self.connection.max_connections or plan_connections(),
                max_connections=self.connection.max_connections,
                limit_rate=self.connection.limit_rate,
                limiter=self.limiter,
                page_cache=self.page_cache,
            )
        finally:
            local.close()

    # What is committed

    def _commit(self, layer: int, staging: Staging) -> None:
        """Put a layer's files into a snapshot and give it its name."""
        tries = 1
        while not self._try_to_commit(layer, staging):
            if tries == _COMMIT_TRIES:
                raise NetworkError(
                    f"containerd has lost a snapshot {tries} times while it was committed; see "
                    "whether it keeps restarting, then run again"
                )
            tries += 1
        self.place.keep = True
        for number in self._numbers(layer):
            self.observer(Finished(item=self._index.files[number].path))

    def _try_to_commit(self, layer: int, staging: Staging) -> bool:
        """Commit a layer; False if containerd has lost the snapshot, and the files are back."""
        client, name, key = self.place.client, self.chain[layer], self._key(layer)
        labels = {SNAPSHOT_REF: name}
        try:
            mounts = self.place.prepare(key, self.chain[layer - 1] if layer else "", labels)
        except AlreadyExistsError:  # containerd pulls the same image, and was faster
            client.hold_snapshot(name)
            return True
        except MissingError:  # as below, and this process was killed as well
            client.remove_snapshot(key)
            return False
        root = self.place.host.writable_directory(mounts)
        files = [(self._index.files[n], staging.path(n)) for n in self._numbers(layer)]
        if layer == len(self._index.layers):
            place_metadata(root, self.artifact.metadata)
        else:
            place_layer(root, files)
        try:
            client.commit(key, name, labels)
        except AlreadyExistsError:
            client.remove_snapshot(key)
            client.hold_snapshot(name)
        except MissingError:
            # Killed between its two databases, containerd has the snapshot under neither name: the
            # one has it committed, the other does not know. Its directory is there for a while.
            if client.snapshot(name) is None:
                reclaim_layer(root, files)
                client.remove_snapshot(key)
                return False
        return True

    # What is verified once more

    def _check_present(self, present: int) -> None:
        """Prove that the snapshots that are there rebuild their layers."""
        if not present:
            return
        mounts = self.place.view("check", self.chain[present - 1])
        roots = self.place.host.layer_directories(mounts, present)

        def check(layer: int) -> None:
            if layer == len(self._index.layers):
                self._check_metadata(roots[layer])
                return
            tree = Tree(roots[layer])
            try:
                self._check_layer(layer, tree.open, str(roots[layer]))
            finally:
                tree.close()

        try:
            for_each(check, range(present), os.cpu_count() or 1)
        except (IntegrityError, FileNotFoundError) as error:
            self.place.keep = False
            raise IntegrityError(
                f"a snapshot of {self.name} on this node is damaged; remove the image (crictl rmi)"
                f" and pull it again: {error}"
            ) from error

    def _check_staged(self, staging: Staging, present: int) -> None:
        """Prove that the files about to be placed rebuild their layers."""
        numbers = {file.path: number for number, file in enumerate(self._index.files)}

        def open_file(path: str) -> int:
            return os.open(staging.path(numbers[path]), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

        def check(layer: int) -> None:
            self._check_layer(layer, open_file, self.name)

        for_each(check, range(present, len(self._index.layers)), os.cpu_count() or 1)

    def _check_layer(self, layer: int, open_file: Callable[[str], int], where: str) -> None:
        files = [self._index.files[number] for number in self._numbers(layer)]
        check_layer(self._index.layers[layer].digest, files, open_file, where)

    def _check_metadata(self, root: Path) -> None:
        files = read_metadata_files(root, MAX_METADATA_BYTES)
        layer = self.artifact.manifest.layers[-1].digest
        layer.check(build_metadata_layer(files), f"the metadata files in {root}")

    # Names

    def _key(self, layer: int) -> str:
        return self.place.key(f"layer-{layer}")

    def _numbers(self, layer: int) -> list[int]:
        """Return the numbers of a layer's files; the metadata layer has none."""
        return [number for number, file in enumerate(self._index.files) if file.layer == layer]


def announce(
    index: ChunkIndex, missing: Sequence[int], *, fetch_bytes: int, observer: Observer
) -> None:
    """Tell the observer what an import will move, and which files are there already."""
    observer(
        Planned(
            total_bytes=index.total_bytes,
            reused_bytes=index.total_bytes - fetch_bytes,
            items=tuple((file.path, file.size) for file in index.files),
        )
    )
    waiting = set(missing)
    for number, file in enumerate(index.files):
        if number not in waiting:
            observer(Finished(item=file.path))
