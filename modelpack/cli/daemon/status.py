"""``modelpack daemon status``.

Owns the verb: asking once or again and again, and what the exit status says. Leaves out how a
status is drawn (``_drawing.py``).
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelpack.cli import _options as options
from modelpack.cli._output import print_json, visible
from modelpack.cli.daemon import _where as where
from modelpack.errors import NetworkError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from modelpack.cli.daemon._drawing import Rates

NOT_READY = 10
"""The exit status that only this answer has; the others are those of the errors."""

_WATCH_SECONDS = 1.0


def status_command(
    *,
    config: where.Config = None,
    socket: where.Socket = None,
    url: where.Url = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until interrupted, once a second.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what a running daemon says of each model: its stage, progress, size, use and reason.

    Exits with 0 when the node is ready: its runtime answers and no model is still on its first way
    there. Exits with 10 when it is not, and with 7 when no daemon answers.
    """
    place = where.reading_place(config, socket, url)
    if not watch:
        ready = _show_once(place, json=json)
    elif json:
        ready = _stream(place)
    elif sys.stdout.isatty():
        ready = _watch(place)
    else:
        raise UsageError("--watch draws on a terminal; in a pipe, add --json")
    if not ready:
        raise typer.Exit(NOT_READY)


def _show_once(place: Path | str, *, json: bool) -> bool:
    from modelpack.prefetch.web.client import fetch_status

    document = fetch_status(place)
    if json:
        print_json(document)
    else:
        from modelpack.cli.daemon._drawing import print_status
        from modelpack.prefetch.statusjson import parse_status

        print_status(parse_status(document))
    return document.get("ready") is True


def _documents(place: Path | str) -> Iterator[dict[str, Any] | NetworkError]:
    """Yield what the daemon says once a second; that it does not answer is an answer, too."""
    from modelpack.prefetch.web.client import fetch_status

    while True:
        try:
            yield fetch_status(place)
        except NetworkError as error:
            yield error
        time.sleep(_WATCH_SECONDS)


def _stream(place: Path | str) -> bool:
    """Print a document a second, one a line, until interrupted; the last one counts."""
    ready = False
    try:
        for document in _documents(place):
            if isinstance(document, NetworkError):
                raise document
            print_json(document)
            ready = document.get("ready") is True
    except KeyboardInterrupt:
        return ready
    return ready


def _watch(place: Path | str) -> bool:
    from rich.live import Live

    from modelpack.cli._output import console
    from modelpack.cli.daemon._drawing import Rates

    rates, ready = Rates(), False
    shown: RenderableType = ""
    out = console()
    try:
        with Live(
            console=out,
            auto_refresh=False,
            vertical_overflow="crop",
            redirect_stdout=False,  # its stand-in for stdout has no encoding
            redirect_stderr=False,
        ) as live:
            for document in _documents(place):
                if isinstance(document, NetworkError):
                    ready = False  # before it is shown: an interrupt may follow at once
                    live.update(_away(shown, document), refresh=True)
                else:
                    shown, ready = _drawn(document, rates, out.width)
                    live.update(shown, refresh=True)
    except KeyboardInterrupt:
        return ready
    return ready


def _drawn(document: dict[str, Any], rates: "Rates", width: int) -> "tuple[RenderableType, bool]":
    from rich.console import Group

    from modelpack.cli.daemon._drawing import status_lines
    from modelpack.prefetch.statusjson import parse_status

    status = parse_status(document)
    rates.take(status)
    return Group(*status_lines(status, rates=rates, width=width)), not status.unready


def _away(last: "RenderableType", error: NetworkError) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    return Group(last, Text(visible(str(error)), style="bold red"))
