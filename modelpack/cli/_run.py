"""Running the application: every error becomes one line on stderr and an exit status.

Exit statuses are those of ``modelpack.errors``; usage errors found by the argument parser are 2,
an interrupt is 130. A traceback appears only with ``--debug``.
"""

import logging
import os
import re
import signal
import sys
from collections.abc import Sequence

from modelpack.errors import UsageError

INTERRUPTED = 130
_BROKEN_PIPE = 141
_CONTINUE = "interrupted; run the same command again to continue"
# What a shell sets when it asks for completions.
_COMPLETION = "_MODELPACK_COMPLETE"
# Like an interrupt, these let what is verified be kept and temporary files be removed.
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# Control characters in a file or registry's name must not drive the terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    debug = "--debug" in arguments or bool(os.environ.get("MODELPACK_DEBUG"))
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    from modelpack.cli.app import application

    # --debug is understood after the verb as well as before it
    rest = [item for item in arguments if item != "--debug"]
    app = application(rest[0] if rest and _COMPLETION not in os.environ else None)
    for number in _ENDING_SIGNALS:
        signal.signal(number, _end)
    try:
        result = app(args=rest, prog_name="modelpack", standalone_mode=False)
    except BrokenPipeError:
        # The reader of our output has seen enough; point stdout elsewhere for the final flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except _EndedError as ended:
        _complain(_CONTINUE.replace("interrupted", f"ended by {ended.name}"))
        return ended.status
    except KeyboardInterrupt:
        result = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return _report(error, rest)
    if result == INTERRUPTED:  # the argument parser turns an interrupt into this result
        _complain(_CONTINUE)
    return result if isinstance(result, int) else 0


class _EndedError(BaseException):
    """A signal asked the process to end; not an Exception, so that nothing swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        self.status = 128 + number


def _end(number: int, _frame: object) -> None:
    raise _EndedError(number)


def _report(error: Exception, arguments: Sequence[str]) -> int:
    explain = getattr(error, "format_message", None)
    if type(error).__name__ == "NoArgsIsHelpError" and callable(explain):
        sys.stderr.write(f"{explain()}\n")
        return UsageError.exit_code
    if callable(explain):  # the argument parser's own exceptions know how to explain themselves
        # an option without its value is noticed before the verb's own context is known
        verb = [item for item in arguments[:1] if not item.startswith("-")]
        command = getattr(
            getattr(error, "ctx", None), "command_path", " ".join(["modelpack", *verb])
        )
        _complain(f"{str(explain()).rstrip('.')}; see: {command} --help")
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
    if isinstance(error, OSError) and error.strerror:
        return _report_system(error)
    _complain(
        f"unexpected {type(error).__name__}: {error} "
        "(this is a fault in modelpack; --debug shows where)"
    )
    return 1


def _report_system(error: OSError) -> int:
    """Pass on what the operating system says; it is no fault of ours."""
    from modelpack.errors import SpaceError
    from modelpack.stores.files import NO_SPACE

    what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if error.errno in NO_SPACE:
        _complain(f"{what}; free some space and run again")
        return SpaceError.exit_code
    _complain(str(what))
    return 1


def _complain(message: str) -> None:
    from modelpack.cli._output import print_note

    print_note(f"modelpack: {_CONTROL.sub(' ', message)}")
