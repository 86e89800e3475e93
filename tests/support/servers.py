"""A program that runs while tests talk to it: started, waited for, logged, ended by its pid.

Leaves out what the programs are configured to do: ``registries.py``, ``nginx.py``, ``node.py``.

    server = Server("docker-registry", command("docker-registry", "serve", config), log=log)
    server.start(ready=lambda: "listening on" in server.logs())
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

START_SECONDS = 30  # a busy two-core machine included; each starts in well under a second
STOP_SECONDS = 10
LOG_LINES_SHOWN = 20
LOG_COLUMNS_SHOWN = 240

running: list["Server"] = []  # what a failed test's report shows the logs of


class ServerError(AssertionError):
    """A server ended or stayed silent before it was ready."""


class Server:
    """One long-running process whose output goes to a log file."""

    def __init__(
        self, name: str, argv: list[str], *, log: Path, env: Mapping[str, str] | None = None
    ):
        self.name = name
        self.argv = argv
        self.log = log
        self.env = env
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, ready: Callable[[], bool]) -> None:
        """Start the process and return once ``ready()`` holds.

        Raises:
            ServerError: it ended, or was not ready in time; the message ends with its log.
        """
        assert not self.alive, f"{self.name} runs already"
        with self.log.open("ab") as log:
            # The death signal covers a test run that is itself killed.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
            )
        running.append(self)
        try:
            wait_until(lambda: not self.alive or ready(), seconds=START_SECONDS)
        except TimeoutError:
            self.stop()
            raise ServerError(f"{self.name} is not ready\n{self.tail()}") from None
        if not self.alive:
            self.stop()
            raise ServerError(f"{self.name} ended at once\n{self.tail()}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process with a signal, by force if that takes too long; idempotent."""
        if self._process is None:
            return
        if self.alive:
            self._signal(signal.SIGCONT)
            self._signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
        self._process = None
        running.remove(self)

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        os.kill(self.pid, which)

    def logs(self) -> str:
        """Return all that the process has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self) -> str:
        """Return the last lines of the log, with its path."""
        lines = self.logs().splitlines()[-LOG_LINES_SHOWN:]
        lines = [line[:LOG_COLUMNS_SHOWN] for line in lines]
        return "\n".join([f"[{self.log}]", *lines])


def wait_until(condition: Callable[[], bool], *, seconds: float, poll: float = 0.02) -> None:
    """Return when ``condition()`` holds.

    Raises:
        TimeoutError: it does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still waiting after {seconds} s")
        time.sleep(poll)


def free_port() -> int:
    """Return a loopback port that was free a moment ago, for programs that cannot choose one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts_connections(port: int) -> bool:
    """Return whether something listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
