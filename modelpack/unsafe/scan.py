"""Which judgement a file needs, by its content and, more strictly, by its name.

>>> import pickle
>>> [finding] = scan("notes.txt", BytesReader(pickle.dumps(eval)))
>>> finding.danger, finding.detail
('unsafe', 'a pickle that names builtins.eval')
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable

from modelpack.errors import FormatError
from modelpack.unsafe import ziparchive
from modelpack.unsafe.configs import MAX_JSON_BYTES, judge_config
from modelpack.unsafe.finding import BytesReader, Danger, Finding, Kind, Part, Reader
from modelpack.unsafe.pickles import Judgement, is_pickle, judge

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")
"""Names by which loaders expect a pickle."""
# OpenVINO, CTranslate2 and others use this name for formats without code.
_SHARED_SUFFIX = ".bin"

_HEAD_BYTES = 4096
_HDF5 = b"\x89HDF\r\n\x1a\n"
# HDF5 file format, "Superblock": at 0, 512 and every doubling.
_HDF5_OFFSETS = (0, 512, 1024, 2048)
_NUMPY = b"\x93NUMPY"
_MAX_NUMPY_HEADER = 64 * 1024
_NUMPY_OBJECT = re.compile(rb"['\"][|<>=]?O[0-9]*['\"]|\\")
_TAR_MAGIC_AT = 257
# Compressed or packed forms that nothing here opens.
_SEALED = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"\x04\x22\x4d\x18": "lz4-compressed",
}
_PEEK_BYTES = 1024
_XZ_MEMORY_BYTES = 128 * 1024 * 1024
_STORAGE_ENTRY = re.compile(r"(?:[^/]+/)?(?:data|constants)/[0-9]+\Z")
_MAX_FINDINGS = 64
# A zip of a few megabytes can unpack to terabytes; what is not tensors is a few megabytes.
_MAX_UNPACKED_BYTES = 1024 * 1024 * 1024


def scan(path: str, reader: Reader) -> tuple[Finding, ...]:
    """Return what loading this file could run; an empty tuple when there is nothing to say.

    Reads the first kilobytes of any file, all of a pickle, and of a zip the directory and the
    entries that are not tensors.
    """
    head = reader.read(0, min(reader.size, _HEAD_BYTES))
    lowered = path.lower()
    if head.startswith(ziparchive.LOCAL_MAGIC):
        return _scan_zip(path, reader)
    findings = [*_by_magic(path, head, reader)]
    if not findings:
        findings = [*_scan_pickle(path, head, reader)]
    if ziparchive.find_end(reader):
        detail = "a zip archive behind other data, which loaders take for different things"
        findings.append(_finding(path, "archive", "unsafe", detail))
    if lowered.endswith(".json") and reader.size <= MAX_JSON_BYTES:
        findings += judge_config(path, reader.read(0, reader.size))
    elif lowered.endswith(".jinja"):
        findings.append(
            _finding(path, "chat-template", "note", "a template, which loaders run in a sandbox")
        )
    elif lowered.endswith(".py"):
        findings.append(_finding(path, "remote-code", "note", "Python code beside the model"))
    return tuple(findings[:_MAX_FINDINGS])


def _by_magic(path: str, head: bytes, reader: Reader) -> list[Finding]:
    if any(head.startswith(_HDF5, offset) for offset in _HDF5_OFFSETS):
        detail = "HDF5, in which Keras keeps layers with code where nothing here looks"
        return [_finding(path, "hdf5", "unscannable", detail)]
    if head.startswith(_NUMPY):
        return _scan_numpy(path, head, reader)
    for magic, name in _SEALED.items():
        if head.startswith(magic):
            return [_finding(path, "archive", "unscannable", f"{name}, which is not opened here")]
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return [_finding(path, "archive", "unscannable", "a tar archive, which is not opened here")]
    inside = _peek_compressed(head)
    if inside is not None and (
        not inside or path.lower().endswith(PICKLE_SUFFIXES) or _holds_something(path, inside)
    ):
        return [_finding(path, "archive", "unscannable", "compressed, which is not opened here")]
    return []


def _holds_something(path: str, inside: bytes) -> bool:
    archive = (ziparchive.LOCAL_MAGIC, _HDF5, _NUMPY, *_SEALED)
    if inside.startswith(archive) or inside[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return True
    return bool(_scan_pickle(path, inside, BytesReader(inside)))


def _scan_pickle(path: str, head: bytes, reader: Reader) -> list[Finding]:
    judgement = judge(reader)
    named = path.lower().endswith(PICKLE_SUFFIXES)
    # Text can begin like a pickle that only names something: without a call nothing runs, and only
    # a pickle's own name makes it one.
    if is_pickle(head, judgement) or (named and judgement.unsafe):
        return [_judged(path, judgement)]
    if named and not path.lower().endswith(_SHARED_SUFFIX) and reader.size:
        detail = "named like a pickle, but nothing that is known here"
        return [_finding(path, "pickle", "unscannable", detail)]
    return []


def _judged(path: str, judgement: Judgement) -> Finding:
    if judgement.unsafe:
        detail = f"a pickle that {', '.join(judgement.unsafe)}"
        return _finding(path, "pickle", "unsafe", detail)
    if judgement.broken is not None:
        detail = f"a pickle that cannot be followed: {judgement.broken}"
        return _finding(path, "pickle", "unscannable", detail)
    return _finding(path, "pickle", "note", "a pickle that only rebuilds tensors and plain values")


def _scan_numpy(path: str, head: bytes, reader: Reader) -> list[Finding]:
    """Arrays of objects are pickles behind a header (numpy.lib.format)."""
    wide = len(head) > 6 and head[6] >= 2
    width = 4 if wide else 2
    length = int.from_bytes(head[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _MAX_NUMPY_HEADER or start > reader.size:
        return [_finding(path, "pickle", "unscannable", "a numpy array with a broken header")]
    if not _NUMPY_OBJECT.search(reader.read(8 + width, length)):
        return []
    return [_judged(path, judge(Part(reader, start, reader.size - start)))]


def _scan_zip(path: str, reader: Reader) -> tuple[Finding, ...]:
    findings: list[Finding] = []
    unpacked = 0
    try:
        entries = ziparchive.entries(reader)
        for entry in entries:
            # torch keeps raw tensors in archive/data/0, 1, 2, …; no loader unpickles those.
            if _STORAGE_ENTRY.fullmatch(entry.name):
                continue
            unpacked += 0 if entry.stored else entry.size
            if unpacked > _MAX_UNPACKED_BYTES or len(findings) >= _MAX_FINDINGS:
                detail = "a zip archive with more in it than is judged here"
                findings.append(_finding(path, "archive", "unscannable", detail))
                break
            findings += _scan_entry(path, reader, entry)
    except FormatError as error:
        return (*findings, _finding(path, "archive", "unsafe", str(error)))
    if any(re.search(r"(?:^|/)code/.*\.py\Z", entry.name) for entry in entries):
        findings.append(
            _finding(path, "archive", "unscannable", "TorchScript, a program and not only weights")
        )
    return tuple(findings)


def _scan_entry(path: str, reader: Reader, entry: ziparchive.Entry) -> tuple[Finding, ...]:
    name = f"{path}!{entry.name}"
    inner: Reader
    if entry.size <= ziparchive.MAX_CONTENT_BYTES:
        inner = BytesReader(ziparchive.content(reader, entry))
    elif entry.stored:
        inner = ziparchive.part(reader, entry)
    else:
        detail = f"{entry.size} compressed bytes, too many to judge"
        return (_finding(name, "archive", "unscannable", detail),)
    head = inner.read(0, min(inner.size, _HEAD_BYTES))
    if head.startswith(ziparchive.LOCAL_MAGIC):
        return (_finding(name, "archive", "unscannable", "an archive inside an archive"),)
    if path.lower().endswith(".keras") and entry.name.endswith(".weights.h5"):
        # Keras reads nothing but arrays from it, whatever else it holds.
        return ()
    if entry.name.endswith(".py"):
        # Told about once, as TorchScript, or harmless where nothing imports it.
        return ()
    return scan(name, inner)


def _peek_compressed(head: bytes) -> bytes | None:
    """Return the first bytes inside gzip, bzip2, xz or zlib; None for anything else.

    Nothing comes back from what is compressed but cannot be looked into so shortly.
    """
    openers: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
        (b"\x1f\x8b", lambda data: zlib.decompressobj(31).decompress(data, _PEEK_BYTES)),
        (b"BZh", lambda data: bz2.BZ2Decompressor().decompress(data, _PEEK_BYTES)),
        (b"\xfd7zXZ\0", _peek_xz),
    )
    for magic, opener in openers:
        if head.startswith(magic):
            try:
                return opener(head)
            except (zlib.error, OSError, lzma.LZMAError, ValueError):
                return b""
    # zlib has no magic number, only a checksum over two bytes (RFC 1950).
    if head[:1] == b"x" and int.from_bytes(head[:2], "big") % 31 == 0:
        try:
            return zlib.decompressobj().decompress(head, _PEEK_BYTES) or None
        except zlib.error:
            return None
    return None


def _peek_xz(data: bytes) -> bytes:
    # The stream states how much memory its dictionary takes, up to 4 GiB.
    decompressor = lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)
    return decompressor.decompress(data, _PEEK_BYTES)


def _finding(path: str, kind: Kind, danger: Danger, detail: str) -> Finding:
    return Finding(path=path, kind=kind, danger=danger, detail=detail)
