"""Options about trust that several verbs share, and what is printed of a decision.

Nothing heavy is imported before one of the options is used or a policy is found.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelpack.cli._output import print_json, print_text
from modelpack.errors import ModelpackError, UsageError
from modelpack.events import Warned

if TYPE_CHECKING:
    from modelpack.events import Observer
    from modelpack.reference import Reference
    from modelpack.registry.options import ConnectionOptions
    from modelpack.trust.authors import Author
    from modelpack.trust.checking import Decision
    from modelpack.trust.gate import TrustGate
    from modelpack.trust.policies import LoadedPolicy

_TRUST = "Trust"
_SIGNING = "Signing"

VerifyKey = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Take what this public key signed (PEM, or env://VARIABLE); may be repeated.",
        rich_help_panel=_TRUST,
    ),
]
Identity = Annotated[
    list[str] | None,
    typer.Option(
        "--identity",
        metavar="NAME",
        help="Take what a certificate of exactly this identity signed; may be repeated.",
        rich_help_panel=_TRUST,
    ),
]
Issuer = Annotated[
    str | None,
    typer.Option(
        "--issuer",
        metavar="URL",
        help="Who must have vouched for --identity.",
        rich_help_panel=_TRUST,
    ),
]
Threshold = Annotated[
    int,
    typer.Option(
        "--threshold",
        metavar="N",
        help="How many different signers of those named are needed.",
        rich_help_panel=_TRUST,
    ),
]
RequireAttestation = Annotated[
    list[str] | None,
    typer.Option(
        "--require-attestation",
        metavar="TYPE",
        help="Ask for an attestation by the same signers: sbom, provenance or a predicate type.",
        rich_help_panel=_TRUST,
    ),
]
Policy = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="Decide by this policy; else MODELPACK_POLICY, the user's or the system's.",
        rich_help_panel=_TRUST,
    ),
]
TrustConfig = Annotated[
    Path | None,
    typer.Option(
        "--trust-config",
        metavar="FILE",
        help="A sigstore client trust configuration, for deployments other than the public one.",
        rich_help_panel=_TRUST,
    ),
]
SignKey = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Sign with this private key (PEM, cosign.key, or env://VARIABLE). Without it an "
        "identity token is used.",
        rich_help_panel=_SIGNING,
    ),
]
IdentityToken = Annotated[
    str | None,
    typer.Option(
        "--identity-token",
        metavar="FILE",
        help="A file with the identity token, - for stdin; by default SIGSTORE_ID_TOKEN, or what "
        "the CI system offers.",
        rich_help_panel=_SIGNING,
    ),
]
Attest = Annotated[
    str,
    typer.Option(
        "--attest",
        metavar="KINDS",
        help="Also attest these, separated by commas: sbom, provenance.",
        rich_help_panel=_SIGNING,
    ),
]
OmsHash = Annotated[
    str,
    typer.Option(
        "--oms-hash",
        metavar="HASH",
        help="For the signature over the files: blake3, from the index; or sha256, which "
        "model_signing's command line wants and for which the files are read.",
        rich_help_panel=_SIGNING,
    ),
]
NoFiles = Annotated[
    bool,
    typer.Option(
        "--no-files",
        help="Sign the manifest only, not the list of files (OpenSSF Model Signing).",
        rich_help_panel=_SIGNING,
    ),
]
LegacySig = Annotated[
    bool,
    typer.Option(
        "--legacy-sig",
        help="Also write the older sha256-….sig that policies of Podman and CRI-O read.",
        rich_help_panel=_SIGNING,
    ),
]
Bundle = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        metavar="FILE",
        help="Write the signature of the manifest to this file, too.",
        rich_help_panel=_SIGNING,
    ),
]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Say what the policy decides, rule by rule, and pull nothing.",
        rich_help_panel=_TRUST,
    ),
]

_SHORT_TYPES = {
    "sbom": "https://cyclonedx.org/bom",
    "cyclonedx": "https://cyclonedx.org/bom",
    "spdx": "https://spdx.dev/Document",
    "spdxjson": "https://spdx.dev/Document",
    "provenance": "https://slsa.dev/provenance/v1",
    "slsaprovenance1": "https://slsa.dev/provenance/v1",
}


def predicate_type(text: str) -> str:
    """Return a predicate type from its URI, or from the short name that people and cosign use.

    Raises:
        UsageError: neither.
    """
    if text in _SHORT_TYPES:
        return _SHORT_TYPES[text]
    if ":" not in text:
        raise UsageError(f"{text!a:.80} is no type; write {', '.join(_SHORT_TYPES)} or a URI")
    return text


def chosen_policy(
    *,
    keys: Sequence[str] | None,
    identities: Sequence[str] | None,
    issuer: str | None,
    threshold: int,
    attestations: Sequence[str] | None,
    policy: Path | None,
    trust_config: Path | None,
) -> "LoadedPolicy | None":
    """Return the policy that the options make, or the one in force, or None.

    Raises:
        UsageError: options that do not go together, or a policy or key that cannot be used.
        NotFoundError: a file that is not there.
    """
    if keys or identities or issuer:
        if policy is not None:
            raise UsageError("--policy names the signers itself; leave out --key and --identity")
        from modelpack.trust.policies import policy_of_signers

        return policy_of_signers(
            keys=keys or (),
            identities=identities or (),
            issuer=issuer,
            threshold=threshold,
            attestations=[predicate_type(text) for text in attestations or ()],
            trust_config=trust_config,
        )
    if threshold != 1 or attestations or trust_config:
        raise UsageError(
            "--threshold, --require-attestation and --trust-config go with --key or --identity"
        )
    from modelpack.trust.places import policy_path

    path = policy_path(policy, os.environ)
    if path is None:
        return None
    from modelpack.trust.policies import load_policy

    return load_policy(path)


def author(key: str | None, identity_token: str | None, trust_config: Path | None) -> "Author":
    """Return who signs: the key, or whoever the identity token speaks for.

    Raises:
        UsageError: both are given, or the key cannot be used.
        AuthError: there is neither.
    """
    from modelpack.trust.authors import (
        KeyAuthor,
        TokenAuthor,
        load_private_key,
        read_trust_config,
    )
    from modelpack.trust.authors import (
        identity_token as find_token,
    )

    if key is None:
        token = find_token(identity_token, os.environ)
        return TokenAuthor(token=token, trust_config=read_trust_config(trust_config))
    if identity_token is not None or trust_config is not None:
        raise UsageError("--key signs without --identity-token and --trust-config")
    return KeyAuthor(name=key, key=load_private_key(key, os.environ, ask_password()))


def ask_password(*, twice: bool = False) -> Any:
    """Return a function that asks for a password, or None where nobody can type one."""
    if not sys.stdin.isatty():
        return None

    def ask(what: str) -> bytes:
        text: str = typer.prompt(
            what, hide_input=True, err=True, default="", show_default=False,
            confirmation_prompt=twice,
        )  # fmt: skip
        return text.encode()

    return ask


def attestation_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds that ``--attest`` names, separated by commas."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def gate(
    loaded: "LoadedPolicy | None",
    connection: "ConnectionOptions",
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    *,
    observer: "Observer",
) -> "TrustGate | None":
    """Return what a pull or copy must ask, None where there is no policy."""
    if loaded is None:
        return None
    from modelpack.selection import Selection
    from modelpack.trust.gate import TrustGate

    selection = Selection(include=tuple(include or ()), exclude=tuple(exclude or ()))
    return TrustGate(loaded, connection, selection=selection, observer=observer)


def let_through(reference: str, asked: "TrustGate") -> "Reference":
    """Ask the gate about what a reference names now; return it pinned to just that.

    Raises:
        PolicyError: the gate refuses.
    """
    decision = asked.look(reference)
    decision.require()
    return decision.reference.with_digest(decision.digest)


def taken(asked: "TrustGate | None") -> None:
    """Record that the model is here."""
    if asked is not None:
        asked.taken()


def keep_signature(
    reference: str,
    digest: str,
    destination: Path,
    asked: "TrustGate | None",
    connection: "ConnectionOptions",
    observer: "Observer",
) -> None:
    """Keep the signature over the files as ``DEST/model.sig``: the verified one, if one was asked.

    Without it the model is no less what it is, so what goes wrong here is a warning.
    """
    from modelpack.trust import carried

    try:
        if asked is None or not asked.asks_for_signers:
            from modelpack.connect import open_repository
            from modelpack.digest import Digest

            with open_repository(reference, connection) as repository:
                raw = carried.carried_signature(repository, Digest.parse(digest))
        else:
            found = asked.decision.model_signature if asked.decision else None
            raw = found.raw if found else None
        warning = carried.keep_signature(destination, raw)
    except ModelpackError as error:
        warning = f"the signature over the files is not kept: {error}"
    if warning:
        observer(Warned(message=warning))


def print_dry_run(
    reference: str,
    loaded: "LoadedPolicy | None",
    connection: "ConnectionOptions",
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
    *,
    json: bool,
) -> None:
    """Print what a pull would be told; raises PolicyError if the model would be refused."""
    from modelpack.events import ignore

    asked = gate(loaded, connection, include, exclude, observer=ignore)
    if asked is None:
        raise UsageError("no policy is in force here; give --policy, or --key")
    decision = asked.look(reference)
    if json:
        print_json(decision.to_json())
    else:
        print_decision(decision)
    decision.require()


def gate_json(asked: "TrustGate | None") -> dict[str, Any]:
    """Return what ``--json`` says of a decision that let a model through."""
    if asked is None or asked.decision is None:
        return {}
    said = asked.decision.to_json()
    return {name: said[name] for name in ("policy", "rules", "signatures", "attestations")}


def print_accepted(asked: "TrustGate | None") -> None:
    """Print who signed what was let through."""
    if asked is None or asked.decision is None:
        return
    names = [one.signer.name for one in asked.decision.signatures
             if one.ok and one.kind == "signature" and one.signer]  # fmt: skip
    by = f"signed by {', '.join(dict.fromkeys(names))}" if names else "unsigned"
    print_text(f"accepted by {asked.decision.source}: {by}")


def print_decision(decision: "Decision") -> None:
    """Print one line for every rule, and one for everything that was attached."""
    for verdict in decision.verdicts.rules:
        print_text(f"{'ok  ' if verdict.ok else 'FAIL'}  {verdict.rule}: {verdict.detail}")
    for found in decision.signatures:
        kind = found.predicate_type or "signature"
        print_text(f"{'good' if found.ok else 'bad '}  {kind}: {found.detail}")
