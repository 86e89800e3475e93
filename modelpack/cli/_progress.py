"""Showing a transfer's progress: live bars on a terminal, a line now and then elsewhere.

Owns turning events into text on stderr. Leaves out results, which go to stdout.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from modelpack.cli._output import human_bytes, is_interactive, print_note, visible
from modelpack.events import (
    Event,
    Finished,
    Hashed,
    Moved,
    Observer,
    Planned,
    Resolved,
    Retried,
    Warned,
    ignore,
)

if TYPE_CHECKING:
    from rich.progress import TaskID

# Between two lines where no bar can be drawn.
_LINE_SECONDS = 5.0
# The rate shown is that of the last few seconds, counted in steps.
_RATE_SECONDS = 3.0
_STEP_SECONDS = 0.1
# From fewer bytes than these nobody can tell how long the rest takes.
_TELLING_BYTES = 4 * 1024 * 1024
# More bars than this push the total off a small terminal. Drawing them anew takes a millisecond or
# two, and of ten thousand small files each would be a bar for less than that.
_MAX_BARS = 8
_BAR_SECONDS = 0.05


@contextmanager
def progress(verb: str, *, quiet: bool = False) -> Iterator[Observer]:
    """Yield an observer that shows progress on stderr; ``verb`` is such as ``pulling``."""
    if quiet:
        yield _only_warnings
    elif is_interactive():
        display = _Bars(verb)
        with display:
            yield display
    else:
        yield _Lines(verb)


def _only_warnings(event: Event) -> None:
    if isinstance(event, Warned):
        _note(f"warning: {event.message}")
    else:
        ignore(event)


def _note(text: str) -> None:
    print_note(f"modelpack: {visible(text)}")


class _Tally:
    """Totals over a transfer, and the recent rate."""

    def __init__(self) -> None:
        self.total = 0
        self.hashed = 0
        self.moved = 0
        self.reused = 0
        self._recent: deque[tuple[float, int]] = deque()
        """Of each step of the last seconds, when it began and what was moved."""

    def take(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, Planned):
            self.total = event.total_bytes
            self.moved = 0
            self.reused = event.reused_bytes
        elif isinstance(event, Hashed):
            self.hashed += event.size
        elif isinstance(event, Moved):
            if not event.reused:
                self.moved += event.size
                self._count(event.size)
            elif self.moved + self.reused + event.size <= self.total:
                self.reused += event.size

    def _count(self, size: int) -> None:
        now = time.monotonic()
        if self._recent and now - self._recent[-1][0] < _STEP_SECONDS:
            began, before = self._recent[-1]
            self._recent[-1] = (began, before + size)
            return
        self._recent.append((now, size))
        while now - self._recent[0][0] > _RATE_SECONDS:
            self._recent.popleft()

    def rate(self) -> float:
        """Return the bytes per second of the last few seconds."""
        now = time.monotonic()
        recent = [(began, size) for began, size in self._recent if now - began <= _RATE_SECONDS]
        if not recent:
            return 0.0
        span = max(now - recent[0][0], 0.2)
        return sum(size for _, size in recent) / span

    def describe(self) -> str:
        """Say where the transfer stands, for people."""
        done = self.moved + self.reused
        parts = [f"{human_bytes(done)} of {human_bytes(self.total)}"]
        hashing = 0 < self.hashed < self.total
        if hashing:
            parts.append(f"{human_bytes(self.hashed)} hashed")
        rate = self.rate()
        # the small files that are sent while the first large one is hashed say nothing of the rest
        if rate and not (hashing and self.moved < _TELLING_BYTES):
            left = max(0, self.total - done) / rate
            parts.append(f"{human_bytes(rate)}/s, {_duration(left)} left")
        if self.reused:
            parts.append(f"{human_bytes(self.reused)} reused")
        return ", ".join(parts)


class _Lines:
    """A line every few seconds, for logs and pipes."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._tally = _Tally()
        self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        self._tally.take(event)
        if isinstance(event, Resolved):
            _note(f"{self._verb} {event.reference} ({event.digest})")
        elif isinstance(event, Warned):
            _note(f"warning: {event.message}")
        elif isinstance(event, Retried):
            _note(f"{event.what}: {event.reason}; trying again in {event.delay:.1f} s")
        elif time.monotonic() - self._last >= _LINE_SECONDS and self._tally.total:
            self._last = time.monotonic()
            _note(f"{self._verb}: {self._tally.describe()}")


class _Bars:
    """A bar for each item in progress and one for the total."""

    def __init__(self, verb: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._verb = verb
        self._tally = _Tally()
        self._sizes: dict[str, int] = {}
        self._started: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._bar_at = 0.0
        self._told_at = 0.0
        self._live = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[state]}", markup=False, justify="right"),
            console=Console(stderr=True, highlight=False),
            transient=True,
            refresh_per_second=5,
            expand=True,
        )
        self._total = self._live.add_task(verb, total=None, state="")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        self._tally.take(event)
        if isinstance(event, Planned):
            self._sizes = dict(event.items)
        elif isinstance(event, Moved):
            self._advance(event.item, event.size, "reused" if event.reused else "")
        elif isinstance(event, Hashed):
            self._advance(event.item, 0, "hashing")
        elif isinstance(event, Finished):
            self._finish(event.item)
        elif isinstance(event, Warned):
            self._tell(f"warning: {event.message}")
        elif isinstance(event, Retried):
            self._tell(f"{event.what}: {event.reason}; trying again in {event.delay:.1f} s")
        now = time.monotonic()
        if now - self._told_at >= _STEP_SECONDS or not isinstance(event, Moved | Hashed | Finished):
            self._told_at = now
            self._live.update(
                self._total,
                total=self._tally.total or None,
                completed=self._tally.moved + self._tally.reused,
                state=self._tally.describe() if self._tally.total else "",
            )

    def _tell(self, text: str) -> None:
        self._live.console.print(f"modelpack: {visible(text)}", markup=False)

    def _advance(self, item: str, size: int, state: str) -> None:
        done = self._done[item] = self._done.get(item, 0) + size
        total = self._sizes.get(item, done)
        task = self._started.get(item)
        if task is None:
            now = time.monotonic()
            is_over = bool(size) and done >= total
            if is_over or len(self._started) >= _MAX_BARS or now - self._bar_at < _BAR_SECONDS:
                return
            self._bar_at = now
            task = self._live.add_task(_shorten(item), total=total, state=state)
            self._started[item] = task
        shown = state or f"{human_bytes(min(done, total))} of {human_bytes(total)}"
        self._live.update(task, completed=min(done, total), state=shown)
        if done >= total:
            self._finish(item)

    def _finish(self, item: str) -> None:
        task = self._started.pop(item, None)
        if task is not None:
            self._live.remove_task(task)


def _shorten(name: str, width: int = 40) -> str:
    """Keep a name's end, which is what tells shards apart."""
    clean = "".join(character if character.isprintable() else "?" for character in name)
    return clean if len(clean) <= width else "..." + clean[-(width - 3) :]


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"
