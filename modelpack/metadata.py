"""The metadata layer: the last layer of an artifact, a small tar of what describes the others.

Owns its names, writing and strict reading; pure. Leaves out what the files in it mean.

    >>> raw = build_metadata_layer({"model.json": b"{}"})
    >>> read_metadata_layer(raw)
    {'model.json': b'{}'}
"""

import re
from collections.abc import Mapping

from modelpack import tarformat
from modelpack.chunkindex import MAX_INDEX_BYTES
from modelpack.errors import FormatError
from modelpack.paths import METADATA_DIR

CHUNKS = "chunks.bin"
MODEL = "model.json"
SBOM = "sbom.cdx.json"
LOCAL_NAMES = frozenset({"lock", "manifest.json", "receipt.json", "staging"})
"""What a pull keeps beside these files in a destination; an artifact brings none of its own."""
# The directory is flat, and names are short enough to need no pax record.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
# The beginning of a file's header: its name, the fields that are checked by writing them again, its
# size.
_HEADER = re.compile(
    rb"\.modelpack/(?P<name>%b)\0{25,88}.{24}(?P<size>[0-7]{11})\0" % _NAME.encode(), re.DOTALL
)
_MODE = 0o644
MAX_FILES = 32
# An SBOM lists every file; 100,000 of them take some 40 MB.
MAX_METADATA_BYTES = MAX_INDEX_BYTES + 64 * 1024 * 1024


def is_name(name: str) -> bool:
    """Tell whether a file of the metadata layer may have this name; readers ignore unknown ones."""
    return re.fullmatch(_NAME, name) is not None and name not in LOCAL_NAMES


def build_metadata_layer(files: Mapping[str, bytes]) -> bytes:
    """Return the layer that holds ``files`` in ``.modelpack/``; equal files give equal bytes."""
    out = [tarformat.directory_header(METADATA_DIR)]
    for name in sorted(files):
        data = files[name]
        out += [
            _file_header(name, len(data)),
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
    position = _read_exactly(raw, 0, tarformat.directory_header(METADATA_DIR))
    while not raw.startswith(tarformat.END_OF_ARCHIVE, position):
        header = _HEADER.match(raw, position)
        if header is None or len(files) == MAX_FILES:
            raise FormatError(f"metadata layer holds something else at byte {position}")
        name, size = header["name"].decode("ascii"), int(header["size"], 8)
        if name in LOCAL_NAMES:
            raise FormatError(f"metadata layer holds {name!r}, which only a pull may write")
        if files and name <= max(files):
            raise FormatError(f"metadata layer holds {name!r} twice or out of order")
        start = _read_exactly(raw, position, _file_header(name, size))
        files[name] = raw[start : start + size]
        position = _read_exactly(raw, start + size, bytes(tarformat.padding(size)))
    if len(raw) != position + len(tarformat.END_OF_ARCHIVE):
        raise FormatError(f"metadata layer goes on after its end at byte {position}")
    return files


def _file_header(name: str, size: int) -> bytes:
    return tarformat.file_header(f"{METADATA_DIR}/{name}", size=size, mode=_MODE)


def _read_exactly(raw: bytes, position: int, expected: bytes) -> int:
    """Prove that ``expected`` stands at ``position``; return where it ends."""
    if not raw.startswith(expected, position):
        raise FormatError(f"metadata layer is not in its one canonical form at byte {position}")
    return position + len(expected)
