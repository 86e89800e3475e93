"""What the daemon may do next, and what it knows when it decides. Values only.

task = Evict(digest=digest)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from modelpack.digest import Digest
from modelpack.prefetch.config import DaemonConfig
from modelpack.prefetch.node import Installed, Resolution
from modelpack.prefetch.progress import Progress, Reservation
from modelpack.prefetch.status import Stage
from modelpack.reference import Reference

# What has no lasting effect, as a pin on a runtime that has none, is repeated this rarely.
REPEAT_AFTER = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolve:
    """Look a model's reference up, and have the policy decide."""

    name: str
    reference: Reference
    """With a digest where it is that version, and not the tag, that is asked about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Install:
    """Bring a version of a model and make it visible."""

    name: str
    reference: Reference
    """Under which it is to be visible."""
    digest: Digest
    reserve: int
    """Bytes that are promised to it before it begins."""
    fetches: bool = True
    """Whether any byte has to be fetched: not where the version is here under another name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evict:
    """Remove a version from the node."""

    digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Abandon:
    """Drop what an interrupted install has left."""

    digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """Keep a version from the runtime's garbage collection, or leave it to that."""

    digest: Digest
    pinned: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Scrub:
    """Read a version again; if it is damaged, quarantine it."""

    name: str
    digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Observe:
    """See what is on the node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """End a running install; what is verified is kept."""

    name: str


Task = Resolve | Install | Evict | Abandon | Pin | Scrub | Observe
Action = Task | Stop


@dataclass(frozen=True, kw_only=True)  # without slots, for what is computed once
class Observation:
    """The node at one moment."""

    installed: tuple[Installed, ...] = ()
    mounted: frozenset[Digest] = frozenset()
    unfinished: int = 0
    free: int = 0
    trouble: str | None = "it was not asked yet"
    """Why the runtime cannot be relied on now; the rest is then what was seen last."""

    @cached_property
    def parts_here(self) -> frozenset[str]:
        """The keys of every part on the node, whoever brought it."""
        return frozenset(part.key for one in self.installed for part in one.parts)

    @cached_property
    def _by_digest(self) -> dict[Digest, Installed]:
        return {one.digest: one for one in self.installed}

    def find(self, digest: Digest | None) -> Installed | None:
        """Return the version with a digest, if it is here."""
        return None if digest is None else self._by_digest.get(digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """All that a decision is made from."""

    config: DaemonConfig
    progress: Mapping[str, Progress]
    observation: Observation
    now: float
    """Wall time: for windows of the day only."""
    steady: float
    is_settled: bool = True
    """Whether the observation is newer than the last change that was made: before that nothing is
    reserved or evicted."""
    resolutions: Mapping[tuple[str, Digest], Resolution] = field(default_factory=dict)
    """What look-ups found since the daemon started, by model and version."""
    reservations: Mapping[Digest, Reservation] = field(default_factory=dict)
    running: Mapping[Task, float] = field(default_factory=dict)
    """What runs, and since when in steady time."""
    avoid: frozenset[Digest] = frozenset()
    """Versions that could not be removed lately; they are left alone for a while."""
    done_lately: Mapping[Task, float] = field(default_factory=dict)
    """Steady times at which pins and installs ended well: what has no lasting effect is not tried
    again at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Where a model stands, as long as nothing runs for it."""

    stage: Stage
    reason: str = ""
    next_steady: float | None = None
    """When something is tried again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to do now, in this order, and where every model stands."""

    actions: tuple[Action, ...]
    verdicts: Mapping[str, Verdict]
