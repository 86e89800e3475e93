"""The SBOM that travels inside the artifact, beside the chunk index (docs/adr/0010-sbom-in-band.md).

Owns making it at push, and proving on the way back that it speaks of the files that are there.
Leaves out reading the metadata layer, whose digest proves that nobody changed it.

    metadata = {CHUNKS: encode_index(index), SBOM: in_band(facts, index)}
"""

from datetime import datetime
from typing import Any

from blake3 import blake3

from modelpack.chunkindex import MAX_HEAD_BYTES, ChunkIndex, encode_index
from modelpack.errors import FormatError, IntegrityError
from modelpack.facts import ModelFacts
from modelpack.manifest import load_json
from modelpack.metadata import CHUNKS, SBOM
from modelpack.paths import METADATA_DIR
from modelpack.sbom.cdxdocument import Document
from modelpack.sbom.cyclonedx import write_cyclonedx
from modelpack.sbom.subject import Subject
from modelpack.sbom.supplement import Supplement

MAX_SBOM_BYTES = MAX_HEAD_BYTES + 16 * 1024 * 1024
"""A file takes less room here than in the head of the chunk index, whose bound is the first part;
the facts, 256 of each kind with 1,024 characters, and a supplement of 1 MiB stay under the second."""


def in_band(
    facts: ModelFacts,
    index: ChunkIndex,
    *,
    supplement: Supplement | None = None,
    timestamp: datetime | None = None,
) -> bytes:
    """Return the CycloneDX document of a model that is being packed.

    The same arguments give the same bytes, whenever and wherever: it holds no reference, no version
    of modelpack, and no time but ``timestamp``, which a push takes from SOURCE_DATE_EPOCH and
    nowhere else. The files' hashes are those of the chunk index, so no file is read for them.
    """
    return write_cyclonedx(
        Subject(
            facts=facts, index=index, supplement=supplement or Supplement(), timestamp=timestamp
        )
    )


def check_in_band(raw: bytes, index: ChunkIndex) -> Any:
    """Return an artifact's own SBOM as JSON, proved to list the artifact's files.

    The digest of the metadata layer proves who the bytes are from; this proves that an author did
    not describe other files than the chunk index has.

    Raises:
        FormatError: it is not a CycloneDX document, or larger than any that modelpack writes.
        IntegrityError: a file is missing from it, is not in the artifact, or has another hash.
    """
    if len(raw) > MAX_SBOM_BYTES:
        raise FormatError(f"{SBOM} is larger than {MAX_SBOM_BYTES} bytes")
    value = load_json(raw, SBOM)
    document = Document(value)
    if document.at("bomFormat") != "CycloneDX" or not document.text("specVersion"):
        raise FormatError(f"{SBOM} is not a CycloneDX document")
    listed = {
        name: hashes.get("BLAKE3")
        for file in document.components("file")
        if (name := document.text("name", of=file))
        for hashes in [_hashes(document, file)]
    }
    whole = f"{METADATA_DIR}/{CHUNKS}"
    if set(listed) == {whole}:
        expected = {whole: blake3(encode_index(index)).hexdigest()}
    else:
        expected = {file.path: file.blake3.hex() for file in index.files}
    odd = [path for path in listed.keys() | expected if listed.get(path) != expected.get(path)]
    if odd:
        raise IntegrityError(
            f"{SBOM} describes other files than the artifact has, {min(odd)!a} for one; "
            "ask whoever packed it, and do not rely on it"
        )
    return value


def _hashes(document: Document, file: dict[str, Any]) -> dict[str, str]:
    return {
        algorithm: content
        for item in document.items("hashes", of=file)
        if (algorithm := document.text("alg", of=item))
        and (content := document.text("content", of=item))
    }
