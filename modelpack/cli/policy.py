"""``modelpack policy check|test``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli import _trust
from modelpack.cli._group import Group
from modelpack.cli._output import print_json, print_text
from modelpack.errors import NotFoundError, PolicyError

if TYPE_CHECKING:
    from modelpack.signing.policy import Rule
    from modelpack.trust.policies import LoadedPolicy

app = typer.Typer(
    cls=Group,
    help="Trust policies: what must hold before a model is fetched.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_FILE = "A policy file; by default the one in force."


@app.command("check")
def policy_check_command(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help=_FILE)] = None,
    *,
    json: options.Json = False,
) -> None:
    """Read a policy and the keys it names, and say what it asks for."""
    loaded = _load(file)
    if json:
        print_json(
            {
                "ok": True,
                "policy": loaded.source,
                "rules": [_rule_json(rule) for rule in loaded.policy.rules],
            }
        )
        return
    print_text(f"{loaded.source}: {len(loaded.policy.rules)} rules")
    for rule in loaded.policy.rules:
        print_text(f"  {rule.match}\n    {_said(rule)}")
    print_text("  anything else\n    refused")


@app.command("test")
def policy_test_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy file.")],
    references: Annotated[
        list[str], typer.Argument(metavar="REF...", help="Models to decide about.")
    ],
    *,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    json: options.Json = False,
) -> None:
    """Say what a policy would decide about models, rule by rule, and fetch none of them."""
    from modelpack.trust.gate import TrustGate

    loaded = _load(file)
    connection = options.connection_options(
        plain_http=plain_http, ca_file=ca_file, insecure=insecure
    )
    refused = []
    decisions = []
    for text in references:
        decision = TrustGate(loaded, connection).look(text)
        decisions.append(decision.to_json())
        if not decision.ok:
            refused.append(text)
        if not json:
            print_text(f"{'accepted' if decision.ok else 'REFUSED '}  {text}@{decision.digest}")
            _trust.print_decision(decision)
    if json:
        print_json({"ok": not refused, "policy": loaded.source, "references": decisions})
    if refused:
        raise PolicyError(
            f"{len(refused)} of {len(references)} are refused by {loaded.source}: "
            f"{', '.join(refused[:5])}"
        )


def _load(file: Path | None) -> "LoadedPolicy":
    from modelpack.trust.policies import policy_in_force

    loaded = policy_in_force(file, os.environ)
    if loaded is None:
        raise NotFoundError("no policy is in force here; name a file")
    return loaded


def _rule_json(rule: "Rule") -> dict[str, object]:
    return {
        "match": rule.match,
        "deny": rule.deny,
        "unsigned": rule.unsigned,
        "signers": [signer.identifier for signer in rule.signers],
        "threshold": rule.threshold,
        "attestations": [wanted.predicate_type for wanted in rule.attestations],
    }


def _said(rule: "Rule") -> str:
    if rule.deny is not None:
        return f"refused: {rule.deny}"
    if rule.unsigned:
        parts = ["no signature"]
    else:
        names = ", ".join(signer.name for signer in rule.signers)
        parts = [f"signed by {rule.threshold} of: {names}"]
    parts += [f"attestation {wanted.predicate_type}" for wanted in rule.attestations]
    if rule.require_digest:
        parts.append("named by digest")
    if rule.freshness.max_age is not None:
        parts.append(f"at most {rule.freshness.max_age.days} days old")
    parts.append(f"pickles: {rule.formats.pickle}")
    return "; ".join(parts)
