"""Options that say which daemon is meant, and what they mean.

Owns the default. Leaves out talking to it (``modelpack.prefetch.web.client``).
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from modelpack.errors import UsageError

DEFAULT_SOCKET = Path("/var/lib/modelpack/control.sock")
"""In the store of the example configurations and units."""

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The daemon's configuration says where it is."),
]
Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket", metavar="PATH", help=f"Its control socket; by default {DEFAULT_SOCKET}."
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Its HTTP address: http://127.0.0.1:9464."),
]


def socket_of(config: Path | None, socket: Path | None) -> Path:
    """Return the control socket that is meant.

    Raises:
        UsageError: both options are given, or the configuration is none.
    """
    if config is not None and socket is not None:
        raise UsageError("give one of --config and --socket, not both")
    if config is None:
        return socket or DEFAULT_SOCKET
    from modelpack.prefetch.configfile import read_config
    from modelpack.prefetch.sources import DiskSource

    try:
        return read_config(config, DiskSource()).control_socket
    except UsageError as error:
        # just then the status is wanted: the daemon goes on with the configuration before
        raise UsageError(f"{error}; until that is mended, name the daemon by --socket") from error


def reading_place(config: Path | None, socket: Path | None, url: str | None) -> Path | str:
    """Return where the status can be read by this user.

    Whoever may not use the control socket reads at the address that the configuration names.

    Raises:
        UsageError: more than one option is given, or the configuration is none.
    """
    if url is not None:
        if config is not None or socket is not None:
            raise UsageError("give one of --config, --socket and --url")
        return url
    path = socket_of(config, socket)
    if config is None or os.access(path, os.W_OK):
        return path
    from modelpack.prefetch.configfile import read_config
    from modelpack.prefetch.sources import DiskSource

    return f"http://{read_config(config, DiskSource()).listen}"
