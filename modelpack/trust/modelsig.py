"""The signature over the files, ``model.sig``: verifying it, and holding a directory against it.

Owns both, offline. Leaves out its format (``signing/oms.py``) and how it gets into the directory
(``carried.py``).

    report = verify_signed_directory(Path("/models/llama"), signers, None)
    assert report.ok, report.changed
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from modelpack.chunkindex import ChunkIndex
from modelpack.content import PIECE_BYTES
from modelpack.errors import IntegrityError, NotFoundError, PolicyError, UsageError
from modelpack.events import Finished, Moved, Observer, Planned, ignore
from modelpack.parallel import for_each
from modelpack.paths import METADATA_DIR, SIGNATURE_NAME
from modelpack.signing.bundle import parse_bundle
from modelpack.signing.names import MAX_BUNDLE_BYTES
from modelpack.signing.oms import (
    FileDigest,
    SignedFiles,
    compare,
    covered,
    signed_files,
    verify_signature,
)
from modelpack.signing.verify import CertificateVerifier, IdentitySigner, KeySigner, Signer
from modelpack.stores.files import Tree
from modelpack.stores.receipts import read_receipt
from modelpack.trust.authors import read_bounded

_HASHERS: dict[str, Callable[[], Any]] = {"blake3": blake3, "sha256": hashlib.sha256}


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedDirectory:
    """What a directory holds, compared with what was signed."""

    directory: str
    signer: Signer
    signed: SignedFiles
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    extra: tuple[str, ...]
    unselected: int
    """Signed files that the pull was told to leave out."""

    @property
    def ok(self) -> bool:
        """Whether exactly the signed files are there, as far as they were asked for."""
        return not (self.missing or self.changed or self.extra)

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``--json`` prints."""
        receipt = read_receipt(Path(self.directory))
        count = len(self.signed.files)
        detail = f"{self.signed.algorithm} of {count} files by {self.signer.name}"
        problems = ", ".join(
            f"{len(names)} {label}"
            for label, names in (
                ("missing", self.missing), ("changed", self.changed), ("extra", self.extra)
            )
            if names
        )  # fmt: skip
        return {
            "ok": self.ok,
            "directory": self.directory,
            "reference": receipt.reference if receipt else None,
            "digest": receipt.digest if receipt else None,
            "files": count,
            "missing": list(self.missing),
            "changed": list(self.changed),
            "extra": list(self.extra),
            "unselected": self.unselected,
            "rules": [
                {"rule": "signers", "ok": True, "detail": detail},
                {"rule": "files", "ok": self.ok, "detail": problems or "all are as signed"},
            ],
            "signatures": [
                {
                    "ok": True,
                    "signer": self.signer.identifier,
                    "signerName": self.signer.name,
                    "detail": detail,
                    "source": SIGNATURE_NAME,
                }
            ],
            "attestations": [],
        }


def verify_model_signature(
    raw: bytes, signers: Sequence[Signer], certificates: CertificateVerifier | None
) -> tuple[SignedFiles, Signer]:
    """Verify a signature over files, by a key or by an identity; return the list and who signed.

    Raises:
        FormatError: not such a bundle.
        PolicyError: none of the signers made it.
    """
    bundle = parse_bundle(raw)
    if bundle.certificate is None:
        keys = [signer for signer in signers if isinstance(signer, KeySigner)]
        signed, key = verify_signature(raw, [signer.key for signer in keys])
        return signed, next(signer for signer in keys if signer.key == key)
    identities = [signer for signer in signers if isinstance(signer, IdentitySigner)]
    if certificates is None or not identities:
        raise PolicyError("the model signature is by a certificate, but only keys are accepted")
    identity, _, _ = certificates.verify(raw, identities)
    return signed_files(bundle), identity


def matches_index(signed: SignedFiles, index: ChunkIndex) -> bool | None:
    """Tell whether a verified list is of the files of an index; None if only their bytes can tell.

    The index holds BLAKE3; for a list of SHA-256 the names alone are compared.
    """
    algorithm = signed.algorithm
    if algorithm == "blake3":
        actual = [
            FileDigest(name=file.path, algorithm=algorithm, digest=file.blake3)
            for file in index.files
        ]
        return not compare(signed, actual)
    names = {file.path for file in index.files if covered(file.path, signed.ignored)}
    return None if names == {file.name for file in signed.files} else False


def verify_signed_directory(
    directory: Path,
    signers: Sequence[Signer],
    certificates: CertificateVerifier | None,
    *,
    signature: Path | None = None,
    observer: Observer = ignore,
) -> SignedDirectory:
    """Hold a directory against its ``model.sig``: offline, every byte hashed.

    Nothing in the directory is believed but what one of ``signers`` signed.

    Raises:
        NotFoundError: no such directory, or no signature in it.
        FormatError: the signature is none.
        PolicyError: none of the signers made it.
    """
    if not directory.is_dir():
        raise NotFoundError(f"{directory} is not a directory")
    place = signature or directory / SIGNATURE_NAME
    try:
        # Whoever names a file may name a pipe; one that lies in the directory could wait forever.
        if signature is None and place.exists() and not place.is_file():
            raise UsageError(f"{place} is no regular file; remove it, and pull again")
        raw = read_bounded(place, MAX_BUNDLE_BYTES, "signature")
    except NotFoundError as error:
        raise NotFoundError(
            f"{place} does not exist; only a model that was signed has it: pull it again, or "
            "check its chunk index without --key"
        ) from error
    signed, signer = verify_model_signature(raw, signers, certificates)
    names = {file.name for file in signed.files}
    absent, changed = _hold(directory, signed.files, observer)
    # The receipt is not signed. It may excuse a file that is not there, and nothing else.
    receipt = read_receipt(directory)
    left_out = receipt is not None and receipt.selected
    missing = [
        name for name in absent if not left_out or (receipt is not None and name in receipt.files)
    ]
    found = (path for path in _files_below(directory) if covered(path, _ignored(signed)))
    return SignedDirectory(
        directory=str(directory),
        signer=signer,
        signed=signed,
        missing=tuple(sorted(missing)),
        changed=tuple(sorted(changed)),
        extra=tuple(sorted(path for path in found if path not in names)),
        unselected=len(absent) - len(missing),
    )


def _ignored(signed: SignedFiles) -> tuple[str, ...]:
    """Return what is not looked at, whoever signed: a pull's own bookkeeping is not the model."""
    return (METADATA_DIR, *signed.ignored)


def _hold(
    directory: Path, files: Sequence[FileDigest], observer: Observer
) -> tuple[list[str], list[str]]:
    missing: list[str] = []
    changed: list[str] = []
    tree = Tree(directory)

    def check(file: FileDigest) -> None:
        try:
            status = tree.stat(file.name)
        except IntegrityError:
            changed.append(file.name)
            return
        if status is None:
            missing.append(file.name)
        elif _digest(tree, file, observer) != file.digest:
            changed.append(file.name)
        observer(Finished(item=file.name))

    try:
        sizes = [(file.name, _size(tree, file.name)) for file in files]
        observer(
            Planned(total_bytes=sum(size for _, size in sizes), reused_bytes=0, items=tuple(sizes))
        )
        for_each(check, files, os.cpu_count() or 1)
    finally:
        tree.close()
    return missing, changed


def _size(tree: Tree, path: str) -> int:
    try:
        status = tree.stat(path)
    except IntegrityError:
        return 0
    return status.st_size if status else 0


def _digest(tree: Tree, file: FileDigest, observer: Observer) -> bytes:
    hasher = _HASHERS[file.algorithm]()
    buffer = memoryview(bytearray(PIECE_BYTES))
    fd = tree.open(file.name)
    try:
        offset = 0
        while count := os.preadv(fd, [buffer], offset):
            hasher.update(buffer[:count])
            offset += count
            observer(Moved(item=file.name, size=count))
    except OSError as error:
        raise UsageError(f"{tree.root / file.name} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    return bytes(hasher.digest())


def _files_below(directory: Path) -> Iterator[str]:
    """Yield every path below a directory that is no directory itself, links included."""
    pending = [""]
    while pending:
        relative = pending.pop()
        for entry in os.scandir(directory / relative):
            path = f"{relative}/{entry.name}" if relative else entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            else:
                yield path
