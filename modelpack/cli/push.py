"""``modelpack push DIR REF``."""

import time
from pathlib import Path
from typing import Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli import _trust
from modelpack.cli import sign as signing
from modelpack.cli._output import count, human_bytes, pinned, print_json, print_text
from modelpack.cli._progress import progress
from modelpack.cli.sbom import read_supplement


def push_command(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The model's directory.", parser=options.path)
    ],
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="HOST/NAME:TAG, or oci:PATH:TAG on disk.")
    ],
    *,
    include: options.Include = None,
    exclude: options.Exclude = None,
    prefix: Annotated[
        str,
        typer.Option(
            "--prefix",
            metavar="PATH",
            help="Put all files under this directory; KServe expects 'models'.",
            rich_help_panel="Files",
        ),
    ] = "",
    annotation: Annotated[
        list[str] | None,
        typer.Option("--annotation", metavar="K=V", help="Annotate the manifest; may be repeated."),
    ] = None,
    no_modelpack: Annotated[
        bool,
        typer.Option(
            "--no-modelpack", help="Do not tag a CNCF ModelPack companion as TAG-modelpack."
        ),
    ] = False,
    supplement: Annotated[
        Path | None,
        typer.Option(
            "--supplement",
            metavar="FILE",
            help="Add what only people know to the SBOM in the artifact, from this YAML file.",
        ),
    ] = None,
    platform: Annotated[
        str,
        typer.Option(
            "--platform",
            metavar="OS/ARCH",
            help="The platform in the image config; runtimes unpack only their own.",
        ),
    ] = "linux/amd64",
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Read every file again, even if unchanged.")
    ] = False,
    sign: Annotated[
        bool,
        typer.Option(
            "--sign",
            help="Sign what was pushed, as modelpack sign does.",
            rich_help_panel="Signing",
        ),
    ] = False,
    key: _trust.SignKey = None,
    identity_token: _trust.IdentityToken = None,
    trust_config: _trust.TrustConfig = None,
    attest: _trust.Attest = "",
    no_files: _trust.NoFiles = False,
    oms_hash: _trust.OmsHash = "blake3",
    legacy_sig: _trust.LegacySig = False,
    bundle: _trust.Bundle = None,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    max_connections: options.MaxConnections = None,
    limit_rate: options.LimitRate = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Package a model directory and store it at a reference.

    The same files give the same digest on any machine. Blobs that the target has already, and
    files that have not changed since an earlier push, cost nothing.
    """
    from modelpack.api import push

    annotations = options.parse_annotations(annotation)
    connection = options.connection_options(
        plain_http=plain_http,
        ca_file=ca_file,
        insecure=insecure,
        max_connections=max_connections,
        limit_rate=limit_rate,
    )
    added = read_supplement(supplement) if supplement else None
    # A key that does not open must not be found out after an hour of uploading.
    author = signing.author_of_push(
        sign=sign, key=key, identity_token=identity_token, trust_config=trust_config
    )
    started = time.monotonic()
    with progress("pushing", quiet=quiet or json) as observer:
        result = push(
            directory,
            reference,
            include=include or (),
            exclude=exclude or (),
            prefix=prefix,
            annotations=annotations,
            companion=not no_modelpack,
            platform=platform,
            use_cache=not no_cache,
            supplement=added,
            connection=connection,
            observer=observer,
        )
    signed = None
    if author is not None:
        sources = signing.sources(
            oms_hash, directory, prefix=prefix, include=include, exclude=exclude
        )
        signed = signing.sign_pushed(
            result.reference,
            result.digest,
            author,
            connection,
            signing.signing_options(
                no_files=no_files,
                oms_hash=oms_hash,
                sources=sources,
                attest=attest,
                legacy_sig=legacy_sig,
            ),
        )
        signing.write_bundle(bundle, signed)
    seconds = time.monotonic() - started
    if json:
        told = {"signed": signed.to_json()} if signed else {}
        print_json({**result.to_json(), **told, "seconds": round(seconds, 3)})
        return
    print_text(
        f"pushed {pinned(result.reference, result.digest)}\n"
        f"  {count(result.files, 'file')}, {human_bytes(result.bytes)} in {count(result.layers, 'layer')} and "
        f"{count(result.chunks, 'chunk')}\n"
        f"  {human_bytes(result.uploaded_bytes)} sent, {human_bytes(result.reused_bytes)} "
        f"already there, {seconds:.1f} s"
    )
    if signed is not None:
        signing.print_signed(signed)
