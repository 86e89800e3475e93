"""The metadata layer: the last layer of an artifact, a small tar of what describes the others.

Owns its names, writing and strict reading; pure. Leaves out what the files in it mean.

    >>> raw = build_metadata_layer({"model.json": b"{}"})
    >>> read_metadata_layer(raw)
    {'model.json': b'{}'}
"""

import io
import re
import tarfile
from collections.abc import Mapping

from modelpack import tarformat
from modelpack.chunkindex import MAX_INDEX_BYTES
from modelpack.errors import FormatError
from modelpack.paths import METADATA_DIR

CHUNKS = "chunks.bin"
MODEL = "model.json"
SBOM = "sbom.cdx.json"
# A name in the layer; the directory is flat.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_MODE = 0o644
MAX_FILES = 32
# An SBOM lists every file; 100,000 of them take some 40 MB.
MAX_METADATA_BYTES = MAX_INDEX_BYTES + 64 * 1024 * 1024


def build_metadata_layer(files: Mapping[str, bytes]) -> bytes:
    """Return the layer that holds ``files`` in ``.modelpack/``; equal files give equal bytes."""
    out = [tarformat.directory_header(METADATA_DIR)]
    for name in sorted(files):
        data = files[name]
        out += [
            tarformat.file_header(f"{METADATA_DIR}/{name}", size=len(data), mode=_MODE),
            data,
            bytes(tarformat.padding(len(data))),
        ]
    out.append(tarformat.END_OF_ARCHIVE)
    return b"".join(out)


def read_metadata_layer(raw: bytes) -> dict[str, bytes]:
    """Return the files of a metadata layer by name.

    Raises:
        FormatError: it is not exactly what ``build_metadata_layer`` writes for some files.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
            for entry in archive:
                directory, _, name = entry.name.partition("/")
                if directory != METADATA_DIR or len(files) >= MAX_FILES:
                    raise FormatError("metadata layer holds something else than metadata")
                if not name and entry.isdir():
                    continue
                if not entry.isreg() or not _NAME.match(name) or name in files:
                    raise FormatError(f"metadata layer holds {entry.name[:100]!r}")
                content = archive.extractfile(entry)
                files[name] = content.read() if content else b""
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise FormatError(f"metadata layer is not a tar: {error!s:.100}") from error
    if build_metadata_layer(files) != raw:
        raise FormatError("metadata layer is not in its one canonical form")
    return files
