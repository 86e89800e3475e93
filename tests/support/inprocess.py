"""The command line without a process of its own, where a test needs many and no terminal.

done = InProcess(capsys).run("daemon", "status", "--socket", path)
assert done.returncode == 0
"""

import json
import signal
import subprocess

from modelpack.cli._run import run


class InProcess:
    """Runs a command in this process, which takes milliseconds; its outputs are not terminals."""

    def __init__(self, capsys):
        self._capsys = capsys

    def run(self, *arguments):
        signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            code = run([*map(str, arguments)])
        finally:
            for number, handler in signals.items():
                signal.signal(number, handler)
        said = self._capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json").stdout)
