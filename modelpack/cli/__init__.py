"""The command line: one verb a file, each a thin caller of the library.

Owns arguments, output and exit codes. May import everything; nothing imports it. Start-up stays
fast because a verb imports what it needs inside its function.
"""

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    from modelpack.cli._run import run

    sys.exit(run(sys.argv[1:]))
