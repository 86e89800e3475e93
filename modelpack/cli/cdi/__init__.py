"""``modelpack cdi``: device specs for containers, from an inventory or from the machine itself.

Owns the list of verbs; each group of them is a module. Leaves out everything that can be done
without a terminal, which is the ``cdi`` package's.
"""

import typer

from modelpack.cli._group import Group
from modelpack.cli.cdi.generate import generate_command, inventory_command
from modelpack.cli.cdi.node import diff_command, refresh_command
from modelpack.cli.cdi.record import record_command
from modelpack.cli.cdi.share import share_command
from modelpack.cli.cdi.specs import inject_command, lint_command, list_command, validate_command

app = typer.Typer(
    cls=Group,
    help="Device specs (CDI) for containerd, CRI-O, Podman and Docker.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command("generate")(generate_command)
app.command("inventory")(inventory_command)
app.command("record")(record_command)
app.command("list")(list_command)
app.command("validate")(validate_command)
app.command("lint")(lint_command)
app.command("inject")(inject_command)
app.command("diff")(diff_command)
app.command("refresh")(refresh_command)
app.command("share")(share_command)
