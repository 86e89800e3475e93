"""One running transfer as it is seen from outside: its stage, its figures, and how to stop it.

Owns turning a pull's events into stages and times. The observer raises when the transfer was told
to stop, which is how a pull is ended in between. The clock is an argument.

    transfer = Transfer(time.monotonic)
    node.install(reference, digest, gate=gate, limiter=limiter, observer=transfer.observe)
    transfer.snapshot().timings
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelpack.errors import InterruptedTransferError
from modelpack.events import Event, Moved, Planned, Resolved, Retried, Warned
from modelpack.prefetch.status import Stage

# A warning is for the log; of each transfer these many are kept for it.
_MAX_WARNINGS = 20


class StoppedError(InterruptedTransferError):
    """The transfer was told to stop; what is verified is kept, and the next one goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A transfer at one moment."""

    stage: Stage
    timings: Mapping[str, float]
    """Seconds in each stage so far, by its name."""
    total_bytes: int
    fetched_bytes: int
    reused_bytes: int
    trouble: str
    """What is being retried, empty if nothing is."""


class Transfer:
    """A transfer's progress; its methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float], stage: Stage = Stage.RESOLVING) -> None:
        """Begin in a stage; ``clock`` is monotonic."""
        self._clock = clock
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stage = stage
        self._since = clock()
        self._timings: dict[str, float] = {}
        self._total = self._fetched = self._reused = 0
        self._trouble = ""
        self.warnings: list[str] = []

    def stop(self) -> None:
        """Have the transfer end at its next event."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise StoppedError if the transfer was told to stop."""
        if self._stopped.is_set():
            raise StoppedError("stopped; what is verified is kept")

    def enter(self, stage: Stage) -> None:
        """Note that another stage has begun."""
        with self._lock:
            self._enter(stage)

    def observe(self, event: Event) -> None:
        """Take an event of the pull.

        Raises:
            StoppedError: the transfer was told to stop.
        """
        self.check()
        with self._lock:
            match event:
                case Planned():
                    self._total = event.total_bytes
                    self._fetched, self._reused = 0, 0
                    self._enter(Stage.DOWNLOADING)
                case Moved():
                    self._trouble = ""
                    if event.reused:
                        self._reused += event.size
                    else:
                        self._fetched += event.size
                    if 0 < self._total <= self._fetched + self._reused:
                        self._enter(Stage.IMPORTING)
                case Retried():
                    self._trouble = f"{event.what}: {event.reason}"
                case Warned() if len(self.warnings) < _MAX_WARNINGS:
                    self.warnings.append(event.message)
                case Resolved():
                    self._trouble = ""

    def snapshot(self) -> Snapshot:
        """Return how far it is."""
        with self._lock:
            timings = dict(self._timings)
            name = str(self._stage)
            timings[name] = timings.get(name, 0.0) + self._clock() - self._since
            return Snapshot(
                stage=self._stage,
                timings=timings,
                total_bytes=self._total,
                fetched_bytes=self._fetched,
                reused_bytes=self._reused,
                trouble=self._trouble,
            )

    def _enter(self, stage: Stage) -> None:
        now = self._clock()
        name = str(self._stage)
        self._timings[name] = self._timings.get(name, 0.0) + now - self._since
        self._stage, self._since = stage, now
