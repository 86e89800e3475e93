"""The status page of a daemon, open in a browser.

page.show(status(model("chat", Stage.DOWNLOADING)))
assert "Downloading" in page.row_text("chat")
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from modelpack.prefetch.status import DaemonStatus
from tests.support.browser import Browser
from tests.support.command import PROGRAM
from tests.support.servers import free_port, wait_until
from tests.support.webdaemon import SECONDS, Daemon


def row(name, inner=""):
    """A JavaScript expression for a model's element, or for one inside."""
    return (
        "[...document.querySelectorAll('.model')]"
        f".find((node) => node.querySelector('.name').textContent === {name!r})"
        + (f".querySelector({inner!r})" if inner else "")
    )


class StatusPage:
    """One browser's page of one daemon, whose status the test decides."""

    def __init__(self, browser: Browser, url: str, daemon: Daemon | None = None):
        self.browser = browser
        self.url = url
        self.daemon = daemon

    def show(self, status: DaemonStatus) -> None:
        """Open the page on a status."""
        self.daemon.status = status
        self.open()

    def open(self) -> None:
        """Open the page, and wait until it is drawn."""
        self.browser.open(self.url)
        self.browser.wait_for("!document.getElementById('main').hidden")

    def look_again(self) -> None:
        """Do what switching to the page's tab does: it asks at once."""
        self.browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    def text(self, selector: str) -> str | None:
        """Return what is seen of the first element of a kind."""
        return self.browser.evaluate(f"document.querySelector({selector!r})?.innerText")

    def row_text(self, name: str) -> str:
        """Return what is seen of a model."""
        return self.browser.evaluate(f"{row(name)}.innerText")


class RunningDaemon:
    """The real daemon as a process, over a directory; a context manager that ends it."""

    def __init__(self, directory: Path, *, env: Mapping[str, str], **settings: Any):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self._env = env
        self._log = directory / "daemon.log"
        self._config = directory / "daemon.yaml"
        settings = {
            "store": str(directory / "store"),
            "budget": "1Gi",
            "listen": f"127.0.0.1:{port}",
            "runtime": {"kind": "directory", "path": str(directory / "models")},
            "node": {"name": "node-a"},
            **settings,
        }
        self._config.write_text(yaml.safe_dump(settings))

    def __enter__(self) -> Self:
        with self._log.open("wb") as said:
            self._process = subprocess.Popen(
                [PROGRAM, "daemon", "--config", self._config],
                env=self._env,
                stdout=said,
                stderr=said,
            )
        try:
            wait_until(lambda: b"listening on" in self._log.read_bytes(), seconds=SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
