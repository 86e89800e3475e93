"""What a model's files hold that could run code, found out before the files are fetched.

Owns reading files by ranges, every byte verified by the chunk index, and keeping the findings. Leaves
out what is dangerous (``unsafe/``) and what is refused for it (``signing/policy.py``).

A file's first chunk, its last, and all of what turns out to be a pickle are read; for weights in
safetensors or GGUF that is some megabytes a file. Small files lie side by side in one layer, so
they are read through a window: one request for many.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack.artifact import Artifact
from modelpack.cache import Cache
from modelpack.chunkindex import IndexedFile
from modelpack.descriptor import Descriptor
from modelpack.errors import FormatError, UsageError
from modelpack.inspecting.indexedfile import IndexedFileReader
from modelpack.manifest import canonical_json
from modelpack.parallel import for_each
from modelpack.storage import Fetcher, read_all
from modelpack.unsafe.finding import Finding
from modelpack.unsafe.scan import RULES_VERSION, scan

_THREADS = 4
# Enough for hundreds of small files, and little to read in vain before a large one.
_WINDOW_BYTES = 1024 * 1024


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
    by_layer: dict[int, list[IndexedFile]] = {}
    for file in chosen:
        by_layer.setdefault(file.layer, []).append(file)
    found: dict[str, tuple[Finding, ...]] = {}
    windows: list[_Window] = []

    def judge_layer(number: int) -> None:
        window = _Window(fetcher, artifact, artifact.data_layers[number])
        windows.append(window)
        where = f"manifest {artifact.manifest.digest}"
        for file in sorted(by_layer[number], key=lambda one: one.offset):
            reader = IndexedFileReader(artifact.index, file, window.read_chunk, where=where)
            found[file.path] = scan(file.path, reader)

    for_each(judge_layer, list(by_layer), _THREADS)
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

    def judge(path: str) -> None:
        reader = _FileReader(files[path])
        try:
            found[path] = scan(path, reader)
        finally:
            reader.close()

    for_each(judge, sorted(files), _THREADS)
    return tuple(one for path in sorted(found) for one in found[path])


class _Window:
    """Chunks of one layer, fetched with what follows them; for one thread."""

    def __init__(self, fetcher: Fetcher, artifact: Artifact, layer: Descriptor) -> None:
        self._fetcher = fetcher
        self._index = artifact.index
        self._layer = layer
        self._start = 0
        self._data = b""
        self.fetched = 0

    def read_chunk(self, file: IndexedFile, chunk: int) -> bytes:
        """Return a chunk's bytes; the reader verifies them."""
        length = self._index.lengths[chunk]
        start = file.offset + self._index.offsets[chunk]
        inside = start - self._start
        if not 0 <= inside <= len(self._data) - length:
            self._fetch(start, max(length, min(_WINDOW_BYTES, self._layer.size - start)))
            inside = 0
        return self._data[inside : inside + length]

    def _fetch(self, start: int, length: int) -> None:
        with self._fetcher.open_blob(self._layer, start, length) as stream:
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
