"""Options that several verbs share, declared once.

A verb takes them as ``Annotated`` parameters and joins the connection ones by
``connection_options``.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.errors import UsageError

if TYPE_CHECKING:
    from modelpack.registry.options import ConnectionOptions

_CONNECTION = "Connection"
_SELECTION = "Files"
_OUTPUT = "Output"

PlainHttp = Annotated[
    bool,
    typer.Option(
        "--plain-http",
        help="Talk HTTP without TLS. On loopback that is so without --ca-file and --insecure.",
        rich_help_panel=_CONNECTION,
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        help="Trust the certificates in this PEM file too.",
        rich_help_panel=_CONNECTION,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Accept any TLS certificate.", rich_help_panel=_CONNECTION),
]
MaxConnections = Annotated[
    int | None,
    typer.Option(
        "--max-connections",
        min=1,
        max=64,
        help="Use at most this many connections; by default as many as help.",
        rich_help_panel=_CONNECTION,
    ),
]
LimitRate = Annotated[
    str | None,
    typer.Option(
        "--limit-rate",
        metavar="RATE",
        help="Move at most this many bytes per second: 500k, 20M, 1G.",
        rich_help_panel=_CONNECTION,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="GLOB",
        help="Take only files that match; may be repeated.",
        rich_help_panel=_SELECTION,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="GLOB",
        help="Leave out files that match; may be repeated.",
        rich_help_panel=_SELECTION,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=_OUTPUT),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel=_OUTPUT),
]

_RATE = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<unit>[kKmMgG]?)(i?[bB])?(/s)?\Z")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def path(text: str) -> Path:
    """Return the path that an argument names.

    Raises:
        UsageError: it is empty, as an unset variable of a shell is. It would name the directory
            that the command happens to run in.
    """
    if not text:
        raise UsageError("the name of a directory is empty; the one you are in is '.'")
    return Path(text)


def subject(text: str) -> str:
    """Return what an argument names that is a reference or a directory.

    Raises:
        UsageError: it is neither.
    """
    # slow to import
    from modelpack.connect import names_directory
    from modelpack.reference import parse_reference

    if not names_directory(text):
        try:
            parse_reference(text)
        except UsageError as error:
            if "/" in text or ":" in text or not text:
                raise
            raise UsageError(f"there is no directory {text[:200]!r} here, and {error}") from error
    return text


def connection_options(
    *,
    plain_http: bool = False,
    ca_file: Path | None = None,
    insecure: bool = False,
    max_connections: int | None = None,
    limit_rate: str | None = None,
) -> "ConnectionOptions":
    """Join the connection options of a command line.

    Raises:
        UsageError: the rate is not one.
    """
    from modelpack.registry.options import ConnectionOptions

    return ConnectionOptions(
        plain_http=True if plain_http else None,
        ca_file=ca_file,
        insecure_tls=insecure,
        max_connections=max_connections,
        limit_rate=parse_rate(limit_rate) if limit_rate else None,
    )


def parse_rate(text: str) -> int:
    """Return bytes per second from text such as ``20M``; units are decimal.

    Raises:
        UsageError: it is no rate, or nothing could move at it.
    """
    match = _RATE.match(text.strip())
    rate = int(float(match["number"]) * _UNITS[match["unit"].lower()]) if match else 0
    if rate < 1:
        raise UsageError(f"{text!r:.40} is no rate; write bytes per second, such as 500k or 20M")
    return rate


def parse_annotations(items: list[str] | None) -> dict[str, str]:
    """Return annotations from ``KEY=VALUE`` texts.

    Raises:
        UsageError: one has no '=' or no key.
    """
    annotations = {}
    for item in items or ():
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"--annotation takes KEY=VALUE, not {item[:100]!r}")
        annotations[key] = value
    return annotations
