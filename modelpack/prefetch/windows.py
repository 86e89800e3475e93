"""Times of the day and days of the week at which something may happen, in a named time zone.

Owns windows and rates by time of day. What the clock on the wall says in the zone decides, so a
window of a night when clocks change is an hour shorter or longer. Times are seconds since the
epoch.

    >>> night = Window(start=22 * 60, end=6 * 60)
    >>> night.is_open(5 * 3600.0, UTC), night.next_opening(7 * 3600.0, UTC) / 3600
    (True, 22.0)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from modelpack.errors import UsageError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_PER_DAY = 24 * 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """From one time of the day to another, on some days; one that ends earlier ends the next day."""

    start: int
    """Minutes since midnight, below 1440."""
    end: int
    """Minutes since midnight, up to 1440; not part of the window."""
    days: frozenset[int] = frozenset(range(7))
    """On which it begins; Monday is 0."""

    def is_open(self, now: float, zone: tzinfo) -> bool:
        """Tell whether a moment is in the window."""
        local = datetime.fromtimestamp(now, zone)
        minute = local.hour * 60 + local.minute
        today = local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= minute < self.end
        begun_today = today in self.days and minute >= self.start
        begun_yesterday = (today - 1) % 7 in self.days and minute < self.end
        return begun_today or begun_yesterday

    def next_opening(self, now: float, zone: tzinfo) -> float:
        """Return when it opens next, after ``now``."""
        local = datetime.fromtimestamp(now, zone)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        for ahead in range(9):
            day = midnight + timedelta(days=ahead)
            opening = (day + timedelta(minutes=self.start)).timestamp()
            if day.weekday() in self.days and opening > now:
                return opening
        raise AssertionError("a window opens on some day of each week")


def is_open(windows: Sequence[Window], now: float, zone: tzinfo) -> bool:
    """Tell whether one of several windows is open; without any it always is."""
    return not windows or any(window.is_open(now, zone) for window in windows)


def next_opening(windows: Sequence[Window], now: float, zone: tzinfo) -> float:
    """Return when the next of several windows opens."""
    return min(window.next_opening(now, zone) for window in windows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """How fast may be downloaded, by time of day."""

    default: int | None = None
    """Bytes per second outside all windows; None is no limit."""
    timed: tuple[tuple[Window, int | None], ...] = ()
    """The first window that is open decides."""

    def at(self, now: float, zone: tzinfo) -> int | None:
        """Return the rate that holds at a moment, None if there is no limit."""
        for window, rate in self.timed:
            if window.is_open(now, zone):
                return rate
        return self.default


def parse_time(text: object) -> int:
    """Return minutes since midnight from ``HH:MM``; ``24:00`` is the day's end.

    Raises:
        UsageError: it is no such time.
    """
    if isinstance(text, str) and len(text) == 5 and text[2] == ":":
        hours, minutes = text[:2], text[3:]
        if hours.isdecimal() and minutes.isdecimal() and text.isascii():
            total = int(hours) * 60 + int(minutes)
            if int(minutes) < 60 and total <= MINUTES_PER_DAY:
                return total
    raise UsageError(f"{text!r:.40} is not a time of day such as 08:00")


def parse_zone(name: str) -> tzinfo:
    """Return the time zone of a name such as ``Europe/Berlin``.

    Raises:
        UsageError: this machine knows none of that name.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"{name!r:.60} is not a time zone that this machine knows; write UTC, or install "
            "tzdata for names such as Europe/Berlin"
        ) from error
