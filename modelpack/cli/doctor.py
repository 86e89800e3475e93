"""``modelpack doctor containerd``."""

import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli._group import Group
from modelpack.cli._output import print_json, print_text
from modelpack.errors import PolicyError

app = typer.Typer(
    cls=Group,
    help="Look for settings that silently undo what others promise.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SECONDS = 10


@app.callback()
def _only_subcommands() -> None:
    """Make the first word a command even while there is only one."""


@app.command("containerd")
def doctor_containerd_command(
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="containerd's configuration; by default in /etc."
        ),
    ] = None,
    root: Annotated[
        Path,
        typer.Option("--root", metavar="DIR", help="Where the node's file system is seen."),
    ] = Path("/"),
    version: Annotated[
        str | None,
        typer.Option(
            "--containerd-version",
            metavar="VERSION",
            help="containerd's version; by default that of the program on the path.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Say whether containerd asks modelpack before it pulls an image for a kubelet.

    containerd lets images in without a word when its directory of verifiers is empty, and when an
    option makes it pull past them. Exits with 6 when images could get in unasked.
    """
    from modelpack.trust import doctor

    path = config or root / str(doctor.DEFAULT_CONFIG).lstrip("/")
    loaded = doctor.load_config(path)
    found = doctor.examine(
        loaded, version=doctor.parse_version(version or _installed_version()), root=root
    )
    ok = doctor.asks(found)
    if json:
        print_json(
            {"ok": ok, "config": str(path), "findings": [finding.to_json() for finding in found]}
        )
    else:
        marks = {"open": "OPEN", "closed": "FAIL", "note": "note", "good": "ok  "}
        for finding in found:
            advice = f" ({finding.advice})" if finding.advice else ""
            print_text(f"{marks[finding.level]}  {finding.what}{advice}")
    if not ok:
        raise PolicyError(f"{path}: containerd would not pull as the policy says; see above")


def _installed_version() -> str:
    """Return what ``containerd --version`` prints, nothing where it cannot be run."""
    program = shutil.which("containerd")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
