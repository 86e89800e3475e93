"""``modelpack copy SRC DST`` and ``modelpack tags REF``."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli import _trust
from modelpack.cli._output import count, human_bytes, pinned, print_json, print_text
from modelpack.cli._progress import progress
from modelpack.reference import (
    RegistryReference,
    is_loopback_host,
    parse_reference,
    split_host_port,
)

if TYPE_CHECKING:
    from modelpack.registry.options import ConnectionOptions


def copy_command(
    source: Annotated[str, typer.Argument(metavar="SRC", help="What to copy.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="Where to; a tag, no digest.")],
    *,
    no_referrers: Annotated[
        bool, typer.Option("--no-referrers", help="Leave signatures and other referrers behind.")
    ] = False,
    key: _trust.VerifyKey = None,
    identity: _trust.Identity = None,
    issuer: _trust.Issuer = None,
    threshold: _trust.Threshold = 1,
    require_attestation: _trust.RequireAttestation = None,
    policy: _trust.Policy = None,
    trust_config: _trust.TrustConfig = None,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    limit_rate: options.LimitRate = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Copy an artifact between registries and layouts, digests unchanged.

    Its ModelPack companion and its referrers (signatures, SBOMs) come along. A policy, or --key,
    is asked about the source before anything is copied.
    """
    from modelpack.api import copy

    connection = options.connection_options(
        plain_http=plain_http, ca_file=ca_file, insecure=insecure, limit_rate=limit_rate
    )
    loaded = _trust.chosen_policy(
        keys=key,
        identities=identity,
        issuer=issuer,
        threshold=threshold,
        attestations=require_attestation,
        policy=policy,
        trust_config=trust_config,
    )
    started = time.monotonic()
    with progress("copying", quiet=quiet or json) as observer:
        gate = _trust.gate(loaded, _for_side(source, target, connection), observer=observer)
        result = copy(
            source if gate is None else _trust.let_through(source, gate),
            target,
            with_referrers=not no_referrers,
            source_connection=_for_side(source, target, connection),
            target_connection=_for_side(target, source, connection),
            observer=observer,
        )
        _trust.taken(gate)
    seconds = time.monotonic() - started
    if json:
        print_json({**result.to_json(), **_trust.gate_json(gate), "seconds": round(seconds, 3)})
        return
    _trust.print_accepted(gate)
    print_text(
        f"copied {result.source} to {pinned(result.reference, result.digest)}\n"
        f"  {count(result.manifests, 'manifest')} ({count(result.referrers, 'referrer')}), "
        f"{human_bytes(result.uploaded_bytes)} sent, {human_bytes(result.reused_bytes)} "
        f"already there, {seconds:.1f} s"
    )


def _for_side(side: str, other: str, connection: "ConnectionOptions") -> "ConnectionOptions":
    """Return the options for one side: a certificate is not meant for the one on loopback."""
    if connection.speaks_of_tls and _is_on_loopback(side) and not _is_on_loopback(other):
        return replace(connection, ca_file=None, insecure_tls=False)
    return connection


def _is_on_loopback(reference: str) -> bool:
    parsed = parse_reference(reference, default_tag=None)
    if not isinstance(parsed, RegistryReference):
        return False
    return is_loopback_host(split_host_port(parsed.registry)[0])


def tags_command(
    reference: Annotated[str, typer.Argument(metavar="REF", help="HOST/NAME or oci:PATH.")],
    *,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    json: options.Json = False,
) -> None:
    """List the tags of a repository or layout."""
    from modelpack.api import tags

    connection = options.connection_options(
        plain_http=plain_http, ca_file=ca_file, insecure=insecure
    )
    found = tags(reference, connection=connection)
    if json:
        print_json({"reference": reference, "tags": found})
    elif found:
        print_text("\n".join(found))
