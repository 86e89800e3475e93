"""The command line: one verb a file, each a thin caller of the library.

Owns arguments, output and exit codes. May import everything; nothing imports it. Start-up stays
fast because a verb imports what it needs inside its function.
"""

import gc
import sys

# Loading code makes many objects and no garbage; looking for some every 700 takes a tenth of a start.
_COLLECT_EVERY = 50_000


def main() -> None:
    """Run the command line and exit with its status."""
    gc.set_threshold(_COLLECT_EVERY)
    from modelpack.cli._run import run

    sys.exit(run(sys.argv[1:]))
