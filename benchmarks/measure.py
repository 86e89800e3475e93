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
# The kernel keeps about so much free on its own.
_FREE_ENOUGH = 512 * 1024 * 1024


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
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    memory: "MemoryLimit | None" = None,
) -> tuple[Sample, str]:
    """Run a program to its end; return what it took and what it printed.

    ``memory`` limits what it may use, page cache included.

    Raises:
        RunFailedError: it exited with another status than 0.
    """
    command = [str(item) for item in argv]
    if memory is not None:
        command = memory.wrap(command)
    before = _loopback_bytes()
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
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


class PageCacheFiller:
    """Leaves no free memory but the page cache's, as on a busy node.

    Without this the first touch of memory that a virtual machine hands out lazily is timed.
    """

    def __init__(self, path: Path) -> None:
        """Use a sparse file at ``path``, which takes no disk; its pages take memory."""
        self._path = path
        self._size = max(0, total_memory() - _SPARE_BYTES)
        self._position = 0

    def fill(self) -> None:
        """Read on where the last call stopped, until little memory is free."""
        if not self._path.exists() or self._path.stat().st_size != self._size:
            with self._path.open("wb") as file:
                file.truncate(self._size)
        buffer = memoryview(bytearray(_READ_BYTES))
        done = 0
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._position)
            while done < self._size and _free_memory() > _FREE_ENOUGH:
                count = file.readinto(buffer)
                if not count:
                    file.seek(0)
                done += count or 0
            self._position = file.tell()


class MemoryLimit:
    """A memory control group; needs root and version 1 of control groups, or a delegated 2."""

    def __init__(self, size: int) -> None:
        """Make the group."""
        first = Path("/sys/fs/cgroup/memory")
        root, file = (
            (first, "memory.limit_in_bytes")
            if first.is_dir()
            else (Path("/sys/fs/cgroup"), "memory.max")
        )
        self._group = root / f"modelpack-benchmark-{os.getpid()}"
        self._group.mkdir()
        (self._group / file).write_text(str(size))

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs ``argv`` in the group."""
        return ["/bin/sh", "-c", f'echo $$ >{self._group}/cgroup.procs && exec "$@"', "sh", *argv]

    def close(self) -> None:
        """Remove the group."""
        self._group.rmdir()


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
        "memory": f"{total_memory() / 1024**3:.0f} GiB",
        "kernel": os.uname().release.partition("-")[0],
    }


def total_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemFree:"):
            return int(line.split()[1]) * 1024
    return 0


def _loopback_bytes() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    return 0
