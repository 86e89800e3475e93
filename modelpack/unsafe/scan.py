"""Which judgement a file needs, by its content and, more strictly, by its name.

>>> import pickle
>>> [finding] = scan("notes.txt", BytesReader(pickle.dumps(eval)))
>>> finding.danger, finding.detail
('unsafe', 'a pickle that names builtins.eval')
"""

import re

from modelpack.errors import FormatError
from modelpack.unsafe import numpyfiles, packed, ziparchive
from modelpack.unsafe.configs import MAX_JSON_BYTES, judge_config
from modelpack.unsafe.finding import BytesReader, Danger, Finding, Kind, Reader
from modelpack.unsafe.pickles import Effort, Judgement, is_pickle, judge

RULES_VERSION = 2
"""Changes whenever a file could be judged otherwise, so that findings kept from before are not used."""

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")
"""Names by which loaders expect a pickle."""
# OpenVINO, CTranslate2 and others use this name for formats without code.
_SHARED_SUFFIX = ".bin"
_COMPRESSED = re.compile(r"\.(?:gz|bz2|xz|lzma|zst|lz4|z)\Z")

_HEAD_BYTES = 4096
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_SUFFIXES = (".h5", ".hdf5")
# HDF5 file format, "Superblock": at 0, 512 and every doubling. As far as the first chunk of a file
# reaches, which is there; behind that only a file's name makes anybody look for it.
_HDF5_OFFSETS = tuple(512 << power for power in range(13))
_FRAMED_SUFFIXES = (".safetensors", ".gguf")
_STORAGE_ENTRY = re.compile(r"(?P<prefix>(?:[^/]+/)?)(?:data|constants)/[0-9]+\Z")
_MAX_FINDINGS = 64
# A zip of a few megabytes can unpack to terabytes; what is not tensors is a few megabytes.
_MAX_UNPACKED_BYTES = 1024 * 1024 * 1024
# Tokenizers and the lists of tensors of large models are larger than any configuration.
_LARGE_JSON = re.compile(r"(?:.*/)?(?:tokenizer|vocab)[^/]*\.json\Z|.*\.index\.json\Z")


def scan(path: str, reader: Reader, effort: Effort | None = None) -> tuple[Finding, ...]:
    """Return what loading this file could run; an empty tuple when there is nothing to say.

    Reads the first kilobytes of any file, all of a pickle, and of a zip the directory and the
    entries that are not tensors. ``effort`` is shared by the files of one model.
    """
    effort = effort or Effort()
    head = reader.read(0, min(reader.size, _HEAD_BYTES))
    lowered = path.lower()
    if head.startswith(ziparchive.LOCAL_MAGIC):
        return _scan_zip(path, reader, effort)
    findings = [*_by_magic(path, head, reader, effort)]
    if not findings:
        findings = [*_scan_pickle(path, head, reader, effort)]
    if ziparchive.has_directory(reader):
        detail = "a zip archive behind other data, which loaders take for different things"
        findings.append(_finding(path, "archive", "unsafe", detail))
    if lowered.endswith(".json"):
        findings += _scan_json(path, reader)
    elif lowered.endswith(".jinja"):
        findings.append(
            _finding(path, "chat-template", "note", "a template, which loaders run in a sandbox")
        )
    elif lowered.endswith(".py"):
        findings.append(_finding(path, "remote-code", "note", "Python code beside the model"))
    return tuple(findings[:_MAX_FINDINGS])


def _by_magic(path: str, head: bytes, reader: Reader, effort: Effort) -> list[Finding]:
    if _is_hdf5(path.lower(), head, reader):
        detail = "HDF5, in which Keras keeps layers with code where nothing here looks"
        return [_finding(path, "hdf5", "unscannable", detail)]
    if head.startswith(numpyfiles.MAGIC):
        return _scan_numpy(path, head, reader, effort)
    form = packed.sealed_form(head)
    if form is not None:
        return [_finding(path, "archive", "unscannable", f"{form}, which is not opened here")]
    if packed.peek(head) is None:
        return []
    # Only what looks compressed is read further.
    inside = packed.peek(reader.read(0, min(reader.size, packed.PEEKED_BYTES)))
    if inside is None or not inside.data or _named(path) or _holds_something(inside):
        return [_finding(path, "archive", "unscannable", "compressed, which is not opened here")]
    return []


def _is_hdf5(lowered: str, head: bytes, reader: Reader) -> bool:
    if head.startswith(_HDF5) or lowered.endswith(_HDF5_SUFFIXES):
        return True
    if lowered.endswith(_FRAMED_SUFFIXES):
        return any(head.startswith(_HDF5, offset) for offset in _HDF5_OFFSETS)
    return any(
        reader.read(offset, len(_HDF5)) == _HDF5
        for offset in _HDF5_OFFSETS
        if offset + len(_HDF5) <= reader.size
    )


def _holds_something(inside: packed.Peek) -> bool:
    data = inside.data
    if data.startswith((ziparchive.LOCAL_MAGIC, _HDF5, numpyfiles.MAGIC)):
        return True
    if packed.sealed_form(data) is not None or packed.peek(data) is not None:
        return True
    judgement = judge(BytesReader(data), whole=inside.whole)
    return is_pickle(data, judgement)


def _named(path: str) -> bool:
    """Tell whether loaders expect a pickle by a file's name, compressed or not."""
    return _COMPRESSED.sub("", path.lower()).endswith(PICKLE_SUFFIXES)


def _scan_pickle(path: str, head: bytes, reader: Reader, effort: Effort) -> list[Finding]:
    judgement = judge(reader, effort=effort)
    named = _named(path)
    # Text can begin like a pickle that only names something: without a call nothing runs, and only
    # a pickle's own name makes it one.
    if is_pickle(head, judgement) or (named and judgement.names):
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


def _scan_numpy(path: str, head: bytes, reader: Reader, effort: Effort) -> list[Finding]:
    try:
        objects = numpyfiles.object_part(head, reader)
    except FormatError as error:
        return [_finding(path, "pickle", "unscannable", str(error))]
    return [] if objects is None else [_judged(path, judge(objects, effort=effort))]


def _scan_json(path: str, reader: Reader) -> tuple[Finding, ...]:
    if reader.size <= MAX_JSON_BYTES:
        return judge_config(path, reader.read(0, reader.size))
    if _LARGE_JSON.fullmatch(path.lower()):
        return ()
    detail = f"JSON of {reader.size} bytes, more than any configuration has"
    return (_finding(path, "keras", "unscannable", detail),)


def _scan_zip(path: str, reader: Reader, effort: Effort) -> tuple[Finding, ...]:
    findings: list[Finding] = []
    unpacked = 0
    try:
        entries = ziparchive.entries(reader)
        names = {entry.name for entry in entries}
        for entry in entries:
            if _is_storage(path, entry.name, names):
                continue
            unpacked += 0 if entry.stored else entry.size
            if unpacked > _MAX_UNPACKED_BYTES or len(findings) >= _MAX_FINDINGS:
                detail = "a zip archive with more in it than is judged here"
                findings.append(_finding(path, "archive", "unscannable", detail))
                break
            findings += _scan_entry(path, reader, entry, effort)
    except FormatError as error:
        return (*findings, _finding(path, "archive", "unsafe", str(error)))
    if any(re.search(r"(?:^|/)code/.*\.py\Z", entry.name) for entry in entries):
        findings.append(
            _finding(path, "archive", "unscannable", "TorchScript, a program and not only weights")
        )
    return tuple(findings)


def _is_storage(path: str, name: str, names: set[str]) -> bool:
    """Tell whether an entry is a raw tensor of torch's, archive/data/0 and so on.

    torch loads it as nothing else. In other archives such names mean nothing.
    """
    match = _STORAGE_ENTRY.fullmatch(name)
    return match is not None and _named(path) and f"{match['prefix']}data.pkl" in names


def _scan_entry(
    path: str, reader: Reader, entry: ziparchive.Entry, effort: Effort
) -> tuple[Finding, ...]:
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
    # Python code is told about once, as TorchScript, or harmless where nothing imports it. Its name
    # excuses nothing else.
    code = entry.name.endswith(".py")
    found = scan(name, inner, effort)
    return tuple(one for one in found if not (code and one.kind == "remote-code"))


def _finding(path: str, kind: Kind, danger: Danger, detail: str) -> Finding:
    return Finding(path=path, kind=kind, danger=danger, detail=detail)
