"""One decision about a manifest: what is attached to it, verified, and judged by a policy.

Owns the order in which facts are gathered, and the report of the decision. Leaves out verifying
(``signing/verify.py``) and judging (``signing/policy.py``). ``verify``, ``pull``, ``copy`` and
containerd's verifier all ask here, so none of them trusts what another refuses.

    decision = check(repository, manifest, loaded, records=records)
    decision.require()
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from modelpack.artifact import Artifact, is_intact, is_packed, load_artifact
from modelpack.cache import Cache
from modelpack.chunkindex import IndexedFile
from modelpack.digest import Digest
from modelpack.errors import ModelpackError, NetworkError
from modelpack.manifest import Index, Manifest
from modelpack.reference import Reference
from modelpack.selection import Selection
from modelpack.signing import history
from modelpack.signing.history import Accepted
from modelpack.signing.policy import (
    CREATED,
    VERSION,
    Facts,
    Rule,
    RuleVerdict,
    Verdicts,
    evaluate,
    evaluate_content,
    signers_of,
)
from modelpack.signing.statement import COSIGN_SIGN, OMS_SIGNATURE
from modelpack.signing.verify import (
    CertificateVerifier,
    SignatureVerdict,
    Signer,
    distinct_signers,
    verify_bundles,
    verify_simple,
)
from modelpack.storage import Fetcher, Repository
from modelpack.trust.accepted import Records
from modelpack.trust.collecting import Collected, collect, collect_simple
from modelpack.trust.content import judge_artifact
from modelpack.trust.modelsig import matches_index, verify_model_signature
from modelpack.trust.policies import LoadedPolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSignature:
    """A verified signature over the files, as it will lie in the directory."""

    raw: bytes
    signer: Signer


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a policy says about a manifest, and why."""

    reference: Reference
    digest: Digest
    source: str
    """Where the policy came from."""
    rule: Rule | None
    """The rule that decided, if one is about the reference."""
    verdicts: Verdicts
    signatures: tuple[SignatureVerdict, ...] = ()
    """One for everything that was attached."""
    model_signature: ModelSignature | None = None
    packed: bool = False
    """Whether modelpack packed it, so that it has an index."""
    accepted: Accepted | None = field(default=None, repr=False)
    """What to record once the model is taken."""
    fetched_bytes: int = 0
    """What it took to look into the files."""

    @property
    def ok(self) -> bool:
        """Whether the model may be fetched."""
        return self.verdicts.ok

    def require(self) -> None:
        """Prove that the model may be fetched.

        Raises:
            PolicyError: it may not; the message names every rule that failed, and who signed.
        """
        self.verdicts.require(str(_pinned(self.reference, self.digest)))

    def to_json(self) -> dict[str, Any]:
        """Return what ``verify --json`` prints."""
        return {
            "ok": self.ok,
            "reference": str(self.reference),
            "digest": str(self.digest),
            "policy": self.source,
            "rules": [verdict.to_json() for verdict in self.verdicts.rules],
            "signatures": [one.to_json() for one in self.signatures if _is_signature(one)],
            "attestations": [one.to_json() for one in self.signatures if not _is_signature(one)],
        }


def check(
    repository: Repository,
    manifest: Manifest | Index,
    loaded: LoadedPolicy,
    *,
    records: Records | None = None,
    selection: Selection | None = None,
    cache: Cache | None = None,
    now: datetime | None = None,
) -> Decision:
    """Decide about a manifest, fetching nothing but metadata and, if all else holds, file headers.

    Raises:
        IntegrityError: the repository's bytes are not what their digests say.
        NetworkError, AuthError: it cannot be read, which is no verdict.
        FormatError: the record of what was accepted is damaged.
    """
    reference = repository.reference
    digest = manifest.digest
    annotations = manifest.annotations
    # 1. The rule that is about this reference. What refuses outright needs no signature.
    rule = loaded.policy.rule_for(reference)
    facts = Facts(
        reference=reference,
        digest=digest,
        now=now or datetime.now(UTC),
        annotations=annotations,
        accepted=records.read(reference) if records and _keeps_records(rule) else (),
    )
    if rule is None or rule.deny is not None:
        verdicts = evaluate(loaded.policy, facts)
        return Decision(
            reference=reference, digest=digest, source=loaded.source, rule=rule, verdicts=verdicts
        )
    # 2. Whatever is attached, verified against the signers that the rule names.
    artifact = _load(repository, manifest)
    signatures, model_signature = _verified(repository, digest, artifact, rule, loaded)
    # 3. Every requirement that needs no file. A signature over the files that does not hold is
    #    reported, but is no reason for anything: it speaks of no manifest.
    spoken = [one for one in signatures if one.ok or one.predicate_type != OMS_SIGNATURE]
    verdicts = evaluate(loaded.policy, replace(facts, signatures=spoken))
    # 4. What the files hold; nothing of an artifact that is refused already is fetched.
    fetched = 0
    if verdicts.ok:
        judged, fetched = _content(repository, artifact, rule, selection or Selection(), cache)
        verdicts = Verdicts(rules=(*verdicts.rules, *judged))
    return Decision(
        reference=reference,
        digest=digest,
        source=loaded.source,
        rule=rule,
        verdicts=verdicts,
        signatures=signatures,
        model_signature=model_signature,
        packed=isinstance(manifest, Manifest) and is_packed(manifest),
        accepted=Accepted(
            digest=digest,
            version=annotations.get(VERSION),
            created=history.parse_time(annotations.get(CREATED)),
        ),
        fetched_bytes=fetched,
    )


def _verified(
    repository: Repository,
    digest: Digest,
    artifact: Artifact | None,
    rule: Rule,
    loaded: LoadedPolicy,
) -> tuple[tuple[SignatureVerdict, ...], ModelSignature | None]:
    signers = signers_of(rule)
    if not signers:
        # Nobody's signature would count, so none is fetched: not every image is a model.
        return (), None
    certificates = loaded.certificates(signers)
    found = collect(repository, digest)
    verdicts = [
        *verify_bundles(found.bundles, subject=digest, signers=signers, certificates=certificates),
        *found.problems,
    ]
    files, model_signature = _over_files(found, artifact, signers, certificates)
    verdicts += files
    # The older shape counts as well, and is asked for where the newer one is not enough.
    found_signers = distinct_signers(
        verdicts, signers=rule.signers, accepts=lambda verdict: verdict.kind == "signature"
    )
    if len(found_signers) < rule.threshold:
        verdicts += _simple(repository, digest, signers)
    return tuple(verdicts), model_signature


def _over_files(
    found: Collected,
    artifact: Artifact | None,
    signers: Sequence[Signer],
    certificates: CertificateVerifier | None,
) -> tuple[list[SignatureVerdict], ModelSignature | None]:
    """Verify the signatures over the files; the last good one is kept, as the newest."""
    verdicts: list[SignatureVerdict] = []
    kept: ModelSignature | None = None
    for source, raw in found.model_signatures:
        try:
            signed, signer = verify_model_signature(raw, signers, certificates)
        except NetworkError:
            raise
        except ModelpackError as error:
            verdicts.append(
                SignatureVerdict(ok=False, kind="unknown", detail=str(error), source=source,
                                 predicate_type=OMS_SIGNATURE)
            )  # fmt: skip
            continue
        matches = matches_index(signed, artifact.index) if artifact else None
        count = f"{len(signed.files)} files by {signer.name}"
        detail = {
            True: f"signature over {count}",
            None: f"signature over {count}, to be compared once they are here",
            False: f"signed by {signer.name}, but over other files",
        }[matches]
        verdicts.append(
            SignatureVerdict(
                ok=matches is not False,
                kind="attestation" if matches else "unknown",
                detail=detail,
                source=source,
                predicate_type=OMS_SIGNATURE,
                signer=signer,
            )
        )
        if matches is not False:
            kept = ModelSignature(raw=raw, signer=signer)
    return verdicts, kept


def _simple(
    repository: Repository, digest: Digest, signers: Sequence[Signer]
) -> list[SignatureVerdict]:
    name = repository.reference.repository_name
    return [
        verify_simple(signature, subject=digest, repository=name, signers=signers, source=source)
        for source, signature in collect_simple(repository, digest)
    ]


def _content(
    fetcher: Fetcher,
    artifact: Artifact | None,
    rule: Rule,
    selection: Selection,
    cache: Cache | None,
) -> tuple[tuple[RuleVerdict, ...], int]:
    if artifact is None:
        detail = "no chunk index, so the files are judged once they are unpacked"
        return (RuleVerdict(rule="formats", ok=True, detail=detail),), 0
    files: list[IndexedFile] = [one for one in artifact.index.files if selection.takes(one.path)]
    judged = judge_artifact(fetcher, artifact, files, cache=cache)
    return evaluate_content(rule, judged.findings).rules, judged.fetched_bytes


def _load(fetcher: Fetcher, manifest: Manifest | Index) -> Artifact | None:
    if isinstance(manifest, Manifest) and is_packed(manifest) and is_intact(manifest):
        return load_artifact(fetcher, manifest)
    return None


def _keeps_records(rule: Rule | None) -> bool:
    return rule is not None and rule.freshness.rollback == "refuse"


def _is_signature(verdict: SignatureVerdict) -> bool:
    return verdict.predicate_type in {None, COSIGN_SIGN}


def _pinned(reference: Reference, digest: Digest) -> Reference:
    return reference.with_digest(digest)
