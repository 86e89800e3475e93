"""Reading tars that other programs wrote, trusting nothing in them.

Owns decompression and the strict choice of entries: regular files and directories, with paths an
artifact may hold. Links, devices, sparse files and whiteouts are refused (CVE-2026-50163 and its
kin), so nothing an entry says can lead a write elsewhere. Leaves out where files go.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, cast

from modelpack.errors import FormatError, IntegrityError
from modelpack.paths import METADATA_DIR, check_path
from modelpack.storage import ByteStream

# More entries than the largest image has; a bound for hostile tars of empty files.
MAX_ENTRIES = 1_000_000
_INPUT_BYTES = 256 * 1024
# A chain of a thousand header extensions makes tarfile recurse too deep.
_DAMAGE = (tarfile.TarError, EOFError, ValueError, RecursionError)
# Headers whose content is about the header after them, such as its long name. A name has 4096 bytes
# at most, an extended attribute 64 KiB.
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAX_EXTENSION_BYTES = 1024 * 1024
_SPARSE = "a sparse or special file, which is refused"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


def decompressed(source: ByteStream, media_type: str) -> "Decompressed":
    """Return a readable file of what ``source`` holds, by its media type's suffix.

    Raises:
        FormatError: a compression this program does not read.
    """
    lowered = media_type.lower()
    reader = _Reader(source)
    if lowered.endswith(("gzip", ".gz", ".tgz")):
        return Decompressed(_Gzip(reader).read)
    if lowered.endswith(("zstd", ".zst")):
        return Decompressed(_Zstd(reader).read)
    if lowered.endswith("tar"):
        return Decompressed(reader.read)
    raise FormatError(f"layers of type {media_type!r:.100} cannot be unpacked")


class _Reader:
    """A byte stream as a file."""

    def __init__(self, source: ByteStream) -> None:
        self._source = source
        self._buffer = memoryview(bytearray(_INPUT_BYTES))

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes; none only at the verified end."""
        view = self._buffer[:size]
        return bytes(view[: self._source.readinto(view)])


class _Gzip:
    """Gzip members one after another, with bounded output for each call."""

    def __init__(self, source: _Reader) -> None:
        self._source = source
        self._inner = zlib.decompressobj(_GZIP_WINDOW)
        self._rest = b""

    def read(self, size: int) -> bytes:
        out = b""
        while not out:
            self._rest = self._rest or self._source.read(_INPUT_BYTES)
            if self._inner.eof:
                if not self._rest:
                    return b""
                self._inner = zlib.decompressobj(_GZIP_WINDOW)
            elif not self._rest:
                raise IntegrityError("a compressed layer ends in the middle")
            try:
                out = self._inner.decompress(self._rest, size)
            except zlib.error as error:
                raise _damaged(error) from error
            self._rest = self._inner.unused_data or self._inner.unconsumed_tail
        return out


class _Zstd:
    """Zstandard frames one after another, as zstd:chunked writes them, with bounded output."""

    def __init__(self, source: _Reader) -> None:
        import zstandard  # noqa: PLC0415 - only recompressed copies need it

        self._error = zstandard.ZstdError
        # Frames that want a larger window than the library's default of 128 MiB are refused.
        self._inner = zstandard.ZstdDecompressor().stream_reader(
            cast("IO[bytes]", source), read_size=_INPUT_BYTES, read_across_frames=True
        )

    def read(self, size: int) -> bytes:
        try:
            return self._inner.read(size)
        except self._error as error:
            raise _damaged(error) from error


def _damaged(error: Exception) -> IntegrityError:
    return IntegrityError(f"a compressed layer is damaged: {error!s:.100}")


class Decompressed:
    """A file object for ``tarfile``'s stream mode; drains its source to the verified end."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Wrap ``read``, which returns up to so many bytes, and none only at the end."""
        self._read = read

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes; fewer only at the end."""
        out = bytearray()
        while len(out) < size and (piece := self._read(size - len(out))):
            out += piece
        return bytes(out)

    def drain(self) -> None:
        """Read to the end, so that the source is verified in full."""
        while self.read(_INPUT_BYTES):
            continue


def entries(stream: Decompressed) -> Iterator[tuple[str, int, bool, "Entry"]]:
    """Yield (path, size, executable, content) of every file in a tar stream, in order.

    Contents must be read before the next entry is asked for. Files in ``.modelpack/`` are yielded
    like others.

    Raises:
        FormatError: an entry of a kind or with a path that is refused.
        IntegrityError: the tar is damaged.
    """
    try:
        # tarfile asks only for read() in stream mode
        file = cast("IO[bytes]", stream)
        with tarfile.open(
            fileobj=file, mode="r|", bufsize=_INPUT_BYTES, tarinfo=_Header
        ) as archive:
            number = 0
            while entry := archive.next():
                number += 1
                if number > MAX_ENTRIES:
                    raise FormatError(f"a layer has more than {MAX_ENTRIES} entries")
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                path = _path(entry.name)
                if entry.isdir() or not path:
                    continue
                if not entry.isreg() or entry.issparse():
                    raise FormatError(f"a layer holds {entry.name[:200]!a}: {_kind(entry)}")
                if entry.size < 0:
                    raise tarfile.ReadError(f"a file of {entry.size} bytes")
                content = archive.extractfile(entry)
                if content is None:
                    raise FormatError(f"a layer holds {entry.name[:200]!a} without content")
                yield path, entry.size, bool(entry.mode & 0o100), Entry(content)
        stream.drain()
    except _DAMAGE as error:
        raise IntegrityError(f"a layer is no valid tar: {error!s:.100}") from error


class _Header(tarfile.TarInfo):
    """A tar header, looked at before tarfile reads on: it sets no bounds of its own."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # The hook that tarfile offers to subclasses.
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise FormatError(f"a layer holds {self.name[:200]!a}: {_SPARSE}")
        if self.type in _EXTENSIONS and not 0 <= self.size <= _MAX_EXTENSION_BYTES:
            raise tarfile.ReadError(f"a header extension of {self.size} bytes")
        if self.type == tarfile.XGLTYPE and archive.pax_headers:
            raise tarfile.ReadError("several global headers")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found

    def _proc_gnusparse_10(self, following: tarfile.TarInfo, *_: object) -> None:
        raise FormatError(f"a layer holds {following.name[:200]!a}: {_SPARSE}")


class Entry:
    """The content of one file in a tar stream."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, or all.

        Raises:
            IntegrityError: the tar is damaged.
        """
        try:
            return self._content.read(size)
        except _DAMAGE as error:
            raise IntegrityError(f"a layer is no valid tar: {error!s:.100}") from error


def is_metadata(path: str) -> bool:
    """Tell whether a path lies in the reserved directory."""
    return path.partition("/")[0] == METADATA_DIR


def _path(name: str) -> str:
    trimmed = name.removesuffix("/")
    while trimmed.startswith("./"):
        trimmed = trimmed[2:]
    if trimmed in {"", "."}:
        return ""
    return check_path(trimmed)


def _kind(entry: tarfile.TarInfo) -> str:
    if entry.issym() or entry.islnk():
        return (
            "a link, which is refused; whoever packs it should pack the file itself "
            "(tar --dereference --hard-dereference)"
        )
    return _SPARSE
