"""Running the application: every error becomes one line on stderr and an exit status.

Exit statuses are those of ``modelpack.errors``; usage errors found by the argument parser are 2,
an interrupt is 130. A traceback appears only with ``--debug``.
"""

import logging
import os
import re
import sys
from collections.abc import Sequence

INTERRUPTED = 130
_BROKEN_PIPE = 141
# Control characters in a file or registry's name must not drive the terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    debug = "--debug" in arguments or bool(os.environ.get("MODELPACK_DEBUG"))
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    from modelpack.cli.app import app

    try:
        # --debug is understood after the verb as well as before it
        result = app(
            args=[item for item in arguments if item != "--debug"],
            prog_name="modelpack",
            standalone_mode=False,
        )
    except BrokenPipeError:
        # The reader of our output has seen enough; point stdout elsewhere for the final flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        result = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return _report(error)
    if result == INTERRUPTED:  # the argument parser turns an interrupt into this result
        _complain("interrupted; run the same command again to continue")
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    show = getattr(error, "show", None)
    if callable(show):  # the argument parser's own exceptions know how to explain themselves
        show()
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        _complain("interrupted; nothing was changed")
        return INTERRUPTED
    if type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0))
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        _complain(str(error))
        return code
    _complain(
        f"unexpected {type(error).__name__}: {error} "
        "(this is a fault in modelpack; --debug shows where)"
    )
    return 1


def _complain(message: str) -> None:
    sys.stderr.write(f"modelpack: {_CONTROL.sub(' ', message)}\n")
