"""In-toto statements: what a signature or an attestation says about a manifest.

Owns Statement v1 (in-toto attestation framework) and the predicate types that modelpack writes,
asks for and tells apart. Leaves out who said it (``dsse.py``) and what predicates hold.

A predicate type is part of what is claimed: an SBOM of an artifact is no consent to run it.
``cosign verify`` does not look at it, so there any attestation by the same signer passes as a
signature; ``verify.py`` does.

    >>> statement = Statement.parse(signature_statement(Digest.of(b"manifest")))
    >>> statement.predicate_type
    'https://sigstore.dev/cosign/sign/v1'
    >>> statement.names(Digest.of(b"manifest"))
    True
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelpack.digest import Digest
from modelpack.errors import FormatError
from modelpack.manifest import canonical_json, load_json
from modelpack.signing._fields import items, members, text

STATEMENT_V1 = "https://in-toto.io/Statement/v1"
STATEMENT_V01 = "https://in-toto.io/Statement/v0.1"

COSIGN_SIGN = "https://sigstore.dev/cosign/sign/v1"
CYCLONEDX = "https://cyclonedx.org/bom"
SPDX = "https://spdx.dev/Document"
SLSA_PROVENANCE = "https://slsa.dev/provenance/v1"
OMS_SIGNATURE = "https://model_signing/signature/v1.0"

# An attestation may cover every image of a release; a thousand is beyond any seen.
MAX_SUBJECTS = 1024
# In-toto's digest sets hold one value per algorithm; a dozen algorithms exist.
MAX_DIGESTS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """One artifact that a statement is about."""

    digests: Mapping[str, str]
    """Algorithm to lower-case hex."""
    name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """A predicate about subjects (in-toto attestation, "Statement")."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Any

    @classmethod
    def parse(cls, raw: bytes) -> "Statement":
        """Read the JSON of a Statement v1 or v0.1; a missing predicate reads as an empty one.

        Unknown members are ignored, as the specification asks.

        Raises:
            FormatError: not a statement.
        """
        value = members(
            load_json(raw, "the statement"),
            "the statement",
            required=("_type", "subject", "predicateType"),
            optional=None,
        )
        if value["_type"] not in (STATEMENT_V1, STATEMENT_V01):
            raise FormatError(f"{value['_type']!a:.100} is not a known statement type")
        subjects = items(value["subject"], "the statement's subject", max_items=MAX_SUBJECTS)
        if not subjects:
            raise FormatError("the statement has no subject")
        return cls(
            subjects=tuple(
                _subject(item, f"subject[{number}]") for number, item in enumerate(subjects)
            ),
            predicate_type=text(value["predicateType"], "the statement's predicateType"),
            predicate=value.get("predicate", {}),
        )

    def names(self, digest: Digest) -> bool:
        """Tell whether ``digest`` is one of the subjects."""
        return any(subject.digests.get(digest.algorithm) == digest.hex for subject in self.subjects)


def signature_statement(digest: Digest, *, name: str | None = None) -> bytes:
    """Return the statement by which cosign signs a manifest.

    ``name`` is left out, as cosign leaves it out, unless given: sigstore's Python client wants the
    member to be there, and an empty one means the same.
    """
    return _encode((_subject_json(digest, name),), COSIGN_SIGN, {})


def attestation(
    digest: Digest, predicate_type: str, predicate: Any, *, name: str | None = None
) -> bytes:
    """Return a statement that ``predicate`` holds for a manifest; ``name`` is its repository."""
    return _encode((_subject_json(digest, name),), predicate_type, predicate)


def _encode(subjects: tuple[dict[str, Any], ...], predicate_type: str, predicate: Any) -> bytes:
    return canonical_json(
        {
            "_type": STATEMENT_V1,
            "subject": list(subjects),
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def _subject_json(digest: Digest, name: str | None) -> dict[str, Any]:
    value: dict[str, Any] = {} if name is None else {"name": name}
    return value | {"digest": {digest.algorithm: digest.hex}}


def _subject(value: Any, where: str) -> Subject:
    members(value, where, required=("digest",), optional=None)
    digests = members(value["digest"], f"{where}.digest", optional=None)
    if not digests or len(digests) > MAX_DIGESTS:
        raise FormatError(f"{where}.digest holds {len(digests)} digests, not 1 to {MAX_DIGESTS}")
    name = value.get("name")
    return Subject(
        name=None if name is None else text(name, f"{where}.name"),
        digests={
            text(algorithm, where): text(hexed, f"{where}.digest")
            for algorithm, hexed in digests.items()
        },
    )
