"""What must hold before a model may be fetched, and whether it does.

Owns the policy's types, choosing the rule for a reference and evaluating it, purely. Leaves out the
file (``policyfile.py``), verifying signatures (``verify.py``) and everything that gathers facts.

The first rule whose pattern matches decides; a reference that no rule matches is refused. The same
evaluation serves every command and service, so that none of them trusts what another refuses.

    >>> from modelpack.reference import parse_reference
    >>> policy = Policy(rules=(Rule(match="registry.example/team/**", unsigned=True),))
    >>> digest = Digest.of(b"manifest")
    >>> evaluate(policy, Facts(reference=parse_reference("registry.example/team/x:v1"),
    ...     digest=digest, now=datetime.now(UTC))).ok
    True
    >>> print(evaluate(policy, Facts(reference=parse_reference("elsewhere.example/x:v1"),
    ...     digest=digest, now=datetime.now(UTC))))
    match: no rule is about elsewhere.example/x:v1
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from modelpack.digest import Digest
from modelpack.errors import PolicyError
from modelpack.reference import Reference
from modelpack.signing import history, patterns
from modelpack.signing.verify import SignatureVerdict, Signer, distinct_signers
from modelpack.unsafe.finding import Finding

CREATED = "org.opencontainers.image.created"
VERSION = "org.opencontainers.image.version"

# A signer's clock may be ahead of this one by so much before a creation date counts as made up.
_CLOCK_SKEW = timedelta(minutes=10)
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class AttestationRule:
    """An attestation that must be there."""

    predicate_type: str
    signers: tuple[Signer, ...] = ()
    """Who may have made it; empty stands for the rule's own signers."""
    threshold: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatRule:
    """Which content may be there. The defaults refuse whatever could run code."""

    pickle: Literal["refuse", "allowlist", "allow"] = "allowlist"
    """``allowlist``: only pickles that name nothing but what rebuilds tensors."""
    keras_lambda: Literal["refuse", "allow"] = "refuse"
    unscannable: Literal["refuse", "allow"] = "refuse"
    """Content that may hold code where nothing here can look: HDF5, packed archives."""
    remote_code: Literal["report", "refuse"] = "report"
    """``auto_map`` and Python files, which loaders run only when told to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Freshness:
    """How old a model may be."""

    max_age: timedelta | None = None
    rollback: Literal["refuse", "allow"] = "refuse"
    """Whether a version older than the last accepted one is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What holds for the references that match. All its parts must hold."""

    match: str
    signers: tuple[Signer, ...] = ()
    threshold: int = 1
    unsigned: bool = False
    """No signature is asked for; only without signers."""
    deny: str | None = None
    """Refuse, for this reason."""
    attestations: tuple[AttestationRule, ...] = ()
    formats: FormatRule = field(default_factory=FormatRule)
    require_digest: bool = False
    """The reference itself must hold a digest."""
    digests: tuple[Digest, ...] = ()
    """The only manifests that are accepted; empty for any."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What the manifest must say of itself, so that a signed model cannot stand in for another."""
    freshness: Freshness = field(default_factory=Freshness)


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Rules in order."""

    rules: tuple[Rule, ...]
    trust_config: str | None = None
    """The path of a sigstore client trust configuration for identities."""

    def rule_for(self, reference: Reference) -> Rule | None:
        """Return the first rule that is about ``reference``."""
        for rule in self.rules:
            if patterns.matches(rule.match, reference.repository_name, reference.tag):
                return rule
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known about a model before its weights are fetched."""

    reference: Reference
    """As the user wrote it."""
    digest: Digest
    """Of its manifest."""
    now: datetime
    """The time, with its zone."""
    signatures: Sequence[SignatureVerdict] = ()
    """Verified against ``signers_of`` the rule."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """The manifest's."""
    findings: Sequence[Finding] | None = None
    """What its files hold; None when that is not known yet and is evaluated later."""
    accepted: Sequence[history.Accepted] = ()
    """What was accepted under this name before, oldest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleVerdict:
    """Whether one requirement holds, and why."""

    rule: str
    ok: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``--json`` prints."""
        return {"rule": self.rule, "ok": self.ok, "detail": self.detail}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """One verdict for every requirement of the rule that decided."""

    rules: tuple[RuleVerdict, ...]

    @property
    def ok(self) -> bool:
        """Whether all hold. No requirement at all is no permission."""
        return bool(self.rules) and all(verdict.ok for verdict in self.rules)

    def require(self, subject: str) -> None:
        """Prove that the policy accepts ``subject``.

        Raises:
            PolicyError: it does not; the message names every requirement that failed.
        """
        if not self.ok:
            raise PolicyError(f"{subject} is refused: {self}")

    def __str__(self) -> str:
        shown = [verdict for verdict in self.rules if not verdict.ok] or self.rules
        return "; ".join(f"{verdict.rule}: {verdict.detail}" for verdict in shown)


def signers_of(rule: Rule) -> tuple[Signer, ...]:
    """Return everyone whose signatures a rule asks about, each once."""
    every = (*rule.signers, *(signer for wanted in rule.attestations for signer in wanted.signers))
    return tuple({signer.identifier: signer for signer in every}.values())


def evaluate(policy: Policy, facts: Facts) -> Verdicts:
    """Evaluate the rule for ``facts.reference``, requirement by requirement."""
    # 1. A rule is about this reference.
    rule = policy.rule_for(facts.reference)
    if rule is None:
        return _refused("match", f"no rule is about {facts.reference}")
    # 2. It does not refuse outright.
    if rule.deny is not None:
        return _refused("deny", f"{rule.match!a}: {rule.deny}")
    verdicts = [RuleVerdict(rule="match", ok=True, detail=f"{rule.match!a} is about it")]
    # 3. Enough of its signers consent to this very manifest.
    verdicts += _signatures(rule, facts)
    # 4. The attestations that it asks for are there, by whom it asks.
    verdicts += (_attestation(rule, wanted, facts) for wanted in rule.attestations)
    # 5. The manifest is the one that was meant.
    verdicts += _identity(rule, facts)
    # 6. It is neither too old nor older than what was accepted before.
    verdicts += _freshness(rule.freshness, facts)
    # 7. Its files hold nothing that is refused.
    if facts.findings is not None:
        verdicts += evaluate_content(rule, facts.findings).rules
    return Verdicts(rules=tuple(verdicts))


def evaluate_content(rule: Rule, findings: Sequence[Finding]) -> Verdicts:
    """Evaluate what a rule says about formats, once the files are known."""
    refused = [
        (name, [finding for finding in findings if _refuses(rule.formats, name, finding)])
        for name in ("pickle", "keras_lambda", "unscannable", "remote_code")
    ]
    return Verdicts(
        rules=tuple(
            RuleVerdict(
                rule=f"formats.{name}", ok=not found, detail=_list_findings(found) or "none found"
            )
            for name, found in refused
        )
    )


def _signatures(rule: Rule, facts: Facts) -> Iterator[RuleVerdict]:
    if rule.unsigned:
        yield RuleVerdict(rule="signers", ok=True, detail="no signature is asked for")
        return
    found = distinct_signers(
        facts.signatures, signers=rule.signers, accepts=lambda verdict: verdict.kind == "signature"
    )
    names = ", ".join(signer.name for signer in found)
    ok = len(found) >= max(rule.threshold, 1)
    detail = f"{len(found)} of {max(rule.threshold, 1)} needed"
    if names:
        detail += f", by {names}"
    if not ok:
        detail += _others(facts.signatures)
    yield RuleVerdict(rule="signers", ok=ok, detail=detail)


def _attestation(rule: Rule, wanted: AttestationRule, facts: Facts) -> RuleVerdict:
    found = distinct_signers(
        facts.signatures,
        signers=wanted.signers or rule.signers,
        accepts=lambda verdict: (
            verdict.kind == "attestation" and verdict.predicate_type == wanted.predicate_type
        ),
    )
    ok = len(found) >= max(wanted.threshold, 1)
    detail = f"{len(found)} of {max(wanted.threshold, 1)} needed"
    if found:
        detail += f", by {', '.join(signer.name for signer in found)}"
    return RuleVerdict(rule=f"attestation {wanted.predicate_type}", ok=ok, detail=detail)


def _identity(rule: Rule, facts: Facts) -> Iterator[RuleVerdict]:
    if rule.require_digest:
        ok = facts.reference.digest is not None
        detail = "the reference holds a digest" if ok else f"pin it: @{facts.digest}"
        yield RuleVerdict(rule="require_digest", ok=ok, detail=detail)
    if facts.reference.digest is not None and facts.reference.digest != facts.digest:
        detail = f"the reference says {facts.reference.digest}, the manifest is {facts.digest}"
        yield RuleVerdict(rule="digest", ok=False, detail=detail)
    if rule.digests:
        ok = facts.digest in rule.digests
        detail = f"{facts.digest} is {'' if ok else 'not '}listed"
        yield RuleVerdict(rule="digests", ok=ok, detail=detail)
    for name, value in rule.annotations.items():
        found = facts.annotations.get(name)
        detail = f"is {value!a}" if found == value else f"is {found!a:.200}, not {value!a}"
        yield RuleVerdict(rule=f"annotation {name}", ok=found == value, detail=detail)


def _freshness(freshness: Freshness, facts: Facts) -> Iterator[RuleVerdict]:
    created = history.parse_time(facts.annotations.get(CREATED))
    if freshness.max_age is not None:
        yield _age(created, freshness.max_age, facts.now)
    if freshness.rollback == "refuse" and facts.accepted:
        candidate = history.Accepted(
            digest=facts.digest, created=created, version=facts.annotations.get(VERSION)
        )
        reason = history.rollback(facts.accepted, candidate)
        detail = reason or "not older than what was accepted before"
        yield RuleVerdict(rule="freshness.rollback", ok=reason is None, detail=detail)


def _age(created: datetime | None, max_age: timedelta, now: datetime) -> RuleVerdict:
    if created is None:
        ok, detail = False, f"the manifest does not say when it was made ({CREATED})"
    elif created > now + _CLOCK_SKEW:
        ok, detail = False, f"made at {created.astimezone(UTC).isoformat()}, which is to come"
    else:
        age = now - created
        ok, detail = age <= max_age, f"{age.days} days old, {max_age} allowed"
    return RuleVerdict(rule="freshness.max_age", ok=ok, detail=detail)


def _refuses(formats: FormatRule, name: str, finding: Finding) -> bool:
    kind, danger = finding.kind, finding.danger
    if name == "pickle":
        # An archive is unsafe when loaders could find another pickle in it than was judged.
        unsafe = danger == "unsafe" and kind in ("pickle", "archive")
        if formats.pickle == "refuse":
            return kind == "pickle" or unsafe
        return formats.pickle == "allowlist" and unsafe
    if name == "keras_lambda":
        return formats.keras_lambda == "refuse" and kind == "keras" and danger == "unsafe"
    if name == "unscannable":
        return formats.unscannable == "refuse" and danger == "unscannable"
    return formats.remote_code == "refuse" and kind == "remote-code"


def _list_findings(findings: Sequence[Finding]) -> str:
    shown = [f"{finding.path[:200]!a}: {finding.detail}" for finding in findings[:_SHOWN]]
    more = len(findings) - len(shown)
    return "; ".join([*shown, f"and {more} more"] if more > 0 else shown)


def _others(signatures: Sequence[SignatureVerdict]) -> str:
    """Say what was found instead, since that tells a wrong key from a missing signature."""
    if not signatures:
        return "; nothing is signed"
    kinds = [
        f"a {verdict.predicate_type} attestation" if verdict.ok else verdict.detail
        for verdict in signatures
        if verdict.kind != "signature"
    ]
    shown = list(dict.fromkeys(kinds))[:_SHOWN]
    return f"; found: {'; '.join(shown)}" if shown else ""


def _refused(rule: str, detail: str) -> Verdicts:
    return Verdicts(rules=(RuleVerdict(rule=rule, ok=False, detail=detail),))
