"""What a daemon's configuration says, as values.

Owns the values and their defaults, with the reason for each. Leaves out the form of the file
(``configfile.py``, ``schemas/daemon.schema.json``) and where files are (``sources.py``). Sizes are
bytes, durations seconds, rates bytes per second.

    >>> Listen(host="127.0.0.1", port=9464).is_local
    True
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path

from modelpack.digest import Digest
from modelpack.prefetch.labels import Selector
from modelpack.prefetch.windows import Rates, Window
from modelpack.reference import Reference, is_loopback_host
from modelpack.runtime.options import NAMESPACE, SNAPSHOTTER

DEFAULT_PORT = 9464
"""Of the range that exporters of metrics use."""
RESOLVE_EVERY = 300.0
"""How often a tag is looked up: a registry can bear it from each node of a large fleet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listen:
    """Where the read-only HTTP server listens."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback_host(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Which node this is."""

    name: str
    """Decides which wave of a rollout it is in, so it must stay the same and be its own."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeOptions:
    """Where models go."""

    kind: str
    """``containerd`` or ``directory``."""
    address: Path | None = None
    """containerd's socket as this process sees it; None is the usual one, below ``host_root``."""
    namespace: str = NAMESPACE
    snapshotter: str = SNAPSHOTTER
    host_root: Path = Path("/")
    """Where the node's file system is seen from this process."""
    path: Path | None = None
    """The directory, where the kind is that."""
    page_cache: bool | None = None
    """Whether models are written through it; None is as long as there is free memory for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How much disk the daemon's models may take."""

    limit: int
    high: int
    """Above this, what is not wanted any more is evicted..."""
    low: int
    """...until no more than this is used."""
    min_free: int = 0
    """What the file system must have left whatever the budget says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """How registries are reached."""

    connections: int | None = None
    """At most so many for each transfer; None is as many as help."""
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """URLs to ask, in this order, before the registry of that name."""
    proxy: str | None = None
    ca_file: Path | None = None
    auth_file: Path | None = None
    """Where logins are, in Docker's form; None is the usual places."""
    plain_http: frozenset[str] = frozenset()
    """Registries that are asked without TLS; those on loopback are, without being named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What no configuration or tag may exceed."""

    models: int = 256
    """For one node. A node that wants more has most likely been handed a wrong configuration."""
    model_size: int | None = None
    updates_per_day: int = 24
    """New versions of one model that are adopted; a tag that moves more often is not followed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scrub:
    """Reading again what is on the disk."""

    every: float | None = 7 * 86400.0
    """None is never."""
    rate: int = 50 * 10**6
    """Slow enough for a disk that has work to do: a terabyte in six hours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """When a model that failed is tried again: each time twice as late."""

    first: float = 10.0
    longest: float = 30 * 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wave:
    """A part of the fleet that adopts a new version together."""

    percent: float
    """Of the nodes, those of earlier waves included."""
    soak: float
    """How long this wave is watched before the next begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """How a new version of a model comes to the fleet."""

    waves: tuple[Wave, ...] = ()
    """Growing; the nodes that none of them takes adopt after the last. Without any, all at once."""
    keep_previous: float = 24 * 3600.0
    """How long the version before stays if the new one is not used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """One model that nodes should have."""

    name: str
    """Unique; the reference unless something else is said."""
    reference: Reference
    digest: Digest | None = None
    """The version to have, whatever the tag names."""
    resolve: float | None = RESOLVE_EVERY
    """How often the tag is looked up; None is once."""
    priority: int = 0
    """Higher ones come first."""
    selector: Selector = field(default_factory=Selector)
    windows: tuple[Window, ...] = ()
    """When bytes may be fetched; without any, always."""
    rollout: Rollout = Rollout()
    pin: bool = False
    """Never evict what is here of it, even where the selector does not take the node any more."""
    hold: bool = False
    """Stay with the version that is here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonConfig:
    """A whole configuration, for one node."""

    store: Path
    """Where the daemon keeps what it knows."""
    budget: Budget
    identity: Identity
    runtime: RuntimeOptions
    models: tuple[ModelOptions, ...]
    """All of them, for whichever nodes."""
    listen: Listen = Listen()
    control_socket: Path = Path("control.sock")
    """Where root on this node may ask for changes."""
    policy: Path | None = None
    """None is the one that holds for every pull on this machine, if there is one."""
    concurrency: int = 2
    """How many models are brought at once."""
    network: Network = Network()
    rates: Rates = field(default_factory=Rates)
    zone: tzinfo = UTC
    bounds: Bounds = Bounds()
    scrub: Scrub = Scrub()
    retry: Retry = Retry()
