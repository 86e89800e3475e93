"""Small results that are expensive to compute again, kept between runs in the user's cache.

Owns the directory, atomic writes and pruning. Leaves out what is kept: callers choose keys that
change whenever the result would. A lost or damaged entry costs time, never correctness.
"""

import contextlib
import logging
import os
import re
import tempfile
from pathlib import Path

from blake3 import blake3

_logger = logging.getLogger(__name__)
# Entries are a few KiB; beyond this many, the ones unused for longest go.
MAX_ENTRIES = 4096
_KIND = re.compile(r"[a-z]+\Z")


def cache_home() -> Path:
    """Return the user's cache directory for modelpack (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "modelpack"
    try:
        home = Path.home()
    except RuntimeError:  # a user of a container that no passwd lists; nothing will be kept
        home = Path("/")
    return home / ".cache" / "modelpack"


class Cache:
    """A key-value store of one kind of result; every failure is a miss."""

    def __init__(self, kind: str, *, home: Path | None = None) -> None:
        if not _KIND.match(kind):
            raise ValueError(f"{kind!r} is no kind of cache entry")
        self._directory = (home or cache_home()) / kind

    def get(self, key: bytes) -> bytes | None:
        """Return what was put under ``key``, or None."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        checksum, value = data[:32], data[32:]
        if blake3(value).digest() != checksum:
            _logger.debug("dropping a damaged cache entry %s", path)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Keep ``value`` under ``key``, replacing what was there."""
        path = self._path(key)
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd, temporary = tempfile.mkstemp(dir=self._directory, prefix=".")
            with os.fdopen(fd, "wb") as file:
                file.write(blake3(value).digest() + value)
            os.replace(temporary, path)
            self._prune()
        except OSError as error:
            _logger.debug("cannot write to the cache %s: %s", self._directory, error)

    def _path(self, key: bytes) -> Path:
        return self._directory / blake3(key).hexdigest()

    def _prune(self) -> None:
        entries = [entry for entry in os.scandir(self._directory) if entry.is_file()]
        if len(entries) <= MAX_ENTRIES:
            return
        entries.sort(key=lambda entry: entry.stat().st_mtime_ns)
        for entry in entries[: MAX_ENTRIES // 4]:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
