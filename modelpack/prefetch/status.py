"""What the daemon says of itself: one immutable picture, from which all that is shown is made.

Owns the values behind ``/v1/status``, the metrics, the status page and ``modelpack daemon status``.
Leaves out how they are shown, and how they come about. Times are seconds since the epoch, UTC;
durations are seconds; sizes are bytes.

    >>> ModelStatus(name="a", reference="registry.example/a:v1", stage=Stage.PENDING).to_json()["stage"]
    'Pending'
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """Where a model is on its way to the node."""

    PENDING = "Pending"
    """Wanted, and waiting for its turn, its time window, its wave or the next try."""
    RESOLVING = "Resolving"
    VERIFYING = "Verifying"
    """The policy is being asked, or what is on disk is being read again."""
    DOWNLOADING = "Downloading"
    IMPORTING = "Importing"
    READY = "Ready"
    REFUSED = "Refused"
    """By the policy, or by a bound of the configuration."""
    INSUFFICIENT_SPACE = "InsufficientSpace"
    FAILED = "Failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStatus:
    """One model that the node should have, or still has."""

    name: str
    """As the configuration calls it; unique."""
    reference: str
    stage: Stage
    reason: str = ""
    """One line on why it is at this stage, and what comes next; empty when there is nothing to say."""
    digest: str | None = None
    """Of the version that is ready on this node, or None."""
    candidate: str | None = None
    """The digest of a newer version that is being fetched, waits for its wave, or is held back."""
    bytes: int = 0
    fetched_bytes: int = 0
    """Off the wire, of the transfer that runs or was the last."""
    reused_bytes: int = 0
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent in each stage of the transfer that runs or was the last, by its JSON name."""
    priority: int = 0
    held: bool = False
    """Whether newer versions wait until somebody lets them."""
    mounted: bool = False
    """Whether a container mounts it now."""
    ready_at: float | None = None
    used_at: float | None = None
    """When it was last seen mounted since it was made ready: the proof that prefetching it paid."""
    next_attempt: float | None = None
    attempts: int = 0
    """Failed tries in a row."""

    def to_json(self) -> dict[str, Any]:
        """Return the model as ``/v1/status`` shows it."""
        return {
            "name": self.name,
            "ref": self.reference,
            "digest": self.digest,
            "candidate": self.candidate,
            "stage": str(self.stage),
            "reason": self.reason,
            "bytes": self.bytes,
            "fetched_bytes": self.fetched_bytes,
            "reused_bytes": self.reused_bytes,
            "timings": {name: round(value, 3) for name, value in self.timings.items()},
            "priority": self.priority,
            "held": self.held,
            "mounted": self.mounted,
            "ready_at": self.ready_at,
            "used_at": self.used_at,
            "next_attempt": self.next_attempt,
            "attempts": self.attempts,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetStatus:
    """How much of the disk the daemon's models take."""

    limit: int
    used: int
    reserved: int
    """Promised to transfers that run, and not written yet."""
    high: int
    """Above this, what is not wanted any more is evicted..."""
    low: int
    """...until no more than this is used."""

    def to_json(self) -> dict[str, Any]:
        """Return the budget as ``/v1/status`` shows it."""
        return {
            "limit": self.limit,
            "used": self.used,
            "reserved": self.reserved,
            "high": self.high,
            "low": self.low,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigurationStatus:
    """Which configuration is in force, and whether a newer one was turned down."""

    path: str
    loaded_at: float
    generation: int
    """Counts the configurations that came into force since the daemon started."""
    error: str | None = None
    """Why the files as they are now are not in force; None if they are."""

    def to_json(self) -> dict[str, Any]:
        """Return the configuration's state as ``/v1/status`` shows it."""
        return {
            "path": self.path,
            "loaded_at": self.loaded_at,
            "generation": self.generation,
            "error": self.error,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeStatus:
    """The container runtime or directory that models go into."""

    kind: str
    reachable: bool
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the runtime's state as ``/v1/status`` shows it."""
        return {"kind": self.kind, "reachable": self.reachable, "reason": self.reason}


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """What was done since the daemon started; each only grows."""

    fetched_bytes: int = 0
    reused_bytes: int = 0
    imports: int = 0
    """Models made ready."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed tries by kind, a word of a fixed small set: network, auth, integrity, space, ..."""
    evictions: int = 0
    evicted_bytes: int = 0
    scrubbed_bytes: int = 0
    damaged: int = 0
    """Models in which a scrub found damage."""
    repaired: int = 0
    reloads: int = 0
    failed_reloads: int = 0
    used_models: int = 0
    """Models that were mounted at least once after they were made ready."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent in each stage by all transfers that ended."""

    def to_json(self) -> dict[str, Any]:
        """Return the totals as ``/v1/status`` shows them."""
        return {
            "fetched_bytes": self.fetched_bytes,
            "reused_bytes": self.reused_bytes,
            "imports": self.imports,
            "failures": dict(self.failures),
            "evictions": self.evictions,
            "evicted_bytes": self.evicted_bytes,
            "scrubbed_bytes": self.scrubbed_bytes,
            "damaged": self.damaged,
            "repaired": self.repaired,
            "reloads": self.reloads,
            "failed_reloads": self.failed_reloads,
            "used_models": self.used_models,
            "stage_seconds": {key: round(value, 3) for key, value in self.stage_seconds.items()},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonStatus:
    """Everything that is shown of one daemon at one moment."""

    node: str
    version: str
    started_at: float
    now: float
    alive_at: float
    """When the main loop last came round; ``/healthz`` fails when that is long ago."""
    models: tuple[ModelStatus, ...]
    budget: BudgetStatus
    configuration: ConfigurationStatus
    runtime: RuntimeStatus
    totals: Totals = Totals()
    stopping: bool = False

    @property
    def unready(self) -> tuple[str, ...]:
        """Why the node is not ready, a line each; empty when it is.

        It is once the runtime answers and no wanted model is still on its first way here. A model
        that was refused, failed or does not fit is reported, but does not keep others waiting; nor
        does it when it is tried again, or a registry that is down would have the node come and go.
        """
        if self.stopping:
            return ("the daemon is stopping",)
        reasons = [] if self.runtime.reachable else [f"runtime: {self.runtime.reason}"]
        reasons += [
            f"{model.name}: {model.stage}"
            for model in self.models
            if model.digest is None
            and (
                model.stage in {Stage.DOWNLOADING, Stage.IMPORTING}
                or (
                    model.stage in {Stage.PENDING, Stage.RESOLVING, Stage.VERIFYING}
                    and not model.attempts
                )
            )
        ]
        return tuple(reasons)

    def to_json(self) -> dict[str, Any]:
        """Return the picture as ``/v1/status`` shows it."""
        return {
            "node": self.node,
            "version": self.version,
            "started_at": self.started_at,
            "now": self.now,
            "alive_at": self.alive_at,
            "ready": not self.unready,
            "unready": list(self.unready),
            "stopping": self.stopping,
            "runtime": self.runtime.to_json(),
            "configuration": self.configuration.to_json(),
            "budget": self.budget.to_json(),
            "totals": self.totals.to_json(),
            "models": [model.to_json() for model in self.models],
        }
