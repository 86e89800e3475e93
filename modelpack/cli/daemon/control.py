"""``modelpack daemon hold``, ``release``, ``rollback``, ``refresh`` and ``scrub``.

Owns the verbs' options. What they do is written down in ``modelpack.prefetch.control``.
"""

from pathlib import Path
from typing import Annotated

import typer

from modelpack.cli import _options as options
from modelpack.cli._output import print_json, print_text
from modelpack.cli.daemon import _where as where
from modelpack.errors import UsageError

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name, as in the status.")]
NameOrAll = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="The model's name, as in the status; or --all."),
]
All = Annotated[bool, typer.Option("--all", help="Every model.")]


def hold_command(
    name: Name,
    *,
    config: where.Config = None,
    socket: where.Socket = None,
    json: options.Json = False,
) -> None:
    """Stay with the version of a model that is on this node, whatever its tag does."""
    _ask("hold", name, config, socket, json=json)


def release_command(
    name: Name,
    *,
    config: where.Config = None,
    socket: where.Socket = None,
    json: options.Json = False,
) -> None:
    """End a hold, and whatever a rollback turned away."""
    _ask("release", name, config, socket, json=json)


def rollback_command(
    name: Name,
    *,
    config: where.Config = None,
    socket: where.Socket = None,
    json: options.Json = False,
) -> None:
    """Go back to the version before and hold it; never adopt the present one again by itself."""
    _ask("rollback", name, config, socket, json=json)


def refresh_command(
    name: NameOrAll = None,
    *,
    every: All = False,
    config: where.Config = None,
    socket: where.Socket = None,
    json: options.Json = False,
) -> None:
    """Look a model's tag up again and try again now, without waiting for the next time."""
    _ask("refresh", _one_or_all(name, every=every), config, socket, json=json)


def scrub_command(
    name: NameOrAll = None,
    *,
    every: All = False,
    config: where.Config = None,
    socket: where.Socket = None,
    json: options.Json = False,
) -> None:
    """Read a model's files again soon, and repair what is damaged."""
    _ask("scrub", _one_or_all(name, every=every), config, socket, json=json)


def _one_or_all(name: str | None, *, every: bool) -> str | None:
    if (name is None) != every:
        raise UsageError("name one model, or say --all")
    return name


def _ask(
    verb: str, name: str | None, config: Path | None, socket: Path | None, *, json: bool
) -> None:
    from modelpack.prefetch.web.client import ask

    done = ask(where.socket_of(config, socket), verb, name)
    if json:
        print_json({"done": done})
    else:
        print_text(done)
