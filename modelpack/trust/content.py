"""What a model's files hold that could run code, found out before the files are fetched.

Owns reading files by ranges, every byte verified by the chunk index, and keeping the findings. Leaves
out what is dangerous (``unsafe/``) and what is refused for it (``signing/policy.py``).

A file's first chunk, its last, and all of what turns out to be a pickle are read; for weights in
safetensors or GGUF that is some megabytes a file. Small files lie side by side in one layer, so
they are read through a window: one request for many.

What lies between the files is read, too. Who mounts a layer sees the files that its tar has, not those
of the chunk index; a tar with other headers than follow from the index could show any.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack import layering
from modelpack.artifact import Artifact
from modelpack.cache import Cache
from modelpack.chunkindex import IndexedFile, source_file
from modelpack.descriptor import Descriptor
from modelpack.errors import FormatError, UsageError
from modelpack.inspecting.indexedfile import IndexedFileReader
from modelpack.manifest import canonical_json
from modelpack.metadata import CHUNKS, MODEL, SBOM
from modelpack.parallel import for_each
from modelpack.paths import METADATA_DIR
from modelpack.storage import Fetcher, read_all
from modelpack.unsafe.finding import BytesReader, Finding
from modelpack.unsafe.pickles import Effort
from modelpack.unsafe.scan import RULES_VERSION, scan

_THREADS = 4
# Enough for hundreds of small files, and little to read in vain before a large one.
_WINDOW_BYTES = 1024 * 1024
# The headers that follow a file take a few hundred bytes, and as much for each new directory.
_FRAME_BYTES = 16 * 1024
# What of the metadata layer is not for loaders: modelpack alone reads it.
_OWN = frozenset({CHUNKS, MODEL, SBOM})


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What was found, and what finding it took."""

    findings: tuple[Finding, ...]
    fetched_bytes: int


def judge_artifact(
    fetcher: Fetcher,
    artifact: Artifact,
    files: Sequence[IndexedFile] | None = None,
    *,
    cache: Cache | None = None,
) -> Judged:
    """Return what the files of a packed artifact hold; ``files`` are some of them, or None for all.

    Findings are kept in ``cache`` under the digest that covers the index, and so the files.

    Raises:
        IntegrityError: the repository has other bytes than the index says.
        NotFoundError, NetworkError: the repository cannot be read.
    """
    chosen = tuple(artifact.index.files if files is None else files)
    key = _cache_key(artifact, chosen)
    kept = cache.get(key) if cache is not None else None
    if kept is not None:
        return Judged(findings=_from_json(kept), fetched_bytes=0)
    wanted = {file.path for file in chosen}
    found: dict[str, tuple[Finding, ...]] = {
        f"{METADATA_DIR}/{name}": scan(f"{METADATA_DIR}/{name}", BytesReader(raw))
        for name, raw in artifact.metadata.items()
        if name not in _OWN
    }
    windows: list[_Window] = []
    effort = Effort()

    def judge_layer(number: int) -> None:
        window = _Window(fetcher, artifact, artifact.data_layers[number])
        windows.append(window)
        found.update(_judge_layer(artifact, number, window, wanted, effort))

    for_each(judge_layer, sorted({file.layer for file in chosen}), _THREADS)
    findings = tuple(one for path in sorted(found) for one in found[path])
    if cache is not None:
        cache.put(key, canonical_json([finding.to_json() for finding in findings]))
    return Judged(findings=findings, fetched_bytes=sum(window.fetched for window in windows))


def judge_files(files: Mapping[str, Path]) -> tuple[Finding, ...]:
    """Return what local files hold; each is known by the path that it has in the model.

    Raises:
        UsageError: a file cannot be read.
    """
    found: dict[str, tuple[Finding, ...]] = {}
    effort = Effort()

    def judge(path: str) -> None:
        reader = _FileReader(files[path])
        try:
            found[path] = scan(path, reader, effort)
        finally:
            reader.close()

    for_each(judge, sorted(files), _THREADS)
    return tuple(one for path in sorted(found) for one in found[path])


def _judge_layer(
    artifact: Artifact, number: int, window: "_Window", wanted: set[str], effort: Effort
) -> dict[str, tuple[Finding, ...]]:
    """Return the findings in one layer, by path; those about the tar itself by its digest."""
    found: dict[str, tuple[Finding, ...]] = {}
    where = f"manifest {artifact.manifest.digest}"
    index = artifact.index
    members = {file.path: file for file in index.files_of_layer(number)}
    # Whoever takes only some of the files takes them by the index, and not by the tar.
    complete = wanted >= members.keys()
    position = 0
    for frame, source in layering.frames([source_file(file) for file in members.values()]):
        first = members[source.path].first_chunk if source and source.size else None
        ahead = 0 if first is None else index.lengths[first]
        if complete and window.read(position, len(frame), ahead) != frame:
            name = f"layer {window.layer.digest}"
            detail = "a tar that shows other files than the chunk index lists"
            found[name] = (Finding(path=name, kind="archive", danger="unsafe", detail=detail),)
        position += len(frame)
        if source is not None:
            file = members[source.path]
            position += file.size
            if file.path in wanted:
                reader = IndexedFileReader(index, file, window.read_chunk, where=where)
                found[file.path] = scan(file.path, reader, effort)
    return found


class _Window:
    """Bytes of one layer, fetched with what follows them; for one thread."""

    def __init__(self, fetcher: Fetcher, artifact: Artifact, layer: Descriptor) -> None:
        self._fetcher = fetcher
        self._index = artifact.index
        self.layer = layer
        self._start = 0
        self._data = b""
        self.fetched = 0

    def read_chunk(self, file: IndexedFile, chunk: int) -> bytes:
        """Return a chunk's bytes; the reader verifies them."""
        start = file.offset + self._index.offsets[chunk]
        return self.read(start, self._index.lengths[chunk])

    def read(self, start: int, length: int, ahead: int = 0) -> bytes:
        """Return bytes of the layer; ``ahead`` is how many more are wanted next."""
        inside = start - self._start
        if not 0 <= inside <= len(self._data) - length:
            most = max(length + ahead + _FRAME_BYTES, _WINDOW_BYTES)
            self._fetch(start, min(most, self.layer.size - start))
            inside = 0
        return self._data[inside : inside + length]

    def _fetch(self, start: int, length: int) -> None:
        with self._fetcher.open_blob(self.layer, start, length) as stream:
            self._data = read_all(stream, length)
        self._start = start
        self.fetched += length


class _FileReader:
    """A local file as ``unsafe.finding.Reader``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        self._size = os.fstat(self._fd).st_size

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._size

    def read(self, offset: int, length: int, /) -> bytes:
        """Return ``length`` bytes from ``offset``."""
        parts = []
        while length:
            part = os.pread(self._fd, length, offset)
            if not part:
                raise FormatError(f"{self._path} is shorter than it was")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Give the file up."""
        os.close(self._fd)


def _cache_key(artifact: Artifact, files: Sequence[IndexedFile]) -> bytes:
    hasher = hashlib.sha256(f"{RULES_VERSION} {artifact.manifest.layers[-1].digest}".encode())
    if len(files) != len(artifact.index.files):
        for file in files:
            hasher.update(f"\n{file.path}".encode())
    return hasher.digest()


def _from_json(raw: bytes) -> tuple[Finding, ...]:
    found: list[dict[str, Any]] = json.loads(raw)
    return tuple(Finding(**one) for one in found)
