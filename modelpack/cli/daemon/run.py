"""``modelpack daemon --config FILE``: the daemon itself, and ``--check`` of its configuration.

Owns signals, the log and what is served beside the daemon. Leaves out what it does
(``modelpack.prefetch.daemon``).
"""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli._output import count, human_bytes, print_json, print_text
from modelpack.errors import UsageError

if TYPE_CHECKING:
    from modelpack.prefetch.config import DaemonConfig, ModelOptions

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="The configuration: a file, or a directory of them."
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="Only say whether the configuration is good; exit 0 or 2.")
]
Json = Annotated[bool, typer.Option("--json", help="With --check, print one JSON object.")]
LogLevel = Annotated[
    str, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
]


def run_command(
    ctx: typer.Context,
    *,
    config: Config = None,
    check: Check = False,
    json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Keep the models on this node that it should have, or ask a daemon that does.

    With --config alone it runs until it is stopped: SIGTERM ends it, keeping what is verified, and
    SIGHUP has it read its configuration again, which it does anyway when the files change.
    """
    if ctx.invoked_subcommand is not None:
        if config is not None or check:
            raise UsageError(f"give --config after {ctx.invoked_subcommand}, not before it")
        return
    if config is None:
        raise UsageError("name the configuration with --config")
    if check:
        _check(config, json=json)
        return
    if json:
        raise UsageError("--json goes with --check")
    _run(config, log_level)


def _check(path: Path, *, json: bool) -> None:
    from modelpack.errors import ModelpackError
    from modelpack.prefetch.configfile import read_config
    from modelpack.prefetch.desired import wanted
    from modelpack.prefetch.gates import Gates
    from modelpack.prefetch.sources import DiskSource
    from modelpack.prefetch.surroundings import surroundings

    try:
        found = read_config(path, DiskSource())
        policy = Gates().load(found)
    except UsageError:
        raise
    except ModelpackError as error:  # a missing file, too, makes it a bad configuration
        raise UsageError(str(error)) from error
    models = wanted(found)
    source = policy.source if policy is not None else None
    notes = surroundings(found)
    if json:
        print_json(
            {
                "node": found.identity.name,
                "models": [model.name for model in models],
                "budget": found.budget.limit,
                "policy": source,
                "notes": list(notes),
            }
        )
        return
    print_text(_understood(found, models, source))
    for note in notes:
        print_text(f"not on this machine as it is now: {note}")


def _understood(
    found: "DaemonConfig", models: "tuple[ModelOptions, ...]", policy: str | None
) -> str:
    where = found.runtime.path or found.runtime.kind
    every = count(len(found.models), "model")
    text = (
        f"good: node {found.identity.name}, {human_bytes(found.budget.limit)} in {where}, "
        f"{f'policy {policy}' if policy else 'no policy: every model is let through'}\n"
        f"{len(models)} of {every} for this node"
    )
    return text + (f": {', '.join(model.name for model in models)}" if models else "")


def _run(path: Path, log_level: str) -> None:
    from modelpack.prefetch import logs
    from modelpack.prefetch.daemon import Daemon
    from modelpack.prefetch.nodes import open_node
    from modelpack.prefetch.notify import Notifier
    from modelpack.prefetch.web import serve

    logs.configure(level=log_level)
    notifier = Notifier.from_environment(os.environ)
    with Daemon.open(path, open_node=open_node, notifier=notifier) as daemon:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: daemon.stop())
        signal.signal(signal.SIGHUP, lambda *_: daemon.reload())
        listen = (daemon.config.listen.host, daemon.config.listen.port)
        with serve(daemon.status, daemon, listen=listen, socket_path=daemon.config.control_socket):
            ended = daemon.run()
    if not ended:
        # A thread hangs in a call that nothing can end; what it did is as safe as after a kill.
        os._exit(0)
