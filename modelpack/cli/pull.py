"""``modelpack pull REF DEST``."""

import time
from pathlib import Path
from typing import Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli._output import human_bytes, print_json, print_text
from modelpack.cli._progress import progress


def pull_command(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="HOST/NAME:TAG[@DIGEST], or oci:PATH:TAG on disk.")
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="The directory to bring to that state.")
    ],
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
    only the chunks that are not on this machine yet.
    """
    from modelpack.api import pull

    connection = options.connection_options(
        plain_http=plain_http,
        ca_file=ca_file,
        insecure=insecure,
        max_connections=max_connections,
        limit_rate=limit_rate,
    )
    started = time.monotonic()
    with progress("pulling", quiet=quiet or json) as observer:
        result = pull(
            reference,
            destination,
            include=include or (),
            exclude=exclude or (),
            seeds=seed or (),
            verify=verify,
            force=force,
            connection=connection,
            observer=observer,
        )
    seconds = time.monotonic() - started
    if json:
        print_json({**result.to_json(), "seconds": round(seconds, 3)})
        return
    rate = f", {human_bytes(result.fetched_bytes / seconds)}/s" if seconds > 0 else ""
    print_text(
        f"pulled {result.reference}@{result.digest}\n"
        f"  {result.files} files, {human_bytes(result.bytes)} verified ({result.verified})\n"
        f"  {human_bytes(result.fetched_bytes)} fetched, {human_bytes(result.reused_bytes)} reused, "
        f"{seconds:.1f} s{rate}"
    )
