"""``modelpack verify REF|DIR``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelpack.cli import _options as options
from modelpack.cli import _trust
from modelpack.cli._output import (
    count,
    human_bytes,
    pinned,
    print_json,
    print_text,
    visible,
)
from modelpack.cli._progress import progress
from modelpack.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from modelpack.registry.options import ConnectionOptions
    from modelpack.trust.checking import Decision
    from modelpack.trust.policies import LoadedPolicy
    from modelpack.verifying import DirectoryReport, ReferenceReport


def verify_command(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="REF|DIR",
            help="A reference, a pulled directory or a mount.",
            parser=options.subject,
        ),
    ],
    *,
    full: Annotated[
        bool, typer.Option("--full", help="For a reference: fetch and hash every byte.")
    ] = False,
    key: _trust.VerifyKey = None,
    identity: _trust.Identity = None,
    issuer: _trust.Issuer = None,
    threshold: _trust.Threshold = 1,
    require_attestation: _trust.RequireAttestation = None,
    policy: _trust.Policy = None,
    trust_config: _trust.TrustConfig = None,
    signature: Annotated[
        Path | None,
        typer.Option(
            "--signature",
            metavar="FILE",
            help="For a directory: the signature over its files, by default DIR/model.sig.",
            rich_help_panel="Trust",
        ),
    ] = None,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check a directory or mounted volume, or what is at a reference; also who signed it.

    A directory is hashed in full, offline, against its own chunk index, or with --key against its
    model.sig; every missing, changed and extra file is named. A reference is checked without
    fetching weights, unless --full, and by the policy in force, if there is one.
    """
    from modelpack.connect import names_directory

    if names_directory(subject) and (policy is not None or require_attestation):
        raise UsageError(
            "policies and attestations are about references; check a directory with --key"
        )
    loaded = None
    if key or identity or issuer or not names_directory(subject):
        loaded = _trust.chosen_policy(
            keys=key,
            identities=identity,
            issuer=issuer,
            threshold=threshold,
            attestations=require_attestation,
            policy=policy,
            trust_config=trust_config,
        )
    if names_directory(subject):
        if loaded is not None:
            _verify_signed(Path(subject), loaded, signature, json=json, quiet=quiet)
        else:
            _verify_directory(subject, json=json, quiet=quiet)
        return
    connection = options.connection_options(
        plain_http=plain_http, ca_file=ca_file, insecure=insecure
    )
    _verify_reference(subject, loaded, connection, full=full, json=json, quiet=quiet)


def _verify_directory(subject: str, *, json: bool, quiet: bool) -> None:
    from modelpack.api import verify

    with progress("verifying", quiet=quiet or json) as observer:
        report = verify(subject, observer=observer)
    if json:
        print_json(report.to_json())
    else:
        _print(report)
    _require(subject, report)


def _verify_signed(
    directory: Path,
    loaded: "LoadedPolicy",
    signature: Path | None,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Hold a directory against its signature: the steps are those of ``trust/modelsig.py``."""
    from modelpack.trust.modelsig import verify_signed_directory

    signers = loaded.signers
    if loaded.policy.rules[0].threshold > 1:
        raise UsageError("a directory has one model.sig; --threshold is about references")
    with progress("verifying", quiet=quiet or json) as observer:
        report = verify_signed_directory(
            directory,
            signers,
            loaded.certificates(signers),
            signature=signature,
            observer=observer,
        )
    if json:
        print_json(report.to_json())
    else:
        for kind in ("missing", "changed", "extra"):
            for name in getattr(report, kind):
                print_text(f"{kind}: {visible(name)}")
        if report.ok:
            print_text(f"ok: {len(report.signed.files)} files as {report.signer.name} signed them")
    if not report.ok:
        raise IntegrityError(
            f"{directory} does not hold the files that {report.signer.name} signed"
        )


def _verify_reference(
    subject: str,
    loaded: "LoadedPolicy | None",
    connection: "ConnectionOptions",
    *,
    full: bool,
    json: bool,
    quiet: bool,
) -> None:
    decision = None
    if loaded is not None:
        from modelpack.trust.gate import TrustGate

        decision = TrustGate(loaded, connection).look(subject)
    report = None
    # An image that modelpack did not pack can be signed, and has no index to hold it against.
    if decision is None or (decision.ok and (decision.packed or full)):
        report = _report(subject, decision, connection, full=full, quiet=quiet or json)
    if json:
        print_json(_joined(report, decision))
    else:
        if decision is not None:
            _trust.print_decision(decision)
        if report is not None:
            _print(report)
    if decision is not None:
        decision.require()
    if report is not None:
        _require(subject, report)


def _report(
    subject: str,
    decision: "Decision | None",
    connection: "ConnectionOptions",
    *,
    full: bool,
    quiet: bool,
) -> "ReferenceReport":
    """Check what was decided on, and no other manifest that the tag may name by now."""
    from modelpack.api import verify_reference

    target = decision.reference.with_digest(decision.digest) if decision is not None else subject
    with progress("verifying", quiet=quiet) as observer:
        return verify_reference(target, full=full, connection=connection, observer=observer)


def _joined(report: "ReferenceReport | None", decision: "Decision | None") -> dict[str, Any]:
    joined: dict[str, Any] = {"rules": [], "signatures": [], "attestations": []}
    if report is not None:
        joined = report.to_json() | joined
    if decision is not None:
        joined |= decision.to_json()
        joined["ok"] = decision.ok and (report is None or report.ok)
    return joined


def _require(subject: str, report: "DirectoryReport | ReferenceReport") -> None:
    if not report.ok:
        raise IntegrityError(f"{subject} is not what it should be{_advice(report)}")


def _print(report: "DirectoryReport | ReferenceReport") -> None:
    for kind in ("missing", "changed", "extra"):
        for name in getattr(report, kind, ()):
            print_text(f"{kind}: {visible(name)}")
    if report.ok:
        whole = pinned(report.reference, report.digest)
        of = f" of {whole}" if whole else ""
        left_out = getattr(report, "unselected", 0)
        rest = f" ({count(left_out, 'file')} of the model not selected)" if left_out else ""
        unread = "" if getattr(report, "full", True) else "; all blobs are there, --full reads them"
        print_text(
            f"ok: {count(report.files, 'file')}, {human_bytes(report.bytes)}{of}{rest}{unread}"
        )


def _advice(report: "DirectoryReport | ReferenceReport") -> str:
    reference = report.reference
    directory = getattr(report, "directory", None)
    if directory and reference and (report.missing or report.changed):
        return f"; this repairs it: modelpack pull {reference} {directory} --verify full"
    if reference and reference.startswith("oci:") and report.changed:
        return "; delete these blobs from the layout and push again"
    return ""
