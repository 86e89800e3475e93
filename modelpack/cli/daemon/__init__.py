"""``modelpack daemon``: keep a node's models warm, and ask or tell a running daemon.

Owns the list of verbs; each group of them is a module. Leaves out what the daemon does, which is
``modelpack.prefetch``'s.
"""

import typer

from modelpack.cli._group import Group
from modelpack.cli.daemon.control import (
    hold_command,
    refresh_command,
    release_command,
    rollback_command,
    scrub_command,
)
from modelpack.cli.daemon.run import run_command
from modelpack.cli.daemon.status import status_command

app = typer.Typer(
    cls=Group,
    help="Keep the models on this node that it should have.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.callback(invoke_without_command=True)(run_command)
app.command("status")(status_command)
app.command("hold")(hold_command)
app.command("release")(release_command)
app.command("rollback")(rollback_command)
app.command("refresh")(refresh_command)
app.command("scrub")(scrub_command)
