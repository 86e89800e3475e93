"""Spec files: their names, bounded reading and atomic writing.

Owns one file at a time. Leaves out directories and precedence (:mod:`cdi.cache`) and the text
itself (:mod:`cdi.parse`, :mod:`cdi.emit`).

>>> from cdi.spec import Spec
>>> spec = Spec(cdi_version="0.5.0", kind="nvidia.com/gpu", devices=())
>>> spec_file_name(spec), spec_file_name(spec, transient_id="claims/7", syntax="json")
('nvidia.com-gpu.yaml', 'nvidia.com-gpu_claims_7.json')
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from cdi.emit import to_json_text, to_yaml
from cdi.errors import (
    CdiError,
    CdiNotFoundError,
    CdiUsageError,
    InvalidSpecError,
    SpecWriteError,
)
from cdi.names import split_kind
from cdi.parse import MAX_SPEC_BYTES, Syntax, parse_spec, syntax_of, too_large
from cdi.spec import Spec
from cdi.validate import require_valid

# Rootless runtimes and monitoring read specs too, so a private mode hides the devices from them.
SPEC_MODE = 0o644
DIRECTORY_MODE = 0o755
SUFFIXES = (".json", ".yaml")
_MAX_FILE_NAME = 255


def spec_file_name(spec: Spec, *, transient_id: str = "", syntax: Syntax = "yaml") -> str:
    """Return the conventional file name: ``vendor-class``, and ``_ID`` for a transient spec.

    A transient spec lives as long as something else, a container or a claim, whose id is unique on
    the host. A slash in the id becomes an underscore.

    Raises:
        CdiUsageError: the kind is not valid, or the name would not be a file name.
    """
    vendor, class_ = split_kind(spec.kind)
    name = f"{vendor}-{class_}"
    if transient_id:
        name += "_" + transient_id.replace("/", "_")
    name += f".{syntax}"
    if "\0" in name or len(name.encode()) > _MAX_FILE_NAME:
        raise CdiUsageError(f"transient id {transient_id[:60]!a} makes no file name; shorten it")
    return name


def read_bytes(path: Path) -> bytes:
    """Read a spec file, which must be a regular file of bounded size.

    Raises:
        CdiNotFoundError: there is no such file.
        CdiError: it cannot be read, or is no regular file.
        InvalidSpecError: it is too large.
    """
    try:
        # Without O_NONBLOCK a named pipe of that name would hang the reader.
        with open(path, "rb", opener=_open_nonblocking) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CdiError(f"{path} is not a regular file")
            data = file.read(MAX_SPEC_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CdiNotFoundError(f"{path}: no such file") from error
    except OSError as error:
        raise CdiError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_SPEC_BYTES:
        raise InvalidSpecError([too_large()], source=str(path))
    return data


def read_spec(path: Path) -> Spec:
    """Read and validate one spec file; ``.json`` is read as JSON, everything else as YAML.

    Raises:
        CdiNotFoundError: there is no such file.
        CdiError: it cannot be read.
        InvalidSpecError: it is not a valid spec; the error holds every fault.
    """
    return parse_spec(read_bytes(path), syntax=syntax_of(path), source=str(path))


def render(spec: Spec, syntax: Syntax) -> str:
    """Return the spec as text of the given syntax; the same spec gives the same text."""
    return to_json_text(spec) if syntax == "json" else to_yaml(spec)


def write_spec(spec: Spec, path: Path) -> bool:
    """Validate a spec and put it at ``path`` atomically; return whether the file changed.

    The suffix, ``.json`` or ``.yaml``, chooses the syntax. Readers see the old file or the new one,
    never a part: the text goes to a temporary file beside it, which is synced and renamed, and then
    the directory is synced. The mode is 0644 whatever the umask. A file that already holds these
    bytes with this mode is left alone, so that watchers see no change. Missing directories are
    created.

    Raises:
        CdiUsageError: the suffix is one that runtimes ignore.
        InvalidSpecError: the spec is not valid; nothing is written.
        SpecWriteError: the file system refused; the old file is as it was.
    """
    if path.suffix not in SUFFIXES:
        raise CdiUsageError(f"{path}: runtimes read only {' and '.join(SUFFIXES)} files")
    require_valid(spec, source=str(path))
    data = render(spec, syntax_of(path)).encode()
    if _is_current(path, data):
        return False
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise SpecWriteError(f"{path} cannot be written: {error.strerror or error}") from error
    return True


def remove_spec(path: Path) -> bool:
    """Remove a spec file and sync its directory; return whether it was there.

    Raises:
        SpecWriteError: the file system refused.
    """
    try:
        path.unlink()
        _sync_directory(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SpecWriteError(f"{path} cannot be removed: {error.strerror or error}") from error
    return True


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _is_current(path: Path, data: bytes) -> bool:
    try:
        found = path.lstat()
        return (
            stat.S_ISREG(found.st_mode)
            and stat.S_IMODE(found.st_mode) == SPEC_MODE
            and found.st_size == len(data)
            and path.read_bytes() == data
        )
    except OSError:
        return False  # writing will tell what is wrong


def replace_file(path: Path, data: bytes) -> None:
    """Put a file at ``path`` with mode 0644, whole or not at all, and durably.

    Raises:
        OSError: the file system refused; the old file is as it was.
    """
    # The suffix keeps runtimes, which watch the directory, from reading the temporary file.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, SPEC_MODE), "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), SPEC_MODE)  # the umask took bits away
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
