"""Signing a model where it is stored: which statements are made, signed and attached.

Owns their order and choice, and the result. Leaves out who signs (``authors.py``) and how bundles
are attached (``attaching.py``).

1. The manifest: cosign's own statement, so that ``cosign verify`` accepts it.
2. The files: OpenSSF Model Signing over the digests in the chunk index, so no file is read again.
   SHA-256, which ``model_signing``'s command line wants, is not in the index: for it the directory
   that was pushed is read once, and held against the index's BLAKE3 while it is.
3. Attestations: the SBOM that the artifact carries, and the provenance of this run.
4. If asked for, the older ``.sig``, which Podman's and CRI-O's policies read.

Run again with the same key, what is signed already is not signed twice.

    result = sign_model(repository, manifest, author, SigningOptions(attest=("sbom",)))
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

from modelpack.artifact import Artifact, is_intact, is_packed, load_artifact
from modelpack.content import PIECE_BYTES
from modelpack.digest import Digest
from modelpack.errors import FormatError, IntegrityError, UsageError
from modelpack.facts import ModelFacts
from modelpack.manifest import Index, Manifest, load_json
from modelpack.metadata import MODEL, SBOM
from modelpack.parallel import for_each
from modelpack.paths import METADATA_DIR
from modelpack.reference import Reference
from modelpack.sbom.inband import check_in_band, in_band
from modelpack.sbom.texts import source_date
from modelpack.scan import ScannedFile
from modelpack.signing import simplesigning
from modelpack.signing.bundle import parse_bundle
from modelpack.signing.oms import FileDigest, files_statement
from modelpack.signing.statement import (
    COSIGN_SIGN,
    CYCLONEDX,
    OMS_SIGNATURE,
    SLSA_PROVENANCE,
    attestation,
    signature_statement,
)
from modelpack.storage import Repository
from modelpack.trust import provenance
from modelpack.trust.attaching import Attached, attach_bundle, attach_simple
from modelpack.trust.authors import Author, KeyAuthor
from modelpack.trust.collecting import Collected, collect

ATTESTATIONS = ("sbom", "provenance")
"""What ``sign --attest`` takes."""
HASHES = ("blake3", "sha256")
# The paths that modelpack adds to a directory, which no signature over the files covers.
IGNORED = (METADATA_DIR,)


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningOptions:
    """What to sign besides the manifest."""

    files: bool = True
    """Sign the files (OpenSSF Model Signing), where the artifact has a chunk index."""
    files_hash: str = "blake3"
    """One of ``HASHES``; ``sha256`` needs ``sources``."""
    sources: Mapping[str, ScannedFile] = field(default_factory=dict)
    """The local files by their paths in the artifact, to be read for ``sha256``."""
    attest: tuple[str, ...] = ()
    """Of ``ATTESTATIONS``."""
    legacy: bool = False
    """Also write the older ``.sig``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningResult:
    """What was signed."""

    reference: str
    digest: str
    signer: str
    attached: tuple[Attached, ...]
    unchanged: tuple[str, ...]
    """Predicate types that this key has signed before, with the same content."""
    bundle: bytes | None = field(default=None, repr=False)
    """The signature of the manifest, made now or before."""

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``--json`` prints."""
        return {
            "reference": self.reference,
            "digest": self.digest,
            "signer": self.signer,
            "attached": [one.to_json() for one in self.attached],
            "unchanged": list(self.unchanged),
        }


def sign_model(
    repository: Repository,
    manifest: Manifest | Index,
    author: Author,
    options: SigningOptions | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    now: datetime | None = None,
) -> SigningResult:
    """Sign a manifest that the caller has fetched by digest, and what ``options`` ask for.

    A normal return proves that the repository has taken every bundle and lists it.

    Raises:
        UsageError: what is asked for cannot be had of this artifact, or not with this author.
        IntegrityError: the local files are not those of the artifact.
        AuthError, NetworkError, SpaceError: as the repository or the services say.
    """
    chosen = options or SigningOptions()
    _check(chosen, author)
    run = _Signing(repository, manifest, author, chosen, environ, created(environ, now))
    return run.run()


def attest(
    repository: Repository,
    manifest: Manifest | Index,
    author: Author,
    predicate_type: str,
    predicate: Any,
    *,
    environ: Mapping[str, str] = os.environ,
) -> SigningResult:
    """Attach one statement about a manifest, with a predicate that the caller has."""
    run = _Signing(repository, manifest, author, SigningOptions(), environ, created(environ, None))
    run.attest(predicate_type, predicate)
    return run.result()


def created(environ: Mapping[str, str], now: datetime | None) -> datetime:
    """Return the time to write: ``SOURCE_DATE_EPOCH``, where that is set, else ``now``.

    Raises:
        UsageError: the variable is no time.
    """
    return source_date(environ) or now or datetime.now(UTC)


def file_digests(artifact: Artifact, options: SigningOptions) -> list[FileDigest]:
    """Return the digests of all files, from the index or, for SHA-256, from the local files.

    Raises:
        UsageError: a file of the artifact is not among the local ones.
        IntegrityError: a local file is not the artifact's.
    """
    files = artifact.index.files
    if options.files_hash == "blake3":
        return [FileDigest(name=one.path, algorithm="blake3", digest=one.blake3) for one in files]
    missing = [one.path for one in files if one.path not in options.sources]
    if missing:
        raise UsageError(
            f"{missing[0]!a:.200} is in the artifact and not in the directory; signing with sha256 "
            "reads the files that were pushed"
        )
    digests: dict[str, bytes] = {}

    def hash_file(number: int) -> None:
        one = files[number]
        sha256, ours = _hashes(options.sources[one.path])
        if ours != one.blake3:
            raise IntegrityError(
                f"{options.sources[one.path].source} is not the file that the artifact holds"
            )
        digests[one.path] = sha256

    for_each(hash_file, range(len(files)), os.cpu_count() or 1)
    return [FileDigest(name=name, algorithm="sha256", digest=raw) for name, raw in digests.items()]


class _Signing:
    """One run: what is there already, and what was attached."""

    def __init__(
        self,
        repository: Repository,
        manifest: Manifest | Index,
        author: Author,
        options: SigningOptions,
        environ: Mapping[str, str],
        moment: datetime,
    ) -> None:
        self._repository = repository
        self._manifest = manifest
        self._digest: Digest = manifest.digest
        self._author = author
        self._options = options
        self._environ = environ
        self._moment = moment
        self._artifact: Artifact | None = None
        self._before: Collected | None = None
        self._attached: list[Attached] = []
        self._unchanged: list[str] = []
        self._bundle: bytes | None = None

    def run(self) -> SigningResult:
        # Whatever can fail for want of something is made before anything is attached.
        predicates = [self._predicate(kind) for kind in self._options.attest]
        files = self._files()
        statement = signature_statement(self._digest, name=self._author.subject_name)
        self._bundle = self._signed_before(COSIGN_SIGN, statement)
        if self._bundle is None:
            self._bundle = self._author.sign(statement)
            self._attach(self._bundle, COSIGN_SIGN)
        if files:
            name = _model_name(self._repository.reference)
            if self._signed_before(OMS_SIGNATURE, files_statement(name, files, IGNORED)) is None:
                raw = self._author.sign_files(name, files, IGNORED)
                self._attach(raw, OMS_SIGNATURE)
        for predicate_type, predicate in predicates:
            self.attest(predicate_type, predicate)
        if self._options.legacy:
            self._sign_simple()
        return self.result()

    def attest(self, predicate_type: str, predicate: Any) -> None:
        name = self._repository.reference.repository_name
        statement = attestation(self._digest, predicate_type, predicate, name=name)
        if self._signed_before(predicate_type, statement) is None:
            self._attach(self._author.sign(statement), predicate_type)

    def result(self) -> SigningResult:
        return SigningResult(
            reference=str(self._repository.reference),
            digest=str(self._digest),
            signer=self._author.name,
            attached=tuple(self._attached),
            unchanged=tuple(self._unchanged),
            bundle=self._bundle,
        )

    def _attach(self, raw: bytes, predicate_type: str) -> None:
        self._attached.append(
            attach_bundle(
                self._repository,
                self._manifest,
                raw,
                predicate_type=predicate_type,
                created=self._moment,
            )
        )

    def _sign_simple(self) -> None:
        assert isinstance(self._author, KeyAuthor)  # _check has made sure
        signed = simplesigning.sign(
            self._repository.reference.repository_name, self._digest, self._author.key
        )
        self._attached.append(attach_simple(self._repository, self._manifest, signed))

    def _signed_before(self, predicate_type: str, statement: bytes) -> bytes | None:
        """Return the attached bundle by which this key has signed these very bytes."""
        signer = self._author.signer
        if signer is None:
            return None
        if self._before is None:
            self._before = collect(self._repository, self._digest)
        of_files = predicate_type == OMS_SIGNATURE
        # One that is called something else is not found by those who verify.
        for _, raw in self._before.model_signatures if of_files else self._before.bundles:
            try:
                envelope = parse_bundle(raw).envelope
            except FormatError:
                continue
            if envelope.payload == statement and envelope.signers([signer.key]):
                self._unchanged.append(predicate_type)
                return raw
        return None

    def _files(self) -> list[FileDigest]:
        if not self._options.files or not _has_index(self._manifest):
            return []
        return file_digests(self._load(), self._options)

    def _predicate(self, kind: str) -> tuple[str, Any]:
        reference = self._repository.reference
        if not _has_index(self._manifest):
            raise UsageError(f"{reference} was not packed by modelpack; --attest needs that")
        artifact = self._load()
        if kind == "sbom":
            # What others packed may describe other files; an attestation must not vouch for that.
            return CYCLONEDX, check_in_band(self._sbom(artifact), artifact.index)
        facts = load_json(artifact.metadata.get(MODEL, b"{}"), MODEL)
        finished = self._moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return SLSA_PROVENANCE, provenance.predicate(
            reference.repository_name,
            facts=facts,
            annotations=artifact.manifest.annotations,
            environ=self._environ,
            finished=finished,
        )

    def _sbom(self, artifact: Artifact) -> bytes:
        """Return the SBOM that the artifact carries, or make the one that it would."""
        carried = artifact.metadata.get(SBOM)
        if carried is not None:
            return carried
        facts = ModelFacts.from_json(load_json(artifact.metadata.get(MODEL, b"{}"), MODEL))
        return in_band(facts, artifact.index, timestamp=source_date(self._environ))

    def _load(self) -> Artifact:
        if self._artifact is None:
            assert isinstance(self._manifest, Manifest)  # _has_index has made sure
            self._artifact = load_artifact(self._repository, self._manifest)
        return self._artifact


def _check(options: SigningOptions, author: Author) -> None:
    unknown = [kind for kind in options.attest if kind not in ATTESTATIONS]
    if unknown:
        raise UsageError(f"--attest takes {' and '.join(ATTESTATIONS)}, not {unknown[0]!a:.60}")
    if options.files_hash not in HASHES:
        raise UsageError(f"--oms-hash takes {' or '.join(HASHES)}, not {options.files_hash!a:.60}")
    if options.files and options.files_hash == "sha256" and not options.sources:
        raise UsageError("--oms-hash sha256 reads the model's files: name their directory")
    if options.legacy and not isinstance(author, KeyAuthor):
        raise UsageError("--legacy-sig needs a --key; the older signature knows no other signer")


def _has_index(manifest: Manifest | Index) -> bool:
    return isinstance(manifest, Manifest) and is_packed(manifest) and is_intact(manifest)


def _model_name(reference: Reference) -> str:
    return reference.repository_name.rstrip("/").rpartition("/")[2]


def _hashes(file: ScannedFile) -> tuple[bytes, bytes]:
    """Return SHA-256 and BLAKE3 of a file, read once."""
    sha256, ours = hashlib.sha256(), blake3()
    for piece in _pieces(file.source):
        sha256.update(piece)
        ours.update(piece)
    return sha256.digest(), ours.digest()


def _pieces(path: Path) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(PIECE_BYTES))
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                yield buffer[:count]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
