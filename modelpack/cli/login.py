"""``modelpack login HOST``, ``modelpack logout HOST`` and ``modelpack version``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli._output import print_json, print_text
from modelpack.errors import UsageError

# A password or token; a file piped in by mistake should not be read whole.
_MAX_PASSWORD = 64 * 1024

Registry = Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="The registry.")]
AuthFile = Annotated[
    Path | None,
    typer.Option("--auth-file", help="Use this credentials file instead of Docker's and Podman's."),
]


def login_command(
    registry: Registry,
    *,
    username: Annotated[str, typer.Option("--username", "-u", help="The user.")] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password or token from stdin.")
    ] = False,
    auth_file: AuthFile = None,
    plain_http: options.PlainHttp = False,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
) -> None:
    """Check credentials with a registry and store them where Docker, Podman and others look."""
    from dataclasses import replace

    from modelpack.registry.credentials import Credentials
    from modelpack.registry.login import login

    if not username:
        if password_stdin or not sys.stdin.isatty():
            raise UsageError("login needs --username, and --password-stdin where nobody can type")
        username = typer.prompt("Username", err=True)
    if password_stdin:
        password = sys.stdin.read(_MAX_PASSWORD).rstrip("\r\n")
    elif sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, err=True)
    else:
        raise UsageError("give the password on stdin with --password-stdin")
    if not password:
        raise UsageError("the password is empty")
    connection = options.connection_options(
        plain_http=plain_http, ca_file=ca_file, insecure=insecure
    )
    place = login(
        registry,
        Credentials(username=username, password=password),
        replace(connection, auth_file=auth_file),
    )
    print_text(f"logged in to {registry}; stored in {place}")


def logout_command(registry: Registry, *, auth_file: AuthFile = None) -> None:
    """Remove a registry's credentials from every place they are stored in."""
    from dataclasses import replace

    from modelpack.registry.login import logout

    places = logout(registry, replace(options.connection_options(), auth_file=auth_file))
    print_text(f"logged out of {registry}; removed from {', '.join(places)}")


def version_command(*, json: options.Json = False) -> None:
    """Print the version, and those of what it stands on."""
    import platform
    from importlib.metadata import version

    from modelpack import __version__

    parts = {"modelpack": __version__, "python": platform.python_version()}
    for name in ("blake3", "httpx", "oras", "sigstore", "typer"):
        parts[name] = version(name)
    if json:
        print_json(parts)
    else:
        print_text("\n".join(f"{name} {number}" for name, number in parts.items()))
