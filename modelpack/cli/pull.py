"""``modelpack pull REF DEST``, and into a container runtime: ``pull REF --into containerd``."""

import time
from pathlib import Path
from typing import Annotated

import typer

from modelpack.cli import _into, _trust
from modelpack.cli import _options as options
from modelpack.cli._output import count, human_bytes, pinned, print_json, print_text
from modelpack.cli._progress import progress
from modelpack.errors import UsageError

# Fewer say nothing of how fast bytes come.
_TELLING_BYTES = 1024 * 1024


def pull_command(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="HOST/NAME:TAG[@DIGEST], or oci:PATH:TAG on disk.")
    ],
    destination: Annotated[
        Path | None,
        typer.Argument(
            metavar="DEST", help="The directory to bring to that state.", parser=options.path
        ),
    ] = None,
    *,
    include: options.Include = None,
    exclude: options.Exclude = None,
    seed: Annotated[
        list[Path] | None,
        typer.Option(
            "--seed",
            metavar="DIR",
            help="Take chunks that this directory has already; may be repeated.",
            rich_help_panel="Files",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Overwrite files that no pull put there.",
            rich_help_panel="Files",
        ),
    ] = False,
    verify: Annotated[
        str,
        typer.Option(
            "--verify",
            metavar="LEVEL",
            help="chunks: BLAKE3 of all that arrives. full: re-read everything, and SHA-256 of "
            "every layer.",
        ),
    ] = "chunks",
    page_cache: Annotated[
        bool | None,
        typer.Option(
            "--page-cache/--no-page-cache",
            help="Write through the page cache, for who reads the model next, or past it, which "
            "pushes nothing out of full memory and takes less CPU time. By default a directory's "
            "files go through it, and a node's as long as there is free memory for them.",
        ),
    ] = None,
    into: _into.Into = None,
    address: _into.Address = None,
    namespace: _into.Namespace = None,
    snapshotter: _into.Snapshotter = None,
    host_root: _into.HostRoot = None,
    pin: _into.Pin = None,
    key: _trust.VerifyKey = None,
    identity: _trust.Identity = None,
    issuer: _trust.Issuer = None,
    threshold: _trust.Threshold = 1,
    require_attestation: _trust.RequireAttestation = None,
    policy: _trust.Policy = None,
    trust_config: _trust.TrustConfig = None,
    dry_run: _trust.DryRun = False,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    max_connections: options.MaxConnections = None,
    limit_rate: options.LimitRate = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Bring a directory to the state of an artifact, every chunk verified.

    Run it again after anything went wrong: it goes on where it stopped. A newer version fetches
    only the chunks that are not on this machine yet. A policy, or --key, is asked before any of
    the model is fetched.
    """
    connection = options.connection_options(
        plain_http=plain_http,
        ca_file=ca_file,
        insecure=insecure,
        max_connections=max_connections,
        limit_rate=limit_rate,
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
    if dry_run:
        _trust.print_dry_run(reference, loaded, connection, include, exclude, json=json)
        return
    containerd = {
        "address": address,
        "namespace": namespace,
        "snapshotter": snapshotter,
        "host_root": host_root,
        "pin": pin,
    }
    started = time.monotonic()
    if into is not None:
        if destination is not None or include or exclude or force:
            raise UsageError(
                "--into takes whole models; DEST, --include, --exclude, --force do not go with it"
            )
        with progress("pulling", quiet=quiet or json) as observer:
            gate = _trust.gate(loaded, connection, observer=observer)
            imported = _into.pull_into(
                reference,
                into,
                containerd=containerd,
                seeds=tuple(seed or ()),
                verify=verify,
                page_cache=page_cache,
                connection=connection,
                gate=gate,
                observer=observer,
            )
            _trust.taken(gate)
        if json:
            print_json(_into.as_json(imported, time.monotonic() - started, _trust.gate_json(gate)))
            return
        _trust.print_accepted(gate)
        _into.print_import(imported, into, time.monotonic() - started)
        return
    if destination is None:
        raise UsageError("name a directory to pull into, or a container runtime with --into")
    if any(value is not None for value in containerd.values()):
        raise UsageError(
            "--address, --namespace, --snapshotter, --host-root and --pin need --into containerd"
        )
    from modelpack.api import pull

    with progress("pulling", quiet=quiet or json) as observer:
        gate = _trust.gate(loaded, connection, include, exclude, observer=observer)
        result = pull(
            reference,
            destination,
            include=include or (),
            exclude=exclude or (),
            seeds=seed or (),
            verify=verify,
            force=force,
            page_cache=page_cache is not False,
            gate=gate,
            judge=gate.judge if gate else None,
            connection=connection,
            observer=observer,
        )
        _trust.taken(gate)
        _trust.keep_signature(
            result.reference, result.digest, destination, gate, connection, observer
        )
    seconds = time.monotonic() - started
    if json:
        print_json({**result.to_json(), **_trust.gate_json(gate), "seconds": round(seconds, 3)})
        return
    _trust.print_accepted(gate)
    moved = result.bytes - result.reused_bytes
    # of a few bytes, a rate would be that of asking for them
    rate = f", {human_bytes(moved / seconds)}/s" if moved >= _TELLING_BYTES and seconds > 0 else ""
    gone = f", {result.removed} of an earlier version removed" if result.removed else ""
    print_text(
        f"pulled {pinned(result.reference, result.digest)}\n"
        f"  {count(result.files, 'file')}, {human_bytes(result.bytes)} verified "
        f"({result.verified}){gone}\n"
        f"  {human_bytes(result.fetched_bytes)} fetched, {human_bytes(result.reused_bytes)} reused, "
        f"{seconds:.1f} s{rate}"
    )
