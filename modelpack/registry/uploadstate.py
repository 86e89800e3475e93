"""Remembering unfinished uploads between runs, so that a push that was killed goes on.

Owns one small file for each blob being uploaded, in the user's cache directory, locked while its
upload runs. Leaves out the protocol (``uploads.py``). A lost or damaged file costs time, never
correctness: the registry says how many bytes it has, and checks the digest at the end.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from modelpack.cache import cache_home
from modelpack.digest import Digest
from modelpack.errors import FormatError
from modelpack.manifest import load_json

# Registries drop unfinished uploads after a week at most (distribution's default purge age).
MAX_AGE = 7 * 24 * 3600.0
_MAX_BYTES = 64 * 1024
_logger = logging.getLogger(__name__)


class UploadState:
    """Where one blob's upload stands; every failure to keep it is ignored."""

    def __init__(self, fd: int | None, path: Path, identity: dict[str, str]) -> None:
        self._fd = fd
        self._path = path
        self._identity = identity

    @classmethod
    @contextlib.contextmanager
    def claim(
        cls, registry: str, repository: str, digest: Digest, *, home: Path | None = None
    ) -> Iterator["UploadState"]:
        """Hold the state of one upload; a second holder gets one that remembers nothing."""
        identity = {"registry": registry, "repository": repository, "digest": str(digest)}
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        directory = (home or cache_home()) / "uploads"
        path = directory / name
        fd = None
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            _prune(directory)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            _logger.debug("the upload of %s will not be remembered: %s", digest, error)
            if fd is not None:
                os.close(fd)
                fd = None
        try:
            yield cls(fd, path, identity)
        finally:
            if fd is not None:
                os.close(fd)

    def load(self) -> str | None:
        """Return the remembered upload location, if any."""
        if self._fd is None:
            return None
        try:
            value = load_json(os.pread(self._fd, _MAX_BYTES, 0), "upload state")
        except (OSError, FormatError):
            return None
        if not isinstance(value, dict):
            return None
        if any(value.get(key) != wanted for key, wanted in self._identity.items()):
            return None
        location, saved = value.get("location"), value.get("time")
        fresh = isinstance(saved, int | float) and abs(time.time() - saved) < MAX_AGE
        return location if fresh and isinstance(location, str) and location else None

    def save(self, location: str, offset: int) -> None:
        """Remember where the upload stands."""
        if self._fd is None:
            return
        value = {**self._identity, "location": location, "offset": offset, "time": time.time()}
        data = json.dumps(value).encode()
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, len(data))

    def forget(self) -> None:
        """Forget the upload: it is finished, or the registry has dropped it."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
                self._path.unlink()


def _prune(directory: Path) -> None:
    """Remove what no registry remembers any more."""
    oldest = time.time() - MAX_AGE
    for entry in os.scandir(directory):
        with contextlib.suppress(OSError):
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.unlink(entry.path)
