"""Where the text of a configuration comes from: the disk, or what was kept of it.

Owns which files of a directory count, bounds, and remembering what was read, so that a change is
noticed by comparing contents and the last good configuration can be kept. A directory may be a
mounted ConfigMap, whose files are links into ``..data`` that are all swapped at once.

    source = DiskSource()
    config = read_config(Path("/etc/modelpack/daemon.yaml"), source, os.environ)
    print("changed" if source.has_changed() else "unchanged")
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from modelpack.errors import NotFoundError, UsageError
from modelpack.prefetch.yamltext import MAX_DOCUMENT_BYTES

# A directory of one file for each model, for a large fleet; more is no configuration directory.
MAX_FILES = 1024
MAX_TOTAL_BYTES = 16 * 1024 * 1024
_SUFFIXES = (".yaml", ".yml")


class Source(Protocol):
    """Hands out files by their paths."""

    def files(self, path: Path) -> list[tuple[Path, bytes]]:
        """Return a file, or the YAML files of a directory in the order of their names.

        Raises:
            NotFoundError, UsageError: there is none, there is too much, or it cannot be read.
        """

    def read(self, path: Path) -> bytes:
        """Return one file's bytes; raises as ``files``."""


class DiskSource:
    """The disk, as it is now."""

    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}
        """What was handed out, by path."""
        self.refused: dict[str, str] = {}
        """What could not be, and why."""
        self.listed: dict[str, list[str]] = {}
        """The directories that were listed, and what counted in them."""

    def files(self, path: Path) -> list[tuple[Path, bytes]]:
        """Return a file, or the YAML files of a directory; see ``Source``."""
        if not path.is_dir():
            return [(path, self.read(path))]
        names = self.listed[str(path)] = _listing(path)
        return [(path / name, self.read(path / name)) for name in names]

    def read(self, path: Path) -> bytes:
        """Return one file's bytes; see ``Source``."""
        try:
            raw = self.taken[str(path)] = _read(path)
        except (NotFoundError, UsageError) as error:
            self.refused[str(path)] = str(error)
            raise
        if sum(map(len, self.taken.values())) > MAX_TOTAL_BYTES:
            raise UsageError(f"{path}: the configuration is larger than {MAX_TOTAL_BYTES} bytes")
        return raw

    def has_changed(self) -> bool:
        """Tell whether anything that was asked for is not the same any more."""
        if any(_why_not(Path(path)) != reason for path, reason in self.refused.items()):
            return True
        try:
            return any(_listing(Path(path)) != names for path, names in self.listed.items()) or any(
                _read(Path(path)) != raw for path, raw in self.taken.items()
            )
        except (NotFoundError, UsageError):
            return True

    def to_json(self) -> dict[str, Any]:
        """Return what ``KeptSource`` needs to hand out the same again; all files must be text."""
        return {
            "files": {path: raw.decode() for path, raw in self.taken.items()},
            "directories": self.listed,
        }


class KeptSource:
    """What was read before and kept."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        """Take what ``DiskSource.to_json`` gave.

        Raises:
            UsageError: it is something else.
        """
        files, directories = value.get("files"), value.get("directories")
        if not isinstance(files, dict) or not isinstance(directories, dict):
            raise UsageError("what was kept of the configuration cannot be read")
        self._files = {str(path): str(text).encode() for path, text in files.items()}
        self._directories: dict[str, list[Any]] = directories

    def files(self, path: Path) -> list[tuple[Path, bytes]]:
        """Return a file, or the YAML files of a directory, as they were; see ``Source``."""
        names = self._directories.get(str(path))
        if names is None:
            return [(path, self.read(path))]
        return [(path / str(name), self.read(path / str(name))) for name in names]

    def read(self, path: Path) -> bytes:
        """Return one file's bytes as they were; see ``Source``."""
        raw = self._files.get(str(path))
        if raw is None:
            raise NotFoundError(f"{path} is not among what was kept of the configuration")
        return raw


def _listing(directory: Path) -> list[str]:
    """Return the names of the files that count, without editors' and the kubelet's own (``..``)."""
    try:
        names = sorted(
            name
            for name in os.listdir(directory)
            if name.endswith(_SUFFIXES)
            and not name.startswith(".")
            and (directory / name).is_file()
        )
    except OSError as error:
        raise UsageError(f"{directory} cannot be read: {error.strerror}") from error
    if len(names) > MAX_FILES:
        raise UsageError(f"{directory} holds {len(names)} files; at most {MAX_FILES} are read")
    return names


def _why_not(path: Path) -> str | None:
    """Return why a file cannot be read, None if it can."""
    try:
        _read(path)
    except (NotFoundError, UsageError) as error:
        return str(error)
    return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"configuration {path} does not exist") from error
    except OSError as error:
        raise UsageError(f"configuration {path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise UsageError(f"{path} is larger than {MAX_DOCUMENT_BYTES} bytes")
    return raw
