"""Which policy is in force here, and reading it with the keys that it names.

Owns the places a policy is looked for, in this order: the option ``--policy``, the variable
``MODELPACK_POLICY``, the user's configuration directory, the system's. The first one found holds
alone; a file that is there and cannot be read is an error and not the absence of one. Leaves out
the file's form (``signing/policyfile.py``) and its evaluation (``signing/policy.py``).

    loaded = policy_in_force(None, os.environ)
    print(loaded.source if loaded else "everything is accepted")
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelpack.errors import NotFoundError, UsageError
from modelpack.signing.keyless import SigstoreVerifier
from modelpack.signing.keys import MAX_KEY_FILE_BYTES, PublicKey
from modelpack.signing.policy import AttestationRule, Freshness, Policy, Rule, signers_of
from modelpack.signing.policyfile import MAX_POLICY_BYTES, parse_policy
from modelpack.signing.verify import IdentitySigner, KeySigner, Signer
from modelpack.trust.authors import read_bounded, read_trust_config
from modelpack.trust.places import policy_path

FROM_OPTIONS = "the command line"
"""The source of a policy made of options."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPolicy:
    """A policy, where it came from, and what verifies its identities."""

    policy: Policy
    source: str
    trust_config: bytes | None = field(default=None, repr=False)

    def certificates(self, signers: Sequence[Signer]) -> SigstoreVerifier | None:
        """Return a verifier of certificates, if one of the signers is told by an identity."""
        if any(isinstance(signer, IdentitySigner) for signer in signers):
            return SigstoreVerifier(self.trust_config)
        return None

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Everyone whom any rule asks about, each once."""
        every = (signer for rule in self.policy.rules for signer in signers_of(rule))
        return tuple({signer.identifier: signer for signer in every}.values())


def policy_in_force(explicit: Path | None, environ: Mapping[str, str]) -> LoadedPolicy | None:
    """Load the policy that holds here, None if there is none.

    Raises:
        NotFoundError: the option or the variable names a file that is not there.
        UsageError: it is not a policy, or a key in it cannot be used.
    """
    path = policy_path(explicit, environ)
    return None if path is None else load_policy(path)


def load_policy(path: Path) -> LoadedPolicy:
    """Read a policy file; the paths in it are relative to its own directory.

    Raises:
        NotFoundError: it is not there.
        UsageError: it is not a policy, or a key or the trust configuration cannot be used.
    """
    raw = read_bounded(path, MAX_POLICY_BYTES, "policy")
    base = path.absolute().parent

    def read_key(name: str) -> bytes:
        try:
            return read_bounded(base / name, MAX_KEY_FILE_BYTES, "key")
        except NotFoundError as error:
            raise UsageError(str(error)) from error  # a fault of the policy, with its path in it

    policy = parse_policy(raw, read_key, f"policy {path}")
    config = policy.trust_config
    return LoadedPolicy(
        policy=policy,
        source=str(path),
        trust_config=read_trust_config(base / config if config else None),
    )


def policy_of_signers(
    *,
    keys: Sequence[str],
    identities: Sequence[str] = (),
    issuer: str | None = None,
    threshold: int = 1,
    attestations: Sequence[str] = (),
    trust_config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> LoadedPolicy:
    """Make the policy of one rule that options such as ``--key`` stand for.

    It is about every reference and keeps no record: whoever names a signer on the command line
    has chosen the version, too. Content that could run code is refused as by any policy.

    Raises:
        UsageError: no signer, an identity without an issuer, or a threshold nobody can meet.
        NotFoundError: no such key file.
    """
    if bool(identities) != bool(issuer):
        raise UsageError("--identity and --issuer belong together; give both")
    signers: dict[str, Signer] = {}
    for where in keys:
        signer = KeySigner(name=where, key=load_public_key(where, environ))
        signers.setdefault(signer.identifier, signer)
    for identity in identities:
        named = IdentitySigner(identity=identity, issuer=issuer or "")
        signers.setdefault(named.identifier, named)
    if not signers:
        raise UsageError("give --key, or --identity and --issuer")
    if not 1 <= threshold <= len(signers):
        raise UsageError(f"--threshold is {threshold}, with {len(signers)} different signers")
    rule = Rule(
        match="**",
        signers=tuple(signers.values()),
        threshold=threshold,
        attestations=tuple(AttestationRule(predicate_type=kind) for kind in attestations),
        freshness=Freshness(rollback="allow"),
    )
    return LoadedPolicy(
        policy=Policy(rules=(rule,)),
        source=FROM_OPTIONS,
        trust_config=read_trust_config(trust_config),
    )


def load_public_key(where: str, environ: Mapping[str, str] = os.environ) -> PublicKey:
    """Read a public key from a file, or from a variable named as ``env://NAME``.

    Raises:
        NotFoundError: no such file.
        UsageError, FormatError: not a public key that is accepted.
    """
    if where.startswith("env://"):
        name = where.removeprefix("env://")
        if not environ.get(name):
            raise UsageError(f"the variable {name!a:.80}, which should hold a key, is not set")
        return PublicKey.from_pem(environ[name].encode(), where)
    return PublicKey.from_pem(read_bounded(Path(where), MAX_KEY_FILE_BYTES, "key"), where)
