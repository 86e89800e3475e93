"""What the library tells its caller while it works.

Owns the event values; an observer is any callable that takes one. Events are facts, not text:
rendering is the caller's business, and no observer may raise. They arrive from several threads,
one at a time for one transfer.

    >>> seen: list[Event] = []
    >>> observer: Observer = seen.append
    >>> observer(Warned(message="the layers were recompressed"))
    >>> seen[0]
    Warned(message='the layers were recompressed')
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from modelpack.digest import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A reference was resolved to a manifest."""

    reference: str
    digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """It is known what a transfer will move: byte totals over all items."""

    total_bytes: int
    reused_bytes: int
    """Bytes that are already where they belong, or are copied locally."""
    items: tuple[tuple[str, int], ...]
    """Names (file paths on pull, layer titles on push) and sizes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """Bytes of one item arrived verified (pull) or were taken by the target (push)."""

    item: str
    size: int
    reused: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Hashed:
    """Bytes of one item were read and hashed, before any are sent."""

    item: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """One item is complete."""

    item: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Retried:
    """A request failed and will be tried again."""

    what: str
    reason: str
    delay: float
    """Seconds until the next try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned:
    """Something the user should know that does not stop the work."""

    message: str


Event = Resolved | Planned | Moved | Hashed | Finished | Retried | Warned
Observer = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Observe nothing."""


def one_at_a_time(observer: Observer) -> Observer:
    """Return an observer for several threads, which tells ``observer`` one event after another."""
    lock = threading.Lock()

    def tell(event: Event) -> None:
        with lock:
            observer(event)

    return tell
