"""The command line as its user meets it: a process, an exit status, one JSON object, one line.

Owns running it apart from whoever runs the tests: a home, a cache and credentials of its own.

    command = Command(tmp_path / "home")
    pushed = command.json("push", model, "127.0.0.1:5000/team/model:v1")
    command.fails(7, "pull", "127.0.0.1:1/team/model:v1", out)
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.servers import START_SECONDS, wait_until

PROGRAM = Path(sys.executable).with_name("modelpack")
_DROPPED = ("CI", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "MODELPACK_DEBUG")


class Command:
    """``modelpack`` with a home directory of its own."""

    def __init__(self, home: Path, env: Mapping[str, str] | None = None):
        """``env`` is added to the environment, which holds no credentials otherwise."""
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.env = {key: value for key, value in os.environ.items() if key not in _DROPPED}
        self.env |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), **(env or {})}

    def start(self, *args: str | Path, stdin: bool = False) -> subprocess.Popen[str]:
        """Start a command and return its process, both outputs piped, and its input if asked."""
        return subprocess.Popen(
            [PROGRAM, *map(str, args)],
            env=self.env,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_slow_pull(self, reference: str, out: Path) -> subprocess.Popen[str]:
        """Start a pull at 4 MB a second, and return its process once bytes have arrived."""
        process = self.start("pull", reference, out, "--json", "--limit-rate=4M")
        staging = out / ".modelpack/staging"
        wait_until(lambda: any(staging.glob("*/[0-9]*")), seconds=START_SECONDS)
        return process

    def run(
        self, *args: str | Path, stdin: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is."""
        process = self.start(*args, stdin=stdin is not None)
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"{args} still ran after {timeout} s\n{stdout}{stderr}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def json(self, *args: str | Path, timeout: float = 120) -> dict[str, Any]:
        """Run a command with ``--json`` that must succeed, and return what it printed."""
        return result(self.run(*args, "--json", timeout=timeout))

    def fails(self, code: int, *args: str | Path, timeout: float = 120) -> str:
        """Run a command that must end with this status, and return its one line on stderr."""
        done = self.run(*args, "--quiet", timeout=timeout)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}{done.stderr}"
        return complaint(done)


def finish(process: subprocess.Popen[str], timeout: float = 90) -> dict[str, Any]:
    """Wait for a command started with ``--json`` that must succeed; return what it printed."""
    stdout, stderr = process.communicate(timeout=timeout)
    return result(subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr))


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the JSON object of a command that must have succeeded."""
    assert done.returncode == 0, f"{done.args}\nexit {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a failed command printed on stderr."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, f"{len(lines)} lines instead of one:\n{done.stderr}"
    assert lines[0].startswith("modelpack: ")
    return lines[0]
