"""``modelpack daemon`` as a process, with a configuration that a test changes while it runs.

with DaemonProcess(tmp_path, node, models=[{"name": "m", "ref": reference}]) as daemon:
    daemon.wait_for_stage("m", "Ready")
"""

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from tests.support.command import PROGRAM, Command
from tests.support.servers import Server, free_port, wait_until

if TYPE_CHECKING:
    from tests.support.node import Node

# A model of some megabytes takes a second; a machine that also runs everything else, longer.
STAGE_SECONDS = 60
# Until a model that failed is tried again, so that no test waits for that.
RETRY = {"first": "1s", "longest": "2s"}


class DaemonProcess(Server):
    """One daemon over one node; a context manager that ends it."""

    def __init__(
        self,
        directory: Path,
        node: "Node | None" = None,
        *,
        models: list[dict[str, Any]],
        env: dict[str, str] | None = None,
        **settings: Any,
    ):
        """``settings`` are members of the configuration besides the usual ones.

        Without a ``node``, ``runtime`` must be among them.
        """
        address = str(node.socket) if node else ""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.config = directory / "daemon.yaml"
        self.settings: dict[str, Any] = {
            "store": str(directory / "store"),
            "budget": "1Gi",
            "listen": f"127.0.0.1:{self.port}",
            "runtime": {"kind": "containerd", "address": address, "hostRoot": "/"},
            "retry": RETRY,
            "node": {"name": "node-of-the-tests"},
            "models": models,
            **settings,
        }
        self.write()
        self._command = command = Command(directory / "home", env)
        super().__init__(
            "daemon",
            [str(PROGRAM), "daemon", "--config", str(self.config), "--log-level", "debug"],
            log=directory / "daemon.log",
            env=command.env,
        )

    def write(self, **changes: Any) -> None:
        """Change members of the configuration; None takes one away."""
        self.settings |= changes
        kept = {name: value for name, value in self.settings.items() if value is not None}
        temporary = self.config.with_suffix(".new")
        temporary.write_text(yaml.safe_dump(kept))
        os.replace(temporary, self.config)

    def reload(self, **changes: Any) -> None:
        """Change members of the configuration, and have the daemon read it now."""
        self.write(**changes)
        self._signal(signal.SIGHUP)

    def start(self) -> None:
        """Start it, or start it again over the same store."""
        super().start(ready=lambda: self.status() is not None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; one that does not stop within its own bound is killed, and the test fails."""
        super().stop(how)

    def ask(self, verb: str, name: str) -> dict[str, Any]:
        """Ask the daemon over its control socket, by the command line; return what it says."""
        return self._command.json("daemon", verb, name, "--config", self.config)

    def get(self, path: str) -> str:
        """Return what the daemon serves at a path."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def status(self) -> dict[str, Any] | None:
        """Return ``/v1/status``, or None if nothing answers yet."""
        try:
            return json.loads(self.get("/v1/status"))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def model(self, name: str) -> dict[str, Any]:
        """Return one model's part of the status; empty if there is none."""
        found = (self.status() or {"models": []})["models"]
        return next((item for item in found if item["name"] == name), {})

    def wait_for(self, name: str, seconds: float = STAGE_SECONDS, **members: Any) -> dict[str, Any]:
        """Return a model's status once it has these members."""
        last: dict[str, Any] = {}

        def is_so() -> bool:
            last.clear()
            last.update(self.model(name))
            return all(last.get(key) == value for key, value in members.items())

        try:
            wait_until(is_so, seconds=seconds, poll=0.1)
        except TimeoutError:
            raise AssertionError(f"{name} is not {members} but {last}\n{self.tail()}") from None
        return last

    def wait_until_idle(self, seconds: float = STAGE_SECONDS) -> None:
        """Return once every model is ready."""
        until = time.monotonic() + seconds
        while True:
            status = self.status()
            models = status["models"] if status else []
            if models and all(item["stage"] == "Ready" for item in models):
                return
            assert time.monotonic() < until, f"{models}\n{self.tail()}"
            time.sleep(0.1)

    def wait_until_clean(
        self, is_clean: Callable[[], bool], seconds: float = STAGE_SECONDS
    ) -> None:
        """Return once what interrupted transfers left is gone."""
        try:
            wait_until(is_clean, seconds=seconds, poll=0.2)
        except TimeoutError:
            raise AssertionError(f"something unfinished stays\n{self.tail()}") from None
