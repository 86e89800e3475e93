"""A layer's files in its snapshot, exactly as unpacking the layer's tar would leave them.

Owns owner, mode, times and directories of what the canonical tar (``tarformat.py``) holds, and
making it durable. Leaves out where the files come from and the snapshot's record.

Every path is walked below the snapshot's directory without following links, so that nothing is
written anywhere else, whatever the index says.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from modelpack.chunkindex import IndexedFile
from modelpack.errors import IntegrityError
from modelpack.paths import METADATA_DIR, parent_of
from modelpack.stores.blocks import SYNC_ALL_FROM, sync_file_system
from modelpack.stores.files import Tree, mapped_errors

# What every tar entry of an artifact says (tarformat.py).
_OWNER = 0
_TIMES = (0, 0)
_DIRECTORY_MODE = 0o755
_METADATA_MODE = 0o644
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def place_layer(root: Path, files: Iterable[tuple[IndexedFile, Path]]) -> None:
    """Move finished files into a snapshot's directory and make the layer durable.

    Each source must be a regular file on the same file system, whose bytes are durable.

    Raises:
        IntegrityError: something is in the way that was not put there by this program.
        SpaceError, ModelpackError: as the operating system says.
    """
    with mapped_errors(f"cannot write to {root}"):
        tree = Tree(root)
        try:
            paths = []
            for file, source in files:
                _finish_file(source, file.mode)
                with tree.parent(file.path, create=True) as (fd, name):
                    os.rename(source, name, dst_dir_fd=fd)
                paths.append(file.path)
            _finish_layer(tree, paths)
        finally:
            tree.close()


def place_metadata(root: Path, files: Mapping[str, bytes]) -> None:
    """Write the metadata layer's files into its snapshot's directory.

    Raises:
        SpaceError, ModelpackError: as the operating system says.
    """
    with mapped_errors(f"cannot write to {root}"):
        tree = Tree(root)
        try:
            paths = []
            for name, data in files.items():
                path = f"{METADATA_DIR}/{name}"
                with (
                    tree.parent(path, create=True) as (fd, last),
                    open(os.open(last, _NEW_FILE, 0o600, dir_fd=fd), "wb") as file,
                ):
                    file.write(data)
                    file.flush()
                    _set_attributes(file.fileno(), _METADATA_MODE)
                paths.append(path)
            _finish_layer(tree, paths)
        finally:
            tree.close()


def reclaim_layer(root: Path, files: Iterable[tuple[IndexedFile, Path]]) -> None:
    """Move the files of an unfinished layer back to where they were completed.

    What an interrupted run had placed is thereby not fetched again.
    """
    with mapped_errors(f"cannot use {root}"):
        tree = Tree(root)
        try:
            for file, source in files:
                status = tree.stat(file.path)
                if status is None or status.st_size != file.size or os.path.lexists(source):
                    continue
                with tree.parent(file.path) as (fd, name):
                    os.rename(name, source, src_dir_fd=fd)
        finally:
            tree.close()


def read_metadata_files(root: Path, max_bytes: int) -> dict[str, bytes]:
    """Return the files of a metadata layer's directory by name.

    Raises:
        IntegrityError: they are not there, or larger than ``max_bytes``, or no regular files.
    """
    with mapped_errors(f"cannot read {root}"):
        tree = Tree(root)
        try:
            with tree.parent(f"{METADATA_DIR}/.") as (fd, _):
                names = sorted(os.listdir(fd))
            return {name: _read(tree, f"{METADATA_DIR}/{name}", max_bytes) for name in names}
        except FileNotFoundError as error:
            raise IntegrityError(f"{root} holds no {METADATA_DIR} directory") from error
        finally:
            tree.close()


def _read(tree: Tree, path: str, max_bytes: int) -> bytes:
    status = tree.stat(path)
    if status is None or status.st_size > max_bytes:
        raise IntegrityError(f"{tree.root / path} is missing or too large")
    with open(tree.open(path), "rb") as file:
        return file.read(max_bytes)


def _finish_file(source: Path, mode: int) -> None:
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _set_attributes(fd, mode)
    finally:
        os.close(fd)


def _set_attributes(fd: int, mode: int) -> None:
    os.fchown(fd, _OWNER, _OWNER)
    os.fchmod(fd, mode)
    os.utime(fd, _TIMES)


def _finish_layer(tree: Tree, paths: Sequence[str]) -> None:
    """Give the directories what their entries say, and make all of it survive a power loss.

    Once one file system transaction is on disk, syncing what was in it costs next to nothing for
    each, which of very many is something all the same: these are synced with the file system.
    """
    one_by_one = len(paths) < SYNC_ALL_FROM
    for path in paths if one_by_one else ():
        fd = tree.open(path)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    directories: set[str] = set()
    for path in paths:
        directory = parent_of(path)
        while directory and directory not in directories:
            directories.add(directory)
            directory = parent_of(directory)
    for directory in sorted(directories, reverse=True):
        with tree.parent(f"{directory}/.") as (fd, _):
            _set_attributes(fd, _DIRECTORY_MODE)
            if one_by_one:
                os.fsync(fd)
    if one_by_one:
        os.fsync(tree.fd)
    else:
        sync_file_system(tree.fd)
