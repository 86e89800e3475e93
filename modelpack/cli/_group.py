"""A group of commands whose help says of each what it does, in a whole sentence.

Owns only that: typer would cut the sentence where the line ends.
"""

from typing import Any

from typer.core import TyperGroup

# Longer than any first sentence.
_NO_LIMIT = 1000


class Group(TyperGroup):
    """Lists commands with the first sentence of their help, wrapped instead of cut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, command.get_short_help_str(_NO_LIMIT))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
