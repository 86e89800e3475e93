"""``modelpack pull REF --into RUNTIME``: its options, and what is said of the result.

Owns what such a pull takes besides a directory's, which of those it cannot take, and its output.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelpack.cli._output import count, human_bytes, pinned, print_text
from modelpack.errors import UsageError

if TYPE_CHECKING:
    from modelpack.events import Observer
    from modelpack.pulling import Gate
    from modelpack.registry.options import ConnectionOptions
    from modelpack.runtime.options import ImportResult

_PANEL = "Container runtime"

Into = Annotated[
    str | None,
    typer.Option(
        "--into",
        metavar="RUNTIME",
        help="Pull into this runtime's image store instead of a directory: containerd or podman.",
        rich_help_panel=_PANEL,
    ),
]
Address = Annotated[
    Path | None,
    typer.Option(
        "--address",
        metavar="SOCKET",
        help="containerd's socket; usually /run/containerd/containerd.sock.",
        rich_help_panel=_PANEL,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        help="containerd's namespace; k8s.io, where a kubelet looks, by default.",
        rich_help_panel=_PANEL,
    ),
]
Snapshotter = Annotated[
    str | None,
    typer.Option(
        "--snapshotter",
        metavar="NAME",
        help="containerd's snapshotter; overlayfs by default.",
        rich_help_panel=_PANEL,
    ),
]
HostRoot = Annotated[
    Path | None,
    typer.Option(
        "--host-root",
        metavar="DIR",
        help="Where the node's file system is seen, when this runs in a container.",
        rich_help_panel=_PANEL,
    ),
]
Pin = Annotated[
    bool | None,
    typer.Option(
        "--pin/--no-pin",
        help="Keep the image from the kubelet's garbage collection; it is kept by default.",
        rich_help_panel=_PANEL,
    ),
]


def pull_into(
    reference: str,
    into: str,
    *,
    containerd: Mapping[str, object],
    seeds: tuple[Path, ...],
    verify: str,
    page_cache: bool | None,
    connection: "ConnectionOptions",
    gate: "Gate | None",
    observer: "Observer",
) -> "ImportResult":
    """Pull into a runtime; ``containerd`` are the options that only it knows, None if not given.

    Raises:
        UsageError: there is no such runtime here, or it knows no such option.
    """
    given = {name: value for name, value in containerd.items() if value is not None}
    if into == "containerd":
        from modelpack.runtime.containerd import import_model
        from modelpack.runtime.options import ImportOptions

        options = ImportOptions(
            seeds=seeds,
            verify=verify,
            page_cache=page_cache,
            **given,  # type: ignore[arg-type]
        )
        return import_model(reference, options, connection=connection, gate=gate, observer=observer)
    if into != "podman":
        raise UsageError(f"--into takes containerd or podman, not {into!r:.60}")
    if given:
        name = next(iter(given)).replace("_", "-")
        raise UsageError(f"--{name} is containerd's; podman knows its own store")
    if page_cache is False:
        raise UsageError("--no-page-cache does not go with podman, which reads the files at once")
    from modelpack.runtime.podman import import_model as import_into_podman

    return import_into_podman(
        reference, seeds=seeds, verify=verify, connection=connection, gate=gate, observer=observer
    )


def as_json(result: "ImportResult", seconds: float, decision: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``--json`` says of a pull into a runtime; ``decision`` is the policy's part."""
    return {**result.to_json(), **decision, "seconds": round(seconds, 3)}


def print_import(result: "ImportResult", into: str, seconds: float) -> None:
    """Print the result of a pull into a runtime."""
    pull = result.pull
    print_text(
        f"pulled {pinned(pull.reference, pull.digest)} into {into}\n"
        f"  image {result.image_id}\n"
        f"  {count(pull.files, 'file')}, {human_bytes(pull.bytes)} verified ({pull.verified}) "
        f"in {count(result.snapshots, 'layer')}, {human_bytes(result.imported_bytes)} of them new\n"
        f"  {human_bytes(pull.fetched_bytes)} fetched, {human_bytes(pull.reused_bytes)} reused, "
        f"{seconds:.1f} s"
    )
