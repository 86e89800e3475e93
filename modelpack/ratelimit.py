"""Keeping a rate of bytes over all connections together.

Owns the token bucket. Clock and sleep are arguments.

    >>> RateLimiter(None).take(10**9)
"""

import threading
import time
from collections.abc import Callable

# Bytes that may go at once after a pause, as seconds' worth: short enough that a rate seen over a
# second is the rate asked for.
_BURST_SECONDS = 0.25
_SMALLEST_PIECE = 16 * 1024


class RateLimiter:
    """A token bucket; thread-safe. Without a rate it costs nothing."""

    def __init__(
        self,
        rate: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Limit to ``rate`` bytes per second, or not at all."""
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    @property
    def rate(self) -> int | None:
        """Bytes per second, None without a limit."""
        return self._rate

    def set_rate(self, rate: int | None) -> None:
        """Go on with another rate; what waits already waits as long as it was told."""
        with self._lock:
            self._rate = rate

    def piece(self, largest: int) -> int:
        """Return how many bytes to move between two calls of ``take``."""
        rate = self._rate
        if rate is None:
            return largest
        return max(_SMALLEST_PIECE, min(largest, int(rate * _BURST_SECONDS)))

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes may move."""
        wait = self.reserve(count)
        if wait > 0:
            self._sleep(wait)

    def reserve(self, count: int) -> float:
        """Let ``count`` bytes move; return how many seconds the caller has to wait for it."""
        rate = self._rate
        if rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            start = max(self._free_at, now - _BURST_SECONDS)
            self._free_at = start + count / rate
            return max(0.0, self._free_at - now)
