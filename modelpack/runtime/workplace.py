"""The place where one model's import works: a lease, a lock and a staging snapshot.

Owns keeping what is half done from containerd's garbage collection, and from other processes that
import the same model; and leaving nothing behind. Leaves out what is done there.

The staging directory lies in a snapshot of its own, so it is on the snapshotter's file system,
carries its SELinux label, counts as containerd's disk use, and goes when containerd collects it.
Crash at any instant: the lease keeps the snapshot until it expires, and the next run for the same
model finds it, takes it over and goes on. The lock is one on the staging directory, which the
kernel frees when its holder dies.
"""

import fcntl
import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from modelpack.descriptor import OUR_PREFIX
from modelpack.digest import Digest
from modelpack.errors import AuthError, ModelpackError, NetworkError, UsageError
from modelpack.events import Observer, Warned
from modelpack.runtime.client import Containerd, Mount, SnapshotKind
from modelpack.runtime.grpcapi import AlreadyExistsError, MissingError
from modelpack.runtime.mounts import Host
from modelpack.runtime.records import SNAPSHOT_REF
from modelpack.stores.blocks import has_data
from modelpack.stores.staging import JOURNAL

_logger = logging.getLogger(__name__)

IMPORT_LABEL = OUR_PREFIX + "import"
"""On leases and unfinished snapshots: which model's import they belong to."""

_EXPIRE_LABEL = "containerd.io/gc.expire"
_STAGING = "staging"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What an abandoned import may hold on to: a day, plus what a slow line of 1 MB/s takes.
_LEASE_TIME = timedelta(days=1)
_SLOWEST_RATE = 1_000_000
# Others may take the place away between two of our steps only as often as they finish.
_MAX_ROUNDS = 100


def has_leftovers(client: Containerd, model: Digest) -> bool:
    """Tell whether an import of a model is running, or was interrupted and left something."""
    return bool(client.leases(IMPORT_LABEL, _short(model)))


def abandon(client: Containerd, host: Host, model: Digest) -> None:
    """Drop what an interrupted import of a model left; one that runs is left alone."""
    leases = client.leases(IMPORT_LABEL, _short(model))
    if not leases:
        return
    lock = -1
    try:
        with suppress(MissingError, FileNotFoundError):
            mounts = client.mounts(_key(_short(model), _STAGING))
            directory = host.writable_directory(mounts)
            lock = os.open(directory, _DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for lease in leases:
            client.delete_lease(lease, collect=lease == leases[-1])
    except BlockingIOError:
        _logger.debug("an import of %s runs", model)
    finally:
        if lock >= 0:
            os.close(lock)


class Workplace:
    """A context manager; inside it this process alone imports the model.

    ``client`` acts under the lease, ``staging`` is the staging directory.
    """

    def __init__(
        self,
        client: Containerd,
        host: Host,
        model: Digest,
        total_bytes: int,
        observer: Observer,
    ) -> None:
        """``total_bytes`` is what the import may have to download."""
        self.client = client
        self.staging = Path()
        self.host = host
        self.keep: bool | None = None
        """Whether a failure leaves the lease for the next run; None if that depends on staging.

        Snapshots that are committed but not recorded are worth it; damaged ones must not be held,
        or removing the image would not remove them.
        """
        self.leave = False
        """Whether a normal end, too, leaves lease and staging for the next run."""
        self._observer = observer
        self._model = _short(model)
        self._lifetime = _LEASE_TIME + timedelta(seconds=total_bytes // _SLOWEST_RATE)
        self._lock = -1
        self._waited = False

    @property
    def labels(self) -> dict[str, str]:
        """The labels of everything unfinished."""
        return {IMPORT_LABEL: self._model}

    def key(self, name: str) -> str:
        """Return the key of one of this import's unfinished snapshots."""
        return _key(self._model, name)

    def unfinished(self) -> list[str]:
        """Return the keys of active layer snapshots that an interrupted run left behind."""
        staging = self.key(_STAGING)
        return [
            item.name
            for item in self.client.snapshots(IMPORT_LABEL, self._model)
            if item.kind is SnapshotKind.ACTIVE and item.name != staging
        ]

    def drop_older_leases(self) -> None:
        """Give up what only interrupted runs held; call it once all of use is held anew."""
        for lease in self.client.leases(IMPORT_LABEL, self._model):
            if lease != self.client.lease:
                self.client.delete_lease(lease)

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> tuple[Mount, ...]:
        """Make an active snapshot under the lease, or take over the one of that key.

        Raises:
            AlreadyExistsError: the committed snapshot that the labels refer to is there.
            MissingError: there is no such parent, or another process has just removed the key.
        """
        try:
            return self.client.prepare(key, parent, {**self.labels, **labels})
        except AlreadyExistsError:
            target = labels.get(SNAPSHOT_REF)
            if target is not None and self.client.snapshot(target) is not None:
                raise
            self.client.hold_snapshot(key)
            return self.client.mounts(key)

    def view(self, name: str, snapshot: str) -> tuple[Mount, ...]:
        """Make a view of a committed snapshot, which the lease then keeps until the end."""
        key = self.key(f"view-{name}-{secrets.token_hex(4)}")
        return self.client.view(key, snapshot, self.labels)

    def __enter__(self) -> Self:
        for _ in range(_MAX_ROUNDS):
            try:
                if self._try_to_enter():
                    return self
            except MissingError:
                _logger.debug("the staging snapshot went away; making another")
            except BaseException:
                self._leave()
                raise
            self._leave()
        raise NetworkError("containerd keeps removing the import's snapshot; run again later")

    def _try_to_enter(self) -> bool:
        """Take the lease, the staging snapshot and the lock; False if another had the lock.

        Raises:
            MissingError: the snapshot went away under our hands, as when its user finished.
        """
        lease = f"modelpack-{self._model}-{secrets.token_hex(8)}"
        expires = datetime.now(UTC) + self._lifetime
        self.client = replace(self.client, lease=lease)
        self.client.create_lease(
            lease, {**self.labels, _EXPIRE_LABEL: expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
        )
        mounts = self.prepare(self.key(_STAGING), "", {})
        directory = self.host.writable_directory(mounts)
        self._lock = self._open(directory)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait(lease)
            return False
        # Whoever had the lock may have finished, and taken the snapshot along.
        if self.host.writable_directory(self.client.mounts(self.key(_STAGING))) != directory:
            return False
        self.staging = directory / _STAGING
        return True

    def _open(self, directory: Path) -> int:
        """Open the staging snapshot's directory.

        Raises:
            MissingError: containerd has removed it.
            UsageError: this process cannot see it.
            AuthError: this user may not enter it.
        """
        try:
            return os.open(directory, _DIRECTORY)
        except FileNotFoundError as error:
            self.client.mounts(self.key(_STAGING))
            raise UsageError(
                f"containerd keeps its files at {directory}, which cannot be seen from here; in a "
                "container, mount the node's file system and name it with --host-root"
            ) from error
        except PermissionError as error:
            raise AuthError(f"no permission to enter {directory}; run as root") from error

    def _wait(self, lease: str) -> None:
        """Wait until whoever has the lock has finished, holding nothing meanwhile."""
        if not self._waited:
            self._observer(Warned(message="another import of this model is running; waiting"))
            self._waited = True
        self.client.delete_lease(lease)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and not self.leave:
                self._clear()
            elif kind is not None and not self._holds_anything():
                with suppress(ModelpackError):  # the lease expires
                    self._clear()
        finally:
            self.client = replace(self.client, lease=None)
            os.close(self._lock)

    def _holds_anything(self) -> bool:
        """Tell whether there is something for the next run to go on with."""
        if self.keep is not None:
            return self.keep
        try:
            with os.scandir(self.staging) as entries:
                return any(entry.name != JOURNAL and _has_data(entry.path) for entry in entries)
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def _clear(self) -> None:
        """Remove what is left and the lease, and wait until containerd has collected it."""
        self.drop_older_leases()
        self.client.remove_snapshot(self.key(_STAGING))
        if self.client.lease is not None:
            replace(self.client, lease=None).delete_lease(self.client.lease, collect=True)

    def _leave(self) -> None:
        """Give up lock and lease; what the lease held is collected, unless another holds it."""
        lease = self.client.lease
        self.client = replace(self.client, lease=None)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if lease is not None:
            with suppress(ModelpackError):  # it expires
                self.client.delete_lease(lease)


def _key(model: str, name: str) -> str:
    return f"modelpack-{model}-{name}"


def _has_data(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return has_data(fd)
    finally:
        os.close(fd)


def _short(model: Digest) -> str:
    """Return what tells models apart in keys that people read: no two share so many digits."""
    return model.hex[:32]
