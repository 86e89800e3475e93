"""OpenSSF Model Signing (OMS) 1.0: one signature over all files of a model.

Owns the statement over (name, digest) pairs, its bundle, and comparing a signed list with what is
on disk. Leaves out hashing files: the chunk index holds every file's BLAKE3, so signing reads no
file again. The bundle is what ``model_signing`` calls ``model.sig``.

It cannot double as the signature on the manifest: OMS and cosign name keys by different hints,
and for EC P-384 and P-521 they hash differently.

    >>> from modelpack.signing.keys import PrivateKey
    >>> key = PrivateKey.generate()
    >>> files = [FileDigest(name="config.json", algorithm="sha256", digest=bytes(32))]
    >>> raw = sign_files("llama", files, key)
    >>> verify_files(raw, [key.public_key], files).model
    'llama'
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.errors import FormatError, IntegrityError, PolicyError, UsageError
from modelpack.manifest import canonical_json
from modelpack.paths import SIGNATURE_NAME, check_path
from modelpack.signing import dsse
from modelpack.signing._fields import items, members, text
from modelpack.signing.bundle import Bundle, key_bundle, parse_bundle
from modelpack.signing.keys import PrivateKey, PublicKey
from modelpack.signing.statement import OMS_SIGNATURE, STATEMENT_V1, Statement

# What model_signing passes over at the top of a directory whatever it is told, so that signing one
# of these would make its verification fail.
ALWAYS_IGNORED = (".git", ".gitattributes", ".github", ".gitignore")

_DIGEST_BYTES = {"sha256": 32, "blake3": 32}
# A repository of a million files is beyond any model; the list must stay in memory.
MAX_FILES = 1_000_000
_MAX_IGNORED = 1024
_HEX = re.compile(r"[0-9a-f]+\Z")
# A message that names thousands of files helps nobody.
_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDigest:
    """A file by its path below the model directory, and its whole-file digest."""

    name: str
    algorithm: str
    """``sha256`` or ``blake3``."""
    digest: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedFiles:
    """What a verified OMS signature says."""

    model: str
    """The signer's name for the directory; informative only."""
    algorithm: str
    files: tuple[FileDigest, ...]
    ignored: tuple[str, ...]
    """Paths that the signature does not cover, with everything below them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How files differ from what was signed; empty everywhere when they do not."""

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    extra: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.changed or self.extra)

    def __str__(self) -> str:
        parts = (("missing", self.missing), ("changed", self.changed), ("extra", self.extra))
        return "; ".join(f"{label}: {_shown(names)}" for label, names in parts if names)


def covered(name: str, ignored: Iterable[str] = ()) -> bool:
    """Tell whether OMS signs a file of this name, given the signature's ignored paths."""
    return not any(
        name == path or name.startswith(path + "/")
        for path in (SIGNATURE_NAME, *ALWAYS_IGNORED, *ignored)
    )


def files_statement(model: str, files: Iterable[FileDigest], ignored: Sequence[str] = ()) -> bytes:
    """Return the statement to sign: names sorted part by part, one digest over all of them.

    The subject's digest is SHA-256 over the raw file digests in the order of the list. Files that
    OMS does not cover are left out.

    Raises:
        UsageError: no file is left, or the digests are not all of one accepted algorithm.
        FormatError: a path that no artifact may hold.
    """
    listed = sorted(
        (file for file in files if covered(file.name, ignored)),
        key=lambda file: file.name.split("/"),
    )
    if not listed:
        raise UsageError("there is no file to sign")
    algorithm = listed[0].algorithm
    for file in listed:
        check_path(file.name)
        if file.algorithm != algorithm or len(file.digest) != _DIGEST_BYTES.get(algorithm):
            raise UsageError(f"{file.name!a}: digests must all be sha256 or all be blake3")
    return canonical_json(
        {
            "_type": STATEMENT_V1,
            "subject": [{"name": model, "digest": {"sha256": _root_digest(listed)}}],
            "predicateType": OMS_SIGNATURE,
            "predicate": {
                "serialization": {
                    "method": "files",
                    "hash_type": algorithm,
                    "allow_symlinks": False,
                    "ignore_paths": list(
                        dict.fromkeys((SIGNATURE_NAME, *ALWAYS_IGNORED, *ignored))
                    ),
                },
                "resources": [
                    {"name": file.name, "algorithm": file.algorithm, "digest": file.digest.hex()}
                    for file in listed
                ],
            },
        }
    )


def sign_files(
    model: str, files: Iterable[FileDigest], key: PrivateKey, ignored: Sequence[str] = ()
) -> bytes:
    """Return the bytes of ``model.sig``; raises as ``files_statement``."""
    envelope = dsse.sign(files_statement(model, files, ignored), key, curve_hash=True)
    return key_bundle(envelope, key.public_key.oms_hint)


def verify_signature(raw: bytes, keys: Collection[PublicKey]) -> tuple[SignedFiles, PublicKey]:
    """Verify the bundle of a key and return the signed list and the key that signed it.

    Raises:
        FormatError: not an OMS bundle.
        PolicyError: none of ``keys`` signed it, or it was signed by a certificate.
    """
    bundle = parse_bundle(raw)
    if bundle.hint is None:
        raise PolicyError("the model signature was made with a certificate, not with a key")
    signers = bundle.envelope.signers(key for key in keys if bundle.may_be_by(key))
    if not signers:
        raise PolicyError(
            f"the model signature is by none of the {len(keys)} given keys "
            f"(it names {bundle.hint[:80]!a})"
        )
    return signed_files(bundle), signers[0]


def verify_files(
    raw: bytes, keys: Collection[PublicKey], actual: Iterable[FileDigest]
) -> SignedFiles:
    """Verify the signature and that exactly the signed files are there, with the signed bytes.

    ``actual`` may list files that the signature does not cover; they are passed over.

    Raises:
        FormatError: not an OMS bundle.
        PolicyError: none of ``keys`` signed it.
        IntegrityError: files are missing, changed or extra; the message names them.
    """
    signed, _ = verify_signature(raw, keys)
    difference = compare(signed, actual)
    if difference:
        raise IntegrityError(f"the files are not the signed ones: {difference}")
    return signed


def compare(signed: SignedFiles, actual: Iterable[FileDigest]) -> Difference:
    """Compare what was signed with what is there; the digests must be of ``signed.algorithm``."""
    wanted = {file.name: file for file in signed.files}
    found = {file.name: file for file in actual if covered(file.name, signed.ignored)}
    return Difference(
        missing=tuple(sorted(wanted.keys() - found.keys())),
        changed=tuple(
            sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
        ),
        extra=tuple(sorted(found.keys() - wanted.keys())),
    )


def signed_files(bundle: Bundle) -> SignedFiles:
    """Read the list out of a bundle whose signature the caller has verified.

    Raises:
        FormatError: another payload or predicate type, a serialization other than whole files
            under SHA-256 or BLAKE3, or a subject that is not the digest of the list.
    """
    # 1. It is a statement of the right predicate about exactly one subject.
    if bundle.envelope.payload_type != dsse.IN_TOTO:
        raise FormatError(f"the payload is {bundle.envelope.payload_type[:80]!a}, not a statement")
    statement = Statement.parse(bundle.envelope.payload)
    if statement.predicate_type != OMS_SIGNATURE:
        raise FormatError(
            f"the statement is {statement.predicate_type[:100]!a}, not a signature over files"
        )
    if len(statement.subjects) != 1:
        raise FormatError(f"the statement has {len(statement.subjects)} subjects, not one")
    # 2. The list was made in a way that can be repeated here.
    predicate = members(
        statement.predicate,
        "the predicate",
        required=("serialization", "resources"),
        optional=None,
    )
    algorithm, ignored = _serialization(predicate["serialization"])
    # 3. Every entry is a path and a digest of that algorithm, and no path occurs twice.
    resources = items(predicate["resources"], "resources", max_items=MAX_FILES)
    files = tuple(
        _resource(value, f"resources[{number}]", algorithm)
        for number, value in enumerate(resources)
    )
    if len({file.name for file in files}) != len(files):
        raise FormatError("resources names a file twice")
    # 4. The subject is the digest of the list in its own order.
    if statement.subjects[0].digests.get("sha256") != _root_digest(files):
        raise FormatError("the statement's subject is not the digest of its resources")
    return SignedFiles(
        model=statement.subjects[0].name or "", algorithm=algorithm, files=files, ignored=ignored
    )


def _serialization(value: Any) -> tuple[str, tuple[str, ...]]:
    members(value, "serialization", required=("method", "hash_type"), optional=None)
    if value["method"] != "files":
        raise FormatError(
            f"serialization method {value['method']!a:.60} is not supported; sign whole files"
        )
    algorithm = value["hash_type"]
    if not isinstance(algorithm, str) or algorithm not in _DIGEST_BYTES:
        raise FormatError(f"hash type {algorithm!a:.60} is not supported; use sha256 or blake3")
    ignored = items(value.get("ignore_paths", []), "ignore_paths", max_items=_MAX_IGNORED)
    # model_signing writes paths outside the directory too; they cover nothing in it.
    return algorithm, tuple(text(path, "ignore_paths").rstrip("/") for path in ignored)


def _resource(value: Any, where: str, algorithm: str) -> FileDigest:
    members(value, where, required=("name", "algorithm", "digest"), optional=None)
    if value["algorithm"] != algorithm:
        raise FormatError(f"{where} is not hashed with {algorithm}")
    digest = text(value["digest"], f"{where}.digest")
    if len(digest) != 2 * _DIGEST_BYTES[algorithm] or not _HEX.match(digest):
        raise FormatError(f"{where}.digest is not a {algorithm} digest in lower-case hex")
    return FileDigest(
        name=check_path(value["name"]), algorithm=algorithm, digest=bytes.fromhex(digest)
    )


def _root_digest(files: Iterable[FileDigest]) -> str:
    hasher = hashlib.sha256()
    for file in files:
        hasher.update(file.digest)
    return hasher.hexdigest()


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(ascii(name) for name in names[:_SHOWN]) + more
