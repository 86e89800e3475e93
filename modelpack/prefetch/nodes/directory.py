"""A directory as the place for models, for hostPath volumes and nodes without containerd.

Owns the layout of that directory. Leaves out pulling (``modelpack.pulling``), which does the work:

```text
versions/sha256-HEX/             a version, complete and verified; never changed
models/HOST/REPOSITORY@TAG       a link to the version that the reference means on this node
partial/sha256-HEX/              a version that is being fetched, or repaired
pinned/sha256-HEX                that somebody wants it kept
locks/sha256-HEX                 held while something of a version is changed
trash/                           what is being deleted
```

A link is switched in one step: whoever opens it gets the old version or the new one, and a volume
stays with the version it was mounted with. In a port's place HOST has ``@`` for ``:``.

    node = DirectoryNode(Path("/srv/models"), Network())
"""

import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modelpack.artifact import is_intact, is_packed
from modelpack.connect import open_repository
from modelpack.digest import Digest
from modelpack.errors import IntegrityError, ModelpackError, NotFoundError, UsageError
from modelpack.events import Event, Moved, Observer
from modelpack.manifest import Manifest
from modelpack.paths import METADATA_DIR
from modelpack.prefetch.config import Network
from modelpack.prefetch.node import (
    Damage,
    GoneError,
    Installed,
    InstallResult,
    InUseError,
    Part,
    Resolution,
)
from modelpack.prefetch.nodes.resolving import Resolver, connection_options, gate_for, pinned_to
from modelpack.prefetch.nodes.usedfiles import used_names
from modelpack.pulling import Gate, PullOptions, pull
from modelpack.ratelimit import RateLimiter
from modelpack.reference import Reference, RegistryReference, parse_reference
from modelpack.storage import Repository
from modelpack.stores.files import Tree, locked, make_directory, mapped_errors, sync_directory
from modelpack.verifying import verify_directory

_VERSION = re.compile(r"sha256-[0-9a-f]{64}")
_STRANGER = "a file that the model does not have"
_PLACES = ("versions", "models", "partial", "pinned", "locks", "trash")


class DirectoryNode:
    """A directory as a ``Node``."""

    kind = "directory"

    def __init__(
        self,
        path: Path,
        network: Network,
        *,
        host_root: Path = Path("/"),
        page_cache: bool | None = None,
    ) -> None:
        """Prepare; ``host_root`` is where the node's ``/proc`` is seen, ``path`` is as it is."""
        self._path = path
        self._page_cache = page_cache
        self._network = network
        self._proc = host_root / "proc"
        self._resolver = Resolver(network, _check_model)
        self._sizes: dict[str, int] = {}
        self._first_check = threading.Lock()
        self._checked = False

    def check(self) -> None:
        """Return if the directory can be written to; the first time, finish interrupted removals."""
        with mapped_errors(f"cannot use {self._path}"):
            for place in _PLACES:
                make_directory(self._path / place)
            with self._first_check:
                if not self._checked:
                    for entry in os.scandir(self._path / "trash"):
                        shutil.rmtree(entry.path)
                    self._checked = True

    def resolve(self, reference: str, *, gate: Gate | None) -> Resolution:
        """Look a reference up, and see that it has a chunk index to be held against later."""
        return self._resolver.resolve(reference, gate=gate)

    def install(
        self,
        reference: str,
        digest: Digest,
        *,
        gate: Gate | None,
        limiter: RateLimiter,
        observer: Observer,
        fetches: bool = True,
    ) -> InstallResult:
        """Pull a version beside the others, and switch the reference's link to it."""
        pinned = pinned_to(reference, digest)
        link = self._link_of(parse_reference(reference))
        self.check()
        with self._lock(digest):
            version, partial = self._version(digest), self._partial(digest)
            if version.is_dir():
                size = self._size(version)
                result = InstallResult(
                    digest=digest, bytes=size, fetched_bytes=0, reused_bytes=size
                )
            elif not fetches:
                raise GoneError(f"{digest} is not in {self._path} any more")
            else:
                options = PullOptions(
                    seeds=tuple(self._relatives(link)),
                    # What is here before may have been put here because it was damaged.
                    verify="full" if partial.is_dir() else "chunks",
                    max_connections=self._network.connections,
                    page_cache=self._page_cache,
                )
                connection = connection_options(self._network, reference)
                with open_repository(pinned, connection, observer=observer) as repository:
                    done = pull(
                        repository,
                        partial,
                        options,
                        gate=gate_for(reference, gate),
                        limiter=limiter,
                        observer=observer,
                    )
                with mapped_errors(f"cannot use {self._path}"):
                    os.rename(partial, version)
                    sync_directory(version.parent)
                result = InstallResult(
                    digest=digest,
                    bytes=done.bytes,
                    fetched_bytes=done.fetched_bytes,
                    reused_bytes=done.reused_bytes,
                )
            self._point(link, version)
        self.pin(digest, pinned=True)
        return result

    def models(self) -> tuple[Installed, ...]:
        """Return the versions that are here."""
        names = self._names()
        found = []
        for path in self._versions():
            size = self._size(path)
            found.append(
                Installed(
                    digest=_digest_of(path.name),
                    names=tuple(sorted(names.get(path.name, ()))),
                    parts=(Part(key=path.name, bytes=size),),
                    pinned=(self._path / "pinned" / path.name).exists(),
                )
            )
        for gone in self._sizes.keys() - {path.name for path in self._versions()}:
            self._sizes.pop(gone, None)
        return tuple(found)

    def mounted(self) -> frozenset[Digest]:
        """Return the versions that are mounted, open or mapped by other processes.

        That is what ``/proc`` below ``host_root`` shows: all of the node's processes for root in
        the host's PID namespace, or with the host's ``/proc``; from within a container without
        either, only the container's own, so that other pods are not seen. A volume mounted from
        another machine (NFS) is seen here only where this machine uses it. Where another mount
        namespace has this whole directory, every version counts.
        """
        used = used_names(self._proc, self._path / "versions", _VERSION)
        here = [path.name for path in self._versions()]
        return frozenset(_digest_of(name) for name in here if used.whole or name in used.names)

    def remove(self, digest: Digest) -> None:
        """Remove a version and the links to it, unless ``mounted`` sees it in use."""
        version = self._version(digest)
        if not version.is_dir():
            return
        self._refuse_used(digest)
        links = [link for link in self._links() if os.readlink(link).endswith(version.name)]
        trash = self._path / "trash" / f"{version.name}.{secrets.token_hex(4)}"
        with self._lock(digest), mapped_errors(f"cannot remove {version}"):
            for link in links:
                link.unlink()
            os.rename(version, trash)
            try:
                # A process that began before this is seen under the old path or the new one.
                self._refuse_used(digest, at=trash.name)
            except InUseError:
                os.rename(trash, version)
                for link in links:
                    self._point(link, version)
                raise
            self.pin(digest, pinned=False)
            shutil.rmtree(trash)

    def pin(self, digest: Digest, *, pinned: bool) -> None:
        """Remember that somebody wants a version kept; nothing else here collects."""
        mark = self._path / "pinned" / self._version(digest).name
        with mapped_errors(f"cannot write {mark}"):
            if pinned:
                mark.touch()
            else:
                mark.unlink(missing_ok=True)

    def abandon(self, digest: Digest) -> None:
        """Drop what an interrupted install has left, unless one runs."""
        partial = self._partial(digest)
        with suppress(BlockingIOError), self._lock(digest, wait=False):
            if partial.is_dir():
                shutil.rmtree(partial)

    def unfinished_bytes(self) -> int:
        """Return the disk that unfinished and half-deleted versions take."""
        return sum(_disk_use(self._path / place) for place in ("partial", "trash"))

    def free_bytes(self) -> int:
        """Return what the directory's file system has left."""
        with mapped_errors(f"cannot use {self._path}"):
            status = os.statvfs(self._path)
        return status.f_bavail * status.f_frsize

    def scrub(
        self, digest: Digest, *, limiter: RateLimiter, stop: Callable[[], bool]
    ) -> tuple[Damage, ...]:
        """Hash a version's files again and hold them against its index."""
        version = self._version(digest)
        if not version.is_dir():
            raise NotFoundError(f"{self._path} has no model {digest}")

        def pace(event: Event) -> None:
            if stop():
                raise _StoppedError
            if isinstance(event, Moved):
                limiter.take(event.size)

        try:
            report = verify_directory(version, observer=pace)
        except _StoppedError:
            return ()
        except (IntegrityError, NotFoundError) as error:
            return (Damage(digest=digest, path=METADATA_DIR, reason=str(error)),)
        found = [(path, "it is missing") for path in report.missing]
        found += [(path, "it has other bytes") for path in report.changed]
        found += [(path, _STRANGER) for path in report.extra]
        return tuple(Damage(digest=digest, path=path, reason=why) for path, why in found)

    def quarantine(self, digest: Digest, damage: Iterable[Damage]) -> None:
        """Take the links to a version away, and the version to where it is repaired.

        What has it mounted keeps it, and sees the files that the repair replaces.
        """
        version, partial = self._version(digest), self._partial(digest)
        with self._lock(digest), mapped_errors(f"cannot use {version}"):
            for link in self._links():
                if os.readlink(link).endswith(version.name):
                    link.unlink()
            if version.is_dir() and not partial.exists():
                os.rename(version, partial)
            if partial.is_dir():
                self._clear_away(partial, damage)

    def _clear_away(self, partial: Path, damage: Iterable[Damage]) -> None:
        """Remove what the pull that repairs would leave, or stop at: strangers and links."""
        tree = Tree(partial)
        try:
            for item in damage:
                if item.reason == _STRANGER or os.path.islink(partial / item.path):
                    tree.unlink(item.path)
        finally:
            tree.close()

    def _refuse_used(self, digest: Digest, at: str | None = None) -> None:
        name = at or self._version(digest).name
        used = used_names(self._proc, self._path / "versions", re.compile(re.escape(name)))
        if used.whole or used.names:
            raise InUseError(f"{digest} in {self._path} is in use by a process of this node")

    @contextmanager
    def _lock(self, digest: Digest, *, wait: bool = True) -> Iterator[None]:
        path = self._path / "locks" / self._version(digest).name
        with mapped_errors(f"cannot use {self._path}", but=(BlockingIOError,)):
            make_directory(path.parent)
            with locked(path, wait=wait):
                yield

    def _version(self, digest: Digest) -> Path:
        return self._path / "versions" / f"{digest.algorithm}-{digest.hex}"

    def _partial(self, digest: Digest) -> Path:
        return self._path / "partial" / f"{digest.algorithm}-{digest.hex}"

    def _versions(self) -> list[Path]:
        with suppress(FileNotFoundError):
            return sorted(
                path
                for path in (self._path / "versions").iterdir()
                if _VERSION.fullmatch(path.name)
            )
        return []

    def _link_of(self, reference: Reference) -> Path:
        if not isinstance(reference, RegistryReference):
            raise UsageError(f"{reference} has no registry, which its path on the node begins with")
        *above, name = reference.repository.split("/")
        tag = reference.tag or str(reference.digest).replace(":", "-")
        host = reference.registry.replace(":", "@")
        return self._path.joinpath("models", host, *above, f"{name}@{tag}")

    def _links(self) -> list[Path]:
        found = []
        for directory, names, files in os.walk(self._path / "models"):
            for name in (*names, *files):
                path = Path(directory, name)
                if path.is_symlink():
                    found.append(path)
        return found

    def _names(self) -> dict[str, set[str]]:
        """Return the references that lead to each version."""
        found: dict[str, set[str]] = {}
        for link in self._links():
            host, _, rest = link.relative_to(self._path / "models").as_posix().partition("/")
            repository, _, tag = rest.rpartition("@")
            separator, tag = ("@", tag.replace("-", ":")) if _VERSION.match(tag) else (":", tag)
            name = f"{host.replace('@', ':')}/{repository}{separator}{tag}"
            found.setdefault(os.path.basename(os.readlink(link)), set()).add(name)
        return found

    def _relatives(self, link: Path) -> list[Path]:
        """Return the versions of the same repository, whose chunks will do."""
        prefix = link.name.rpartition("@")[0]
        return sorted(
            {
                Path(os.path.realpath(other))
                for other in self._links()
                if other.parent == link.parent
                and other.name.rpartition("@")[0] == prefix
                and other.is_dir()
            }
        )

    def _point(self, link: Path, version: Path) -> None:
        """Make or switch a link, in one step."""
        with mapped_errors(f"cannot write {link}"):
            make_directory(link.parent)
            temporary = link.with_name(f".{secrets.token_hex(4)}")
            os.symlink(os.path.relpath(version, link.parent), temporary)
            os.replace(temporary, link)
            sync_directory(link.parent)

    def _size(self, version: Path) -> int:
        if version.name not in self._sizes:
            self._sizes[version.name] = _disk_use(version)
        return self._sizes[version.name]


class _StoppedError(ModelpackError):
    """A scrub was told to stop."""


def _check_model(repository: Repository, manifest: Manifest) -> None:
    """Prove that an image is one that a policy can look into, and that can be scrubbed."""
    if not (is_packed(manifest) and is_intact(manifest)):
        raise UsageError(
            f"{repository.reference} is not as modelpack packed it, so that what is on the node "
            "could not be checked again; pack it, or copy it with modelpack copy"
        )


def _digest_of(name: str) -> Digest:
    return Digest.parse(name.replace("-", ":", 1))


def _disk_use(directory: Path) -> int:
    total = 0
    for place, names, files in os.walk(directory):
        for name in (*names, *files):
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total
