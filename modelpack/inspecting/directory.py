"""Inspecting a pulled directory or a mounted volume, offline.

Owns joining its records (``pulled.py``) with the tensor headers of its files. Leaves out hashing
the files, which ``modelpack verify`` does.
"""

from collections.abc import Mapping
from pathlib import Path

from modelpack.descriptor import FORMAT_VERSION
from modelpack.inspecting import report
from modelpack.inspecting.headers import Headers, read_headers
from modelpack.inspecting.indexedfile import tree_chunks
from modelpack.inspecting.pulled import PulledDirectory, read_pulled
from modelpack.inspecting.report import (
    ChunkStatistics,
    Inspection,
    inspected_files,
    inspected_layers,
    read_facts,
    state_of,
)
from modelpack.metadata import MODEL
from modelpack.stores.files import Tree


def inspect_directory(directory: Path) -> Inspection:
    """Say what a pulled directory or mounted volume holds, by its own chunk index.

    Reads the records and the tensor headers, each chunk verified. Files that are gone or were
    changed since the pull are named in ``warnings``; their headers are not read.

    Raises:
        NotFoundError: no such directory, or it was not pulled by modelpack.
        FormatError, IntegrityError: its records are invalid, or a header has other bytes than the
            index says.
    """
    pulled = read_pulled(directory)
    manifest, index = pulled.manifest, pulled.index
    in_place = pulled.present()
    warnings = _warnings(pulled, in_place)
    headers = _headers(pulled, in_place)
    facts = read_facts(pulled.metadata.get(MODEL), warnings)
    absent = [file.path for file in index.files if file.path not in in_place] if index else []
    return Inspection(
        reference=pulled.reference,
        directory=str(directory),
        state=state_of(manifest) if manifest else report.MOUNTED,
        digest=str(manifest.digest) if manifest else None,
        media_type=manifest.media_type if manifest else None,
        artifact_type=manifest.artifact_type if manifest else None,
        config=manifest.config if manifest else None,
        format_version=manifest.annotations.get(FORMAT_VERSION) if manifest else None,
        files=inspected_files(index, headers.files, absent),
        model=facts,
        layers=inspected_layers(manifest.layers, index) if manifest else (),
        chunks=ChunkStatistics.of(index) if index else None,
        annotations=manifest.annotations if manifest else {},
        fetched_bytes=headers.fetched_bytes,
        warnings=(*warnings, *headers.warnings),
    )


def _headers(pulled: PulledDirectory, in_place: Mapping[str, bool]) -> Headers:
    index = pulled.index
    if index is None:
        return Headers(files={}, warnings=(), fetched_bytes=0)
    files = [file for file in index.files if in_place.get(file.path)]
    tree = Tree(pulled.path)
    try:
        return read_headers(index, files, tree_chunks(tree, index), where=str(pulled.path))
    finally:
        tree.close()


def _warnings(pulled: PulledDirectory, in_place: Mapping[str, bool]) -> list[str]:
    warnings = []
    if pulled.receipt is not None and not pulled.receipt.complete:
        warnings.append(f"{pulled.path}: a pull into it is not finished; run it again")
    if pulled.index is None:
        warnings.append(
            f"{pulled.path}: pulled from an artifact without a chunk index; files are not listed"
        )
        return warnings
    known = pulled.receipt.files if pulled.receipt else None
    for file in pulled.index.files:
        if known is not None and file.path not in known:
            continue  # the pull was told to leave it out
        if file.path not in in_place:
            warnings.append(f"{file.path!a} is missing; pull again")
        elif not in_place[file.path]:
            warnings.append(f"{file.path!a} was changed since it was pulled")
    return warnings
