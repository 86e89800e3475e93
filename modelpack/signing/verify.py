"""One verdict for every signature found: what it is, who made it, whether it counts.

Owns the steps of verification, numbered as in the documentation, and counting distinct signers.
Leaves out fetching (the caller passes bytes) and what is required (``policy.py``). A signature
that fails is a verdict with a reason, never an exception: one bad referrer among good ones must
not stop a pull, and must be shown.

    >>> from modelpack.signing import bundle, dsse, keys, statement
    >>> key, manifest = keys.PrivateKey.generate(), Digest.of(b"manifest")
    >>> envelope = dsse.sign(statement.signature_statement(manifest), key)
    >>> raw = bundle.key_bundle(envelope, key.public_key.cosign_hint)
    >>> signer = KeySigner(name="team.pub", key=key.public_key)
    >>> verify_bundle(raw, subject=manifest, signers=[signer]).kind
    'signature'
    >>> verify_bundle(raw, subject=Digest.of(b"other"), signers=[signer]).detail
    'signed, but about another manifest'
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from modelpack.digest import Digest
from modelpack.errors import FormatError, ModelpackError, NetworkError, PolicyError
from modelpack.signing import simplesigning
from modelpack.signing.bundle import Bundle, parse_bundle
from modelpack.signing.dsse import IN_TOTO
from modelpack.signing.keys import PublicKey
from modelpack.signing.statement import COSIGN_SIGN, Statement

Kind = Literal["signature", "attestation", "unknown"]

# A manifest has a handful of signatures and attestations, of some megabytes with its SBOMs. Beyond
# this it is a flood, which would take minutes to verify, and nothing is believed.
MAX_BUNDLES = 256
MAX_BUNDLES_BYTES = 256 * 1024 * 1024
_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class KeySigner:
    """Whoever holds a private key."""

    name: str
    """How people call it: the file it was read from."""
    key: PublicKey

    @property
    def identifier(self) -> str:
        """What makes two signers the same one, however often a policy lists it."""
        return f"key:sha256:{self.key.fingerprint}"


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentitySigner:
    """Whoever an issuer of identity tokens vouches for. Both are compared exactly."""

    identity: str
    issuer: str

    @property
    def name(self) -> str:
        """How people call it."""
        return self.identity

    @property
    def identifier(self) -> str:
        """What makes two signers the same one."""
        return f"identity:{self.issuer} {self.identity}"


Signer = KeySigner | IdentitySigner


class CertificateVerifier(Protocol):
    """What verifies bundles of certificates; ``keyless.SigstoreVerifier`` does."""

    def verify(
        self, raw: bytes, signers: Sequence[IdentitySigner]
    ) -> tuple[IdentitySigner, str, bytes]:
        """Return who signed, the payload's type and its bytes, once everything around them holds.

        That is: certificate, issuance and transparency log, time, identity, signature.

        Raises:
            PolicyError: something does not hold, or the certificate is none of the signers'.
            FormatError: not a bundle that can be verified.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class SignatureVerdict:
    """What came of one signature."""

    ok: bool
    """It is genuine, by one of the given signers, and about the manifest in question."""
    kind: Kind
    """``signature`` and ``attestation`` only when ``ok``."""
    detail: str
    """Why, in one line."""
    source: str
    """Where it was found: the digest of its blob."""
    predicate_type: str | None = None
    """From a genuine statement."""
    signer: Signer | None = None
    """Who signed, when that is one of the given signers."""
    predicate: Any = field(default=None, repr=False)
    """What a genuine attestation says."""

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``--json`` prints; it leaves the predicate out."""
        return {
            "ok": self.ok,
            "kind": self.kind,
            "predicateType": self.predicate_type,
            "signer": self.signer.identifier if self.signer else None,
            "signerName": self.signer.name if self.signer else None,
            "detail": self.detail,
            "source": self.source,
        }


def verify_bundles(
    found: Sequence[tuple[str, bytes]],
    *,
    subject: Digest,
    signers: Sequence[Signer],
    certificates: CertificateVerifier | None = None,
) -> tuple[SignatureVerdict, ...]:
    """Verify all bundles found for a manifest, given as (digest of the blob, bytes), in order.

    Raises:
        PolicyError: there are too many. Leaving some out would let whoever can attach bundles
            choose which ones are seen.
        NetworkError: as for ``verify_bundle``.
    """
    if len(found) > MAX_BUNDLES or sum(len(raw) for _, raw in found) > MAX_BUNDLES_BYTES:
        raise PolicyError(
            f"{subject} has {len(found)} signature bundles attached, more than are verified; "
            "remove those that do not belong to it"
        )
    return tuple(
        verify_bundle(
            raw, subject=subject, signers=signers, certificates=certificates, source=source
        )
        for source, raw in found
    )


def verify_bundle(
    raw: bytes,
    *,
    subject: Digest,
    signers: Sequence[Signer],
    certificates: CertificateVerifier | None = None,
    source: str = "",
) -> SignatureVerdict:
    """Verify one bundle against the manifest digest ``subject``.

    Raises:
        NetworkError: ``certificates`` needed the network and did not have it. That is no verdict
            on the signature, and trying again may give one.
    """
    signer: Signer | None = None
    predicate_type: str | None = None
    try:
        # 1. The bundle is well-formed and within its bounds.
        bundle = parse_bundle(raw)
        # 2. One of the signers made the signature over the envelope. Until then nothing inside is
        #    parsed. A key is trusted for as long as it is listed: log entries and timestamps that
        #    may lie beside its signature are not asked for and not looked at.
        signer, payload_type, payload = _authenticate(bundle, signers, certificates)
        # 3. What was signed is a statement.
        if payload_type != IN_TOTO:
            raise FormatError(f"signed, but {payload_type[:80]!a} is not a statement")
        statement = Statement.parse(payload)
        predicate_type = statement.predicate_type
        # 4. The statement is about this manifest.
        if not statement.names(subject):
            raise PolicyError("signed, but about another manifest")
    except NetworkError:
        raise
    except ModelpackError as error:
        return SignatureVerdict(
            ok=False,
            kind="unknown",
            detail=str(error),
            source=source,
            signer=signer,
            predicate_type=predicate_type,
        )
    # 5. Only the one predicate type means consent; all others are attestations.
    kind: Kind = "signature" if predicate_type == COSIGN_SIGN else "attestation"
    return SignatureVerdict(
        ok=True,
        kind=kind,
        detail=f"{kind} by {signer.name}",
        source=source,
        signer=signer,
        predicate_type=predicate_type,
        predicate=statement.predicate,
    )


def verify_simple(
    signature: simplesigning.SimpleSignature,
    *,
    subject: Digest,
    repository: str,
    signers: Sequence[Signer],
    source: str = "",
) -> SignatureVerdict:
    """Verify one signature of the older shape, for keys only.

    ``repository`` must be what the payload names: here, unlike in a bundle, it is signed, so a
    signature copied along to another repository is refused.
    """
    found = next(
        (
            signer
            for signer in signers
            if isinstance(signer, KeySigner)
            and signer.key.verifies(signature.signature, signature.payload)
        ),
        None,
    )
    try:
        if found is None:
            raise PolicyError(_nobody(signers, "by another key"))
        image = simplesigning.parse_payload(signature.payload)
        if image.digest != subject:
            raise PolicyError("signed, but about another manifest")
        if image.reference != repository:
            raise PolicyError(f"signed, but for the repository {image.reference[:200]!a}")
    except ModelpackError as error:
        return SignatureVerdict(
            ok=False, kind="unknown", detail=str(error), source=source, signer=found
        )
    return SignatureVerdict(
        ok=True,
        kind="signature",
        detail=f"signature by {found.name}",
        source=source,
        signer=found,
        predicate_type=COSIGN_SIGN,
    )


def distinct_signers(
    verdicts: Iterable[SignatureVerdict],
    *,
    signers: Sequence[Signer],
    accepts: Callable[[SignatureVerdict], bool],
) -> tuple[Signer, ...]:
    """Return those of ``signers`` with an accepted good verdict, each key or identity once.

    A signer who signed twice counts once, and so does a key that is listed under two names.
    """
    wanted = {signer.identifier: signer for signer in signers}
    found = {
        verdict.signer.identifier
        for verdict in verdicts
        if verdict.ok and verdict.signer is not None and accepts(verdict)
    }
    return tuple(signer for identifier, signer in wanted.items() if identifier in found)


def _authenticate(
    bundle: Bundle, signers: Sequence[Signer], certificates: CertificateVerifier | None
) -> tuple[Signer, str, bytes]:
    if bundle.certificate is not None:
        return _by_certificate(bundle, signers, certificates)
    for signer in signers:
        if (
            isinstance(signer, KeySigner)
            and bundle.may_be_by(signer.key)
            and bundle.envelope.signers([signer.key])
        ):
            return signer, bundle.envelope.payload_type, bundle.envelope.payload
    named = f"by the key {bundle.hint[:80]!a}" if bundle.hint else "by a key that is not named"
    raise PolicyError(_nobody(signers, named))


def _by_certificate(
    bundle: Bundle, signers: Sequence[Signer], certificates: CertificateVerifier | None
) -> tuple[Signer, str, bytes]:
    identities = [signer for signer in signers if isinstance(signer, IdentitySigner)]
    if certificates is None or not identities:
        raise PolicyError("signed with a certificate, but only keys are accepted")
    return certificates.verify(bundle.raw, identities)


def _nobody(signers: Sequence[Signer], found: str) -> str:
    names = ", ".join(signer.name for signer in signers[:_SHOWN]) or "anyone who is accepted"
    return f"signed {found}, not by {names}"
