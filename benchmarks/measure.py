"""Timing one run of a program: wall and CPU seconds, peak memory, bytes over loopback."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# Memory that the filler leaves to programs and servers.
_SPARE_BYTES = 3 * 1024**3
_READ_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One timed run."""

    seconds: float
    cpu_seconds: float
    """Of the program and all its children."""
    peak_rss: int
    """Bytes, of its largest process."""
    wire_bytes: int
    """Received on the loopback interface, headers included."""


class RunFailedError(Exception):
    """A contestant did not do its job; its output is the message."""


def timed_run(
    argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[Sample, str]:
    """Run a program to its end; return what it took and what it printed.

    Raises:
        RunFailedError: it exited with another status than 0.
    """
    before = _loopback_bytes()
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(item) for item in argv],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RunFailedError(f"{' '.join(map(str, argv[:4]))}: {output[-600:]}")
    return (
        Sample(
            seconds=seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_rss=usage.ru_maxrss * 1024,
            wire_bytes=_loopback_bytes() - before,
        ),
        output,
    )


def fill_page_cache(filler: Path) -> None:
    """Leave no free memory but the page cache's, as on a busy node.

    Without this the first touch of memory that a virtual machine hands out lazily is timed.
    """
    size = max(0, _total_memory() - _SPARE_BYTES)
    if not filler.exists() or filler.stat().st_size != size:
        with filler.open("wb") as file:
            file.truncate(size)
    buffer = memoryview(bytearray(_READ_BYTES))
    with filler.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            continue


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return minimum, median and maximum."""
    return min(values), median(values), max(values)


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "cpu": models[0] if models else "unknown",
        "memory": f"{_total_memory() / 1024**3:.0f} GiB",
        "kernel": os.uname().release.partition("-")[0],
    }


def _total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _loopback_bytes() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    return 0
