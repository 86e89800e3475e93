"""Reading tars that other programs wrote, trusting nothing in them.

Owns decompression and the strict choice of entries: regular files and directories, with paths an
artifact may hold. Links, devices, sparse files and whiteouts are refused (CVE-2026-50163 and its
kin), so nothing an entry says can lead a write elsewhere. Leaves out where files go.
"""

import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Protocol, cast

from modelpack.errors import FormatError, IntegrityError
from modelpack.paths import METADATA_DIR, check_path
from modelpack.storage import ByteStream

# More entries than the largest image has; a bound for hostile tars of empty files.
MAX_ENTRIES = 1_000_000
_INPUT_BYTES = 256 * 1024
_DAMAGE = (tarfile.TarError, EOFError, ValueError)
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...


def decompressed(source: ByteStream, media_type: str) -> "Decompressed":
    """Return a readable file of what ``source`` holds, by its media type's suffix.

    Raises:
        FormatError: a compression this program does not read.
    """
    lowered = media_type.lower()
    if lowered.endswith(("gzip", ".gz", ".tgz")):
        return Decompressed(source, _Gzip())
    if lowered.endswith(("zstd", ".zst")):
        import zstandard  # noqa: PLC0415 - only recompressed copies need it

        return Decompressed(source, _Zstd(zstandard.ZstdDecompressor().decompressobj()))
    if lowered.endswith("tar"):
        return Decompressed(source, None)
    raise FormatError(f"layers of type {media_type!r:.100} cannot be unpacked")


class _Gzip:
    """Gzip members one after another, with bounded output for each call."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP_WINDOW)
        self._rest = b""

    def feed(self, data: bytes, limit: int) -> bytes:
        data = self._rest + data
        if self._inner.eof:
            if not data:
                return b""
            self._inner = zlib.decompressobj(_GZIP_WINDOW)
        out = self._inner.decompress(data, limit)
        self._rest = self._inner.unused_data or self._inner.unconsumed_tail
        return out

    @property
    def has_more(self) -> bool:
        return bool(self._rest)

    @property
    def complete(self) -> bool:
        return self._inner.eof and not self._rest


class _Zstd:
    """One zstd frame."""

    def __init__(self, inner: object) -> None:
        self._inner = cast("_Decompressor", inner)

    def feed(self, data: bytes, limit: int) -> bytes:
        del limit  # frames decompress block by block, at most 128 KiB each
        return self._inner.decompress(data) if data else b""

    @property
    def has_more(self) -> bool:
        return False

    @property
    def complete(self) -> bool:
        return True


class Decompressed:
    """A file object for ``tarfile``'s stream mode; drains its source to the verified end."""

    def __init__(self, source: ByteStream, codec: _Gzip | _Zstd | None) -> None:
        self._source = source
        self._codec = codec
        self._input = memoryview(bytearray(_INPUT_BYTES))
        self._pending = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes; fewer only at the end."""
        out = bytearray()
        while len(out) < size:
            if not self._pending and not self._fill(size - len(out)):
                break
            take = self._pending[: size - len(out)]
            self._pending = self._pending[len(take) :]
            out += take
        return bytes(out)

    def drain(self) -> None:
        """Read to the end, so that the source is verified in full."""
        while self.read(_INPUT_BYTES):
            continue

    def _fill(self, limit: int) -> bool:
        while not self._pending:
            if self._codec is not None and self._codec.has_more:
                self._pending = self._decode(b"", limit)
                continue
            if self._ended:
                return False
            count = self._source.readinto(self._input)
            data = bytes(self._input[:count])
            if not count:
                self._ended = True
                if self._codec is not None and not self._codec.complete:
                    raise IntegrityError("a compressed layer ends in the middle")
            self._pending = data if self._codec is None else self._decode(data, limit)
        return True

    def _decode(self, data: bytes, limit: int) -> bytes:
        codec = self._codec
        if codec is None:
            return data
        try:
            return codec.feed(data, max(limit, _INPUT_BYTES))
        except Exception as error:
            if isinstance(error, IntegrityError):
                raise
            raise IntegrityError(f"a compressed layer is damaged: {error!s:.100}") from error


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
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive:
            for number, entry in enumerate(archive):
                if number >= MAX_ENTRIES:
                    raise FormatError(f"a layer has more than {MAX_ENTRIES} entries")
                path = _path(entry.name)
                if entry.isdir() or not path:
                    continue
                if not entry.isreg() or entry.issparse():
                    raise FormatError(f"a layer holds {entry.name[:200]!a}: {_kind(entry)}")
                content = archive.extractfile(entry)
                if content is None:
                    raise FormatError(f"a layer holds {entry.name[:200]!a} without content")
                yield path, entry.size, bool(entry.mode & 0o100), Entry(content)
        stream.drain()
    except _DAMAGE as error:
        raise IntegrityError(f"a layer is no valid tar: {error!s:.100}") from error


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
        return "a link, which is refused"
    return "a sparse or special file, which is refused"
