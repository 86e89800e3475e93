"""Writing files so that a crash leaves the old or the new one, and paths that cannot escape.

Owns the temp-fsync-rename-fsync sequence and walking below a directory without following links.
Leaves out what the files hold.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType

from modelpack.errors import (
    IntegrityError,
    ModelpackError,
    NotFoundError,
    SpaceError,
    UsageError,
)
from modelpack.paths import LOST_AND_FOUND, METADATA_DIR

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Without O_NONBLOCK a FIFO in a file's place would hold the open until somebody writes to it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}", re.DOTALL)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def mapped_errors(
    what: str, *, but: tuple[type[OSError], ...] = ()
) -> contextlib.AbstractContextManager[None]:
    """Turn the operating system's errors into the project's, naming ``what``.

    Raises:
        SpaceError: no space, over quota, or a file larger than the file system takes.
        ModelpackError: anything else the operating system reports.
        OSError: of a kind in ``but``, as it is.
    """
    return _MappedErrors(what, but)


class _MappedErrors:
    # Not a generator: this surrounds single system calls, of which there may be a million.
    __slots__ = ("_but", "_what")

    def __init__(self, what: str, but: tuple[type[OSError], ...]) -> None:
        self._what = what
        self._but = but

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError) or isinstance(error, self._but):
            return
        if error.errno in NO_SPACE:
            raise SpaceError(
                f"{self._what}: {error.strerror}; free some space and run again"
            ) from error
        raise ModelpackError(f"{self._what}: {error.strerror or error}") from error


def temporary_beside(path: Path) -> Path:
    """Return a new name in the same directory, for a file that gets its own name when it is whole."""
    return path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``; after a crash it is the old file or the new one.

    Raises:
        SpaceError, ModelpackError: as the operating system says; the old file is untouched.
    """
    with mapped_errors(f"cannot write {path}"):
        temporary = temporary_beside(path)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_directory(path.parent)


def is_own_directory(path: Path) -> bool:
    """Tell whether a path is a directory and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def check_own_directory(path: Path, *, or_of: Collection[int] = ()) -> None:
    """Prove that nobody else (but the users ``or_of``) can swap what is in a directory.

    Raises:
        IntegrityError: it is a link, no directory, or somebody else's.
    """
    if not is_own_directory(path):
        raise IntegrityError(f"{path} is not a directory of its own; remove it first")
    # Some servers decide who owns what is made on them (NFS): ask, rather than compare with geteuid.
    with tempfile.TemporaryFile(dir=path) as probe:
        mine = os.fstat(probe.fileno()).st_uid
    if os.lstat(path).st_uid not in {mine, *or_of}:
        raise IntegrityError(
            f"{path} belongs to another user, who could change what is verified in it; "
            "remove it first"
        )


def remove_leftovers(directory: Path) -> None:
    """Remove what ``write_atomically`` left when it was killed; nobody else may write there now."""
    for name in os.listdir(directory):
        if _TEMPORARY.fullmatch(name):
            os.unlink(directory / name)


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, durably; do nothing where it is."""
    if path.is_dir():
        return
    if path.parent != path:
        make_directory(path.parent)
    path.mkdir(exist_ok=True)
    with contextlib.suppress(PermissionError):  # one may write in a directory one may not read
        sync_directory(path.parent)


def files_below(directory: Path) -> Iterator[str]:
    """Yield every path below a directory that is no directory, '/'-separated.

    What is modelpack's own or the file system's is passed over: ``.modelpack``, ``lost+found``.
    """
    pending = [""]
    while pending:
        relative = pending.pop()
        place = directory / relative
        with mapped_errors(f"cannot read {place}"), os.scandir(place) as found:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for name, is_directory in entries:
            path = f"{relative}/{name}" if relative else name
            if path in {METADATA_DIR, LOST_AND_FOUND}:
                continue
            if is_directory:
                pending.append(path)
            else:
                yield path


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on a file, which the kernel frees when the process dies.

    Yields whether the lock was had at once; with ``wait`` False a held lock raises BlockingIOError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            at_once = True
        except BlockingIOError:
            if not wait:
                raise
            fcntl.flock(fd, fcntl.LOCK_EX)
            at_once = False
        yield at_once
    finally:
        os.close(fd)


class Tree:
    """A directory, below which paths are walked one name at a time and links never followed.

    Every method takes a '/'-separated path below the root. A link met on the way, or a directory
    where a file should be, raises IntegrityError: nothing is read or written through it. What the
    operating system refuses raises ModelpackError.
    """

    def __init__(self, root: Path) -> None:
        """Open ``root``, which must be a directory (or a link to one: the user named it).

        Raises:
            NotFoundError, UsageError: there is none, or it is something else.
        """
        try:
            with mapped_errors(f"cannot read {root}", but=(NotADirectoryError, FileNotFoundError)):
                self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise UsageError(f"{root} is not a directory") from error
        except FileNotFoundError as error:
            raise NotFoundError(f"{root} does not exist") from error
        self.root = root

    def close(self) -> None:
        """Give the directory up."""
        os.close(self.fd)

    @contextlib.contextmanager
    def parent(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Open the directory that holds ``path``; yield its descriptor and the last name.

        Raises:
            FileNotFoundError: a directory on the way is missing, and ``create`` is False.
        """
        fd, name = self._open_parent(path, create=create)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def stat(self, path: str) -> os.stat_result | None:
        """Return a regular file's status, None if there is nothing.

        Raises:
            IntegrityError: there is something that is no regular file.
        """
        try:
            with self._readable(path):
                fd, name = self._open_parent(path)
                try:
                    return self._stat_at(fd, name, path)
                finally:
                    os.close(fd)
        except FileNotFoundError:
            return None

    def take_in(self, source: Path, path: str) -> None:
        """Move a file that lies elsewhere on the file system to a path, where a file may be.

        Raises:
            IntegrityError: there is something that is no regular file.
        """
        with mapped_errors(f"cannot write {self.root}/{path}"):
            fd, name = self._open_parent(path, create=True)
            try:
                with contextlib.suppress(FileNotFoundError):
                    self._stat_at(fd, name, path)
                os.rename(source, name, dst_dir_fd=fd)
            finally:
                os.close(fd)

    def holds(self, path: str) -> bool:
        """Tell whether there is anything at a path, be it a file or not."""
        try:
            return self.stat(path) is not None
        except IntegrityError:
            return True

    def open(self, path: str) -> int:
        """Open a regular file for reading and return its descriptor.

        Raises:
            FileNotFoundError: there is nothing.
            IntegrityError: there is something that is no regular file.
        """
        with self._readable(path), self.parent(path) as (fd, name):
            try:
                found = os.open(name, _READ, dir_fd=fd)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise IntegrityError(f"{self.root / path} is a symlink") from error
                if error.errno == errno.ENXIO:
                    raise IntegrityError(f"{self.root / path} is no regular file") from error
                raise
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise IntegrityError(f"{self.root / path} is no regular file")
        return found

    def unlink(self, path: str) -> None:
        """Remove a file, and the directories that are empty without it."""
        with (
            contextlib.suppress(FileNotFoundError),
            mapped_errors(f"cannot remove {self.root / path}", but=(FileNotFoundError,)),
            self.parent(path) as (fd, name),
        ):
            os.unlink(name, dir_fd=fd)
        above = path.rpartition("/")[0]
        while above:
            try:
                with self.parent(above) as (fd, name):
                    os.rmdir(name, dir_fd=fd)
            except OSError:
                return
            above = above.rpartition("/")[0]

    def _open_parent(self, path: str, *, create: bool = False) -> tuple[int, str]:
        *directories, name = path.split("/")
        fd = os.dup(self.fd)
        try:
            for directory in directories:
                inner = self._enter(fd, directory, path, create=create)
                os.close(fd)
                fd = inner
        except BaseException:
            os.close(fd)
            raise
        return fd, name

    def _stat_at(self, fd: int, name: str, path: str) -> os.stat_result:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise IntegrityError(
                f"{self.root / path} is {_kind(status.st_mode)} where the artifact has a file; "
                "remove it first"
            )
        return status

    def _readable(self, path: str) -> contextlib.AbstractContextManager[None]:
        # Joining paths takes longer than the call that this is about.
        return mapped_errors(f"cannot read {self.root}/{path}", but=(FileNotFoundError,))

    def _enter(self, fd: int, name: str, path: str, *, create: bool) -> int:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=fd)
        try:
            return os.open(name, _DIRECTORY, dir_fd=fd)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise IntegrityError(
                    f"{self.root / path}: {name!r} on the way is a symlink or a file, "
                    "not a directory; remove it first"
                ) from error
            raise


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symlink"
    return "a directory" if stat.S_ISDIR(mode) else "a special file"
