"""Telling systemd how the daemon is: ready, reloading, stopping, alive.

Owns the datagrams of ``sd_notify(3)`` and the watchdog's rhythm. Leaves out when they are sent,
which the main loop decides, and that alone keeps the watchdog honest: only its own calls of
``alive`` reach systemd, no thread or timer stands in for it.

    notifier = Notifier.from_environment(os.environ)
    notifier.ready("3 of 4 models are ready")
    while running:
        notifier.alive()          # at least every notifier.beat seconds
        wait(min(notifier.beat or 5, 5))
    notifier.stopping()

Where no service manager listens, every call does nothing.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Self

from modelpack.prefetch.redaction import redact

_logger = logging.getLogger(__name__)

# A service manager that does not read must not stop the main loop for longer than this.
_SEND_SECONDS = 1.0
_MICROSECONDS = 1_000_000
# systemd shows one line.
_MAX_STATUS = 200


class Notifier:
    """Sends the state of this process to the service manager that started it.

    No method raises: that nobody can be told is no reason to stop serving models.
    """

    def __init__(
        self,
        address: str | None,
        *,
        watchdog: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to send to ``address``, a path or ``@`` and an abstract name.

        ``watchdog`` is the number of seconds after which systemd ends a silent service.
        """
        self._address = address
        self._watchdog = watchdog
        self._monotonic = monotonic
        self._last_sign = -float("inf")
        self._last_status = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.

        What is meant for another process, or malformed, is left alone.
        """
        address = environ.get("NOTIFY_SOCKET") or None
        if address is not None and address[0] not in "/@":
            _logger.warning("NOTIFY_SOCKET is neither a path nor an abstract name; not notifying")
            address = None
        return cls(address, watchdog=_watchdog_seconds(environ))

    @property
    def beat(self) -> float | None:
        """The seconds between two calls of ``alive`` at most; None without a watchdog."""
        return self._watchdog / 2 if self._address and self._watchdog else None

    def ready(self, status: str = "") -> None:
        """Say that start-up, or a reload, is over."""
        self._send("READY=1", *self._status_line(status))

    def status(self, text: str) -> None:
        """Show one line in ``systemctl status``; saying the same again sends nothing."""
        if text != self._last_status:
            self._send(*self._status_line(text))

    def reloading(self) -> None:
        """Say that the configuration is being read again; ``ready`` ends it.

        The time is what ``Type=notify-reload`` needs to tell this reload from an earlier one.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        """Say that the service is on its way down."""
        self._send("STOPPING=1", *self._status_line(status))

    def alive(self) -> None:
        """Say that the main loop has come round.

        May be called at any rate: what is sent is one sign of life a quarter of the watchdog's
        time. Together with a call every ``beat``, the longest silence is three quarters of it.
        """
        if self.beat is None:
            return
        now = self._monotonic()
        if now - self._last_sign >= self.beat / 2 and self._send("WATCHDOG=1"):
            self._last_sign = now

    def _status_line(self, text: str) -> list[str]:
        self._last_status = text
        line = "".join(character if character.isprintable() else " " for character in redact(text))
        return [f"STATUS={line[:_MAX_STATUS]}"] if line else []

    def _send(self, *lines: str) -> bool:
        if self._address is None or not lines:
            return False
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.settimeout(_SEND_SECONDS)
                connection.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            _logger.warning("cannot tell the service manager %s: %s", lines[0], error.strerror)
            return False
        return True


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    text, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        return None
    if process and process != str(os.getpid()):
        return None
    return int(text) / _MICROSECONDS
