"""What is timed: models, servers, contestants and the bars they are held to.

A bar says: the median ratio of modelpack's time to the contestant's is at most so much.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.models import MIB, changed_copy, sharded_model, small_files


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One row group of the report."""

    name: str
    title: str
    model: Callable[[Path], Path]
    """Makes the model below a work directory."""
    contestants: tuple[str, ...]
    bars: dict[str, float] = field(default_factory=dict)
    """Highest ratio of our time to theirs."""
    kind: str = "pull"
    """pull, push, push-changed (over an earlier version), upgrade (a pull of that), present (nothing
    to do) or start (a command that moves nothing)."""
    server: str = "registry"
    """registry, tls, capped (50 MB/s a connection) or latency (20 ms for each request)."""
    memory: float | None = None
    """The part of the machine's memory that a contestant may use, page cache included."""
    repeats: int = 5
    keep_outputs: bool = False
    """Whether what was pulled stays until all turns are over: an ext4 without a journal is slow to
    make files for a minute after as many were removed."""
    warm_up: bool = True
    """Whether a first turn is run and not counted."""
    quick: bool = False
    quick_repeats: int = 3


def _four_shards(work: Path) -> Path:
    return sharded_model(work / "four", shards=4, shard_bytes=512 * MIB)


def _one_file(work: Path) -> Path:
    return sharded_model(work / "one", shards=1, shard_bytes=2048 * MIB)


def _small_one(work: Path) -> Path:
    return sharded_model(work / "half", shards=1, shard_bytes=512 * MIB)


def _sized(mebibytes: int) -> Callable[[Path], Path]:
    def make(work: Path) -> Path:
        return sharded_model(work / f"size-{mebibytes}", shards=1, shard_bytes=mebibytes * MIB)

    return make


def _changed(work: Path) -> Path:
    return changed_copy(_four_shards(work), work / "four-changed", 0.05)


ALL_PULLERS = (
    "modelpack",
    "modelpack --no-page-cache",
    "bare floor",
    "oras",
    "skopeo",
    "podman",
    "oras-py",
    "aria2c",
    "curl x4",
)

SCENARIOS = (
    Scenario(
        name="four-files",
        title="Cold pull, 4 files of 512 MiB",
        model=_four_shards,
        contestants=ALL_PULLERS,
        bars={"bare floor": 1.25, "oras": 0.80, "skopeo": 0.70},
        quick=True,
    ),
    Scenario(
        name="one-file",
        title="Cold pull, one file of 2 GiB",
        model=_one_file,
        contestants=(
            *("modelpack", "modelpack --no-page-cache"),
            *("bare floor", "oras", "skopeo", "aria2c", "curl x4"),
        ),
        bars={"oras": 0.70},
    ),
    Scenario(
        name="capped",
        title="Cold pull, one file of 512 MiB, server capped at 50 MB/s a connection",
        model=_small_one,
        contestants=("modelpack", "oras", "skopeo", "aria2c"),
        bars={"oras": 0.25, "skopeo": 0.25, "aria2c": 0.90},
        server="capped",
    ),
    Scenario(
        name="tls",
        title="Cold pull over TLS, 4 files of 512 MiB",
        model=_four_shards,
        contestants=("modelpack", "oras", "skopeo", "curl x4"),
        server="tls",
    ),
    Scenario(
        name="small-files",
        title="Cold pull, 10,000 small files",
        keep_outputs=True,
        model=lambda work: small_files(work / "small", 10_000),
        contestants=("modelpack", "oras", "skopeo"),
    ),
    Scenario(
        name="many-shards",
        title="Cold pull, 163 shards of 8 MiB",
        model=lambda work: sharded_model(work / "shards", shards=163, shard_bytes=8 * MIB),
        contestants=("modelpack", "oras", "skopeo"),
    ),
    Scenario(
        name="upgrade",
        title="Pull of a version with 5 % of the tensors changed, the earlier one in place",
        model=_changed,
        contestants=("modelpack",),
        kind="upgrade",
        repeats=3,
        warm_up=False,
        quick=True,
        quick_repeats=1,
    ),
    Scenario(
        name="present",
        title="Pull of a version that is in place, 2 GiB",
        model=_four_shards,
        contestants=("modelpack",),
        kind="present",
        repeats=3,
        warm_up=False,
        quick=True,
    ),
    Scenario(
        name="push-cold",
        title="Push, 4 files of 512 MiB, nothing there, and again unchanged",
        model=_four_shards,
        contestants=("modelpack", "modelpack, unchanged", "oras"),
        bars={"oras": 0.85},
        kind="push",
        repeats=3,
    ),
    Scenario(
        name="push-changed",
        title="Push of a version with 5 % of the tensors changed, the earlier one there",
        model=_changed,
        contestants=("modelpack", "oras"),
        kind="push-changed",
        repeats=3,
    ),
    Scenario(
        name="latency",
        title="Cold pull, 4 files of 512 MiB, 20 ms for each request",
        model=_four_shards,
        contestants=("modelpack", "oras", "skopeo", "aria2c"),
        server="latency",
        repeats=3,
    ),
    Scenario(
        name="start",
        title="Start-up: modelpack --help against an empty Python program",
        model=_sized(64),
        contestants=("modelpack", "python -c pass"),
        kind="start",
        repeats=15,
        quick=True,
    ),
    *(
        Scenario(
            name=f"connections-{name}",
            title=f"Connections: {title}",
            model=model,
            contestants=("modelpack", *(f"modelpack, {count}" for count in (1, 2, 4, 8, 16))),
            server=server,
            repeats=3,
        )
        for name, title, model, server in (
            ("loopback", "one file of 2 GiB, docker-registry on loopback", _one_file, "registry"),
            ("capped", "one file of 512 MiB, 50 MB/s for each", _small_one, "capped"),
            ("latency", "one file of 512 MiB, 20 ms for each request", _small_one, "latency"),
        )
    ),
    *(
        Scenario(
            name=f"size-{size}",
            title=f"Cold pull, one file of {size} MiB",
            model=_sized(size),
            contestants=("modelpack", "oras"),
            repeats=3,
        )
        for size in (64, 256, 1024, 4096, 8192)
    ),
    Scenario(
        name="little-memory",
        title="Cold pull, one file of 8 GiB, in a quarter of the machine's memory",
        model=_sized(8192),
        contestants=("modelpack", "modelpack --no-page-cache", "oras", "skopeo"),
        memory=0.25,
        repeats=2,
    ),
)
