"""A daemon's status as lines on a terminal, or as rows in a pipe.

Owns the picture: bars, marks, what is said of each model. Leaves out where the status comes from.
Every text of the daemon's is made safe for a terminal. A width of None means a pipe, where nothing
is cut and each model is one line.
"""

import re
from collections import deque
from collections.abc import Iterator

from rich.cells import cell_len
from rich.text import Text

from modelpack.cli._output import console, count, has_unicode, human_bytes, visible
from modelpack.cli._show import print_table
from modelpack.prefetch.status import BudgetStatus, DaemonStatus, ModelStatus, Stage

MOVING = frozenset({Stage.RESOLVING, Stage.VERIFYING, Stage.DOWNLOADING, Stage.IMPORTING})
TROUBLE = frozenset({Stage.REFUSED, Stage.INSUFFICIENT_SPACE, Stage.FAILED})

_BAR = 24
_LEAST_BUDGET, _MOST_BUDGET = 10, 60
_NAME = 36
# A rate is that of the last few seconds.
_RATE_SECONDS = 8.0
_DIGEST = 12
# Most reasons say themselves when the next try is due.
_SAYS_WHEN = re.compile(r" in \d")
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


class Rates:
    """How fast each model has been fetched lately, from one status to the next."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def take(self, status: DaemonStatus) -> None:
        """Note where each model stands."""
        for model in status.models:
            seen = self._seen.setdefault(model.name, deque())
            if seen and model.fetched_bytes < seen[-1][1]:  # another transfer has begun
                seen.clear()
            seen.append((status.now, model.fetched_bytes))
            while len(seen) > 2 and seen[-1][0] - seen[0][0] > _RATE_SECONDS:
                seen.popleft()

    def of(self, model: ModelStatus) -> float:
        """Return bytes a second; of a status seen once, the transfer's average so far."""
        seen = self._seen.get(model.name, deque())
        span = seen[-1][0] - seen[0][0] if len(seen) > 1 else 0.0
        if span > 0:
            return (seen[-1][1] - seen[0][1]) / span
        spent = model.timings.get(str(Stage.DOWNLOADING), 0.0)
        return model.fetched_bytes / spent if spent >= 1 else 0.0


def print_status(status: DaemonStatus) -> None:
    """Print a status, with bars on a terminal and as a table in a pipe."""
    out = console()
    rates = Rates()
    rates.take(status)
    if out.is_terminal:
        for line in status_lines(status, rates=rates, width=out.width):
            out.print(line)
        return
    for line in _heading(status):
        out.print(line)
    out.print("disk: " + "".join(_disk(status.budget)))
    rows = [
        (
            model.name,
            str(model.stage),
            _size(model, rates),
            _use(model, status.now),
            model.digest or "-",
            model.reason,
        )
        for model in status.models
    ]
    names = ("MODEL", "STAGE", "SIZE", "USE", "VERSION", "REASON")
    print_table([(name, {}) for name in names], rows)


def status_lines(status: DaemonStatus, *, rates: Rates, width: int) -> list[Text]:
    """Return the lines that fill a terminal of ``width`` columns."""
    lines = [*_heading(status), _budget(status.budget, width), Text()]
    longest = max((cell_len(visible(model.name)) for model in status.models), default=0)
    for model in status.models:
        lines += _model(model, status.now, rates, min(longest, _NAME))
    if not status.models:
        lines.append(Text("no model is wanted on this node", style="dim"))
    for line in lines:
        line.truncate(width, overflow="ellipsis" if has_unicode() else "crop")
    return lines


def _heading(status: DaemonStatus) -> Iterator[Text]:
    unready = status.unready
    up = ago(status.now - status.started_at)
    about = f"modelpack {visible(status.version)}, {visible(status.runtime.kind)}, up {up}"
    verdict = ("ready", "bold green") if not unready else ("not ready", "bold yellow")
    yield Text.assemble(
        (visible(status.node), "bold"),
        "  ",
        verdict,
        (f"  {about}", "dim"),
    )
    ready = sum(model.digest is not None for model in status.models)
    used = sum(model.used_at is not None or model.mounted for model in status.models)
    trouble = sum(model.stage in TROUBLE for model in status.models)
    totals = status.totals
    yield Text(
        f"{ready} of {count(len(status.models), 'model')} on the node, "
        f"{f'{trouble} in trouble, ' if trouble else ''}{used} in use or used since; "
        f"{human_bytes(totals.fetched_bytes)} fetched, {human_bytes(totals.reused_bytes)} reused",
        style="dim",
    )
    if not status.runtime.reachable:
        yield Text(f"runtime: {visible(status.runtime.reason)}", style="bold red")
    if status.configuration.error is not None:
        yield Text(
            f"configuration turned down, the one before stays in force: "
            f"{visible(status.configuration.error)}",
            style="bold red",
        )
    if status.stopping:
        yield Text("the daemon is stopping", style="bold yellow")


def _budget(budget: BudgetStatus, width: int) -> Text:
    """Draw the disk budget, with what is reserved, and marks where eviction begins and ends."""
    said, more = _disk(budget)
    said = f"  {said}"
    room = max(_LEAST_BUDGET, min(width - len(said) - len(more), _MOST_BUDGET))
    limit = max(budget.limit, 1)
    used = round(room * min(1.0, budget.used / limit))
    reserved = round(room * min(1.0, (budget.used + budget.reserved) / limit)) - used
    full, some, none = "█▓░" if has_unicode() else "#=."
    bar = Text(full * used, style="red" if budget.used > budget.high else "cyan")
    bar.append(some * reserved, style="blue")
    bar.append(none * (room - used - reserved), style="dim")
    return bar.append(said).append(more, style="dim")


def _disk(budget: BudgetStatus) -> tuple[str, str]:
    """Say how much of the budget is taken, and what follows from it."""
    said = human_bytes(budget.used)
    if budget.reserved:
        said += f" and {human_bytes(budget.reserved)} reserved"
    said += f" of {human_bytes(budget.limit)}"
    if budget.used > budget.limit:
        return said, "; over the budget"
    more = f"; evicts above {human_bytes(budget.high)}" if budget.high < budget.limit else ""
    return said, more


def _model(model: ModelStatus, now: float, rates: Rates, name_width: int) -> Iterator[Text]:
    mark, style = _mark(model.stage)
    name = visible(model.name)
    line = Text.assemble((mark, style), " ", (name.ljust(name_width), "bold"), "  ")
    line.append(f"{model.stage:<18}", style=style)
    if model.stage in MOVING:
        line.append_text(_bar(model))
        line.append("  ")
    line.append(_size(model, rates))
    use = _use(model, now)
    if use != "-":
        line.append(f"  {use}", style="green" if model.mounted else "dim")
    if model.held:
        line.append("  held", style="yellow")
    if model.digest:
        line.append(f"  {_short(model.digest)}", style="dim")
    yield line
    note = visible(model.reason)
    said = _SAYS_WHEN.search(note) is not None
    if model.next_attempt is not None and model.next_attempt > now and not said:
        again = f"next try in {ago(model.next_attempt - now)}"
        note = f"{note} ({again})" if note else again
    if note:
        yield Text(f"    {note}", style=style if model.stage in TROUBLE else "dim")


def _mark(stage: Stage) -> tuple[str, str]:
    ready, moving, trouble, waiting = "●◐✖○" if has_unicode() else "+>x."
    if stage is Stage.READY:
        return ready, "green"
    if stage in TROUBLE:
        return trouble, "red"
    return (moving, "cyan") if stage in MOVING else (waiting, "dim")


def _bar(model: ModelStatus) -> Text:
    done = fraction(model)
    full, empty = ("━", "━") if has_unicode() else ("#", "-")
    cells = round(_BAR * done)
    bar = Text(full * cells, style="cyan")
    bar.append(empty * (_BAR - cells), style="bright_black")
    return bar.append(f" {done:4.0%}")


def fraction(model: ModelStatus) -> float:
    """Return how much of the model is on the node already, from 0 to 1."""
    done = model.fetched_bytes + model.reused_bytes
    return min(1.0, done / model.bytes) if model.bytes else 0.0


def _size(model: ModelStatus, rates: Rates) -> str:
    if model.stage is not Stage.DOWNLOADING or not model.bytes:
        return human_bytes(model.bytes) if model.bytes else "-"
    done = model.fetched_bytes + model.reused_bytes
    parts = [f"{human_bytes(min(done, model.bytes))} of {human_bytes(model.bytes)}"]
    rate = rates.of(model)
    if rate > 0:
        parts.append(f"{human_bytes(rate)}/s")
        parts.append(f"{ago(max(0, model.bytes - done) / rate)} left")
    return ", ".join(parts)


def _use(model: ModelStatus, now: float) -> str:
    """Say whether prefetching it paid."""
    if model.mounted:
        return "mounted"
    if model.used_at is not None:
        return f"used {ago(now - model.used_at)} ago"
    return "not used yet" if model.ready_at is not None else "-"


def _short(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return visible(f"{algorithm}:{value[:_DIGEST]}")


def ago(seconds: float) -> str:
    """Write a duration in its two largest units.

    >>> ago(90061), ago(59), ago(-1)
    ('1d 1h', '59s', '0s')
    """
    rest = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        number, rest = divmod(rest, size)
        if number or (parts and len(parts) < 2):
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"
