"""Which connection fetches which range, and how many connections there should be.

Owns the decisions of the download engine: handing out ranges, splitting the largest one left when
a worker would otherwise idle, growing and shrinking the number of connections by goodput, and
noticing a connection that is much slower than its peers. Pure: time comes in as an argument, and
the caller holds the lock. Leaves out sockets, threads and files (``download.py``).
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from modelpack.plan import ChunkMap, FetchRange

# Splitting pays only if the second half is worth a request.
MIN_SPLIT_BYTES = 8 * 1024 * 1024
# performance.md's rule: start at 8, grow by a quarter while total goodput gains 5 %, back off by
# 0.7 when the server says so, never above 64. Xet's round-trip target over-ramps; this does not.
START_CONNECTIONS = 8
MAX_CONNECTIONS = 64
GROWTH = 1.25
GAIN = 1.05
BACK_OFF = 0.7
# A connection is replaced when, after this long, it runs at less than this part of the median.
SLOW_AFTER_SECONDS = 5.0
SLOW_PART = 0.25


@dataclass(eq=False)
class Assignment:
    """A range in progress. ``cursor`` is the next chunk, ``last`` may come closer by a split."""

    layer: int
    cursor: int
    last: int
    started: float
    received: int = 0
    cancelled: bool = False
    whole_layer: bool = False
    """The server ignores ranges, and this is one stream over the whole layer."""


@dataclass
class RangeQueue:
    """The ranges still to fetch, and those being fetched."""

    chunk_map: ChunkMap
    waiting: deque[FetchRange]
    active: set[Assignment] = field(default_factory=set)
    streamed_layers: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, chunk_map: ChunkMap, ranges: Iterable[FetchRange]) -> "RangeQueue":
        """Queue up ranges in order."""
        return cls(chunk_map=chunk_map, waiting=deque(ranges))

    @property
    def is_done(self) -> bool:
        """Whether nothing waits and nothing is in progress."""
        return not (self.waiting or self.active)

    def take(self, now: float) -> Assignment | None:
        """Assign the next range, or half of the largest one in progress, or None."""
        while self.waiting:
            item = self.waiting.popleft()
            if item.layer not in self.streamed_layers:
                return self._assign(item.layer, item.first, item.last, now)
        victim = max(self.active, key=self.bytes_left, default=None)
        if victim is None or self.bytes_left(victim) < 2 * MIN_SPLIT_BYTES or victim.whole_layer:
            return None
        middle = self._middle(victim)
        if middle is None:
            return None
        end, victim.last = victim.last, middle
        return self._assign(victim.layer, middle, end, now)

    def finish(self, assignment: Assignment) -> None:
        """Drop an assignment that is complete."""
        self.active.discard(assignment)

    def give_back(self, assignment: Assignment) -> None:
        """Queue what is left of an assignment that failed, to be taken next."""
        self.active.discard(assignment)
        if assignment.layer in self.streamed_layers and not assignment.whole_layer:
            return
        self.streamed_layers.discard(assignment.layer)
        if assignment.cursor < assignment.last:
            self.waiting.appendleft(
                FetchRange(layer=assignment.layer, first=assignment.cursor, last=assignment.last)
            )

    def stream_layer(self, assignment: Assignment, first: int, last: int) -> bool:
        """Let one assignment take over its whole layer; False if another already has.

        ``first`` and ``last`` span the layer's chunks.
        """
        if assignment.layer in self.streamed_layers:
            return False
        self.streamed_layers.add(assignment.layer)
        assignment.whole_layer = True
        assignment.cursor, assignment.last = first, last
        return True

    def bytes_left(self, assignment: Assignment) -> int:
        """Return how much of the layer an assignment still has to read."""
        if assignment.cursor >= assignment.last:
            return 0
        return self.chunk_map.end(assignment.last - 1) - self.chunk_map.start(assignment.cursor)

    def slow(self, now: float) -> list[Assignment]:
        """Return the assignments that should be replaced for being slow beside their peers."""
        rates = {
            item: item.received / (now - item.started)
            for item in self.active
            if now - item.started >= SLOW_AFTER_SECONDS
        }
        if len(rates) < 3:
            return []
        bar = median(rates.values()) * SLOW_PART
        return [item for item, rate in rates.items() if rate < bar and not item.whole_layer]

    def _assign(self, layer: int, first: int, last: int, now: float) -> Assignment:
        assignment = Assignment(layer=layer, cursor=first, last=last, started=now)
        self.active.add(assignment)
        return assignment

    def _middle(self, victim: Assignment) -> int | None:
        """Find the chunk nearest the middle of what is left, past the one being read."""
        low, high = victim.cursor + 1, victim.last
        if high - low < 1:
            return None
        start = self.chunk_map.start(victim.cursor)
        goal = start + self.bytes_left(victim) // 2
        while low < high:
            probe = (low + high) // 2
            if self.chunk_map.start(probe) < goal:
                low = probe + 1
            else:
                high = probe
        return low if low < victim.last else None


@dataclass
class ConnectionGovernor:
    """How many connections to use, steered by goodput and by what the server says."""

    limit: int
    target: int
    highest: int
    """What ``limit`` was, and may become again after the server asked for less."""
    best_rate: float = 0.0
    settled: bool = False

    @classmethod
    def starting(cls, limit: int | None, start: int = START_CONNECTIONS) -> "ConnectionGovernor":
        """Start with the usual number, within ``limit``."""
        highest = min(limit or MAX_CONNECTIONS, MAX_CONNECTIONS)
        return cls(limit=highest, target=min(start, highest), highest=highest)

    def measured(self, rate: float, connections: int) -> None:
        """Take in the goodput (bytes per second) of the last interval."""
        if self.settled or connections < self.target or not rate:
            return  # before the first byte nothing is known yet
        if rate >= self.best_rate * GAIN:
            self.best_rate = max(rate, self.best_rate)
            grown = min(self.limit, math.ceil(self.target * GROWTH))
            self.settled = grown == self.target
            self.target = grown
        else:
            self.settled = True

    def throttled(self) -> None:
        """Take in that the server asked for less, or timed out."""
        self.target = max(1, int(self.target * BACK_OFF))
        self.limit = max(self.target, 1)
        self.settled = True

    def eased(self) -> None:
        """Take in that the server has not asked for less for a while."""
        if self.limit < self.highest:
            self.limit += 1
            self.target += 1

    def capped(self, connections: int) -> None:
        """Take in that this machine allows no more connections than these."""
        self.limit = self.target = self.highest = max(1, connections)
        self.settled = True
