"""What a running daemon knows, beside the files that outlive it.

Owns the one mutable value that decisions are made from. Leaves out making them.
"""

from dataclasses import dataclass, field, replace

from modelpack.digest import Digest
from modelpack.prefetch.actions import Observation, Task
from modelpack.prefetch.config import DaemonConfig, ModelOptions
from modelpack.prefetch.desired import wanted
from modelpack.prefetch.node import Resolution
from modelpack.prefetch.progress import Progress, Reservation
from modelpack.prefetch.readiness import is_visible
from modelpack.prefetch.status import Totals


@dataclass(kw_only=True, slots=True)
class Memory:
    """What the core knows; ``outcomes`` changes it."""

    config: DaemonConfig
    progress: dict[str, Progress]
    reservations: dict[Digest, Reservation]
    observation: Observation = field(default_factory=Observation)
    resolutions: dict[tuple[str, Digest], Resolution] = field(default_factory=dict)
    done_lately: dict[Task, float] = field(default_factory=dict)
    avoid: dict[Digest, float] = field(default_factory=dict)
    """Until when, in steady time."""
    totals: Totals = field(default_factory=Totals)
    changes: int = 0
    """Of what is on the node, by us."""
    changed: bool = False
    """Whether there is something to save."""

    def models(self) -> tuple[ModelOptions, ...]:
        """Return the models that this node should have."""
        return wanted(self.config)

    def update(self, progress: Progress) -> None:
        """Take a model's new progress."""
        if self.progress.get(progress.name) != progress:
            self.progress[progress.name] = progress
            self.changed = True


def baseline(memory: Memory) -> None:
    """Take what is pinned under a model's reference as its version, where nothing is remembered.

    A daemon whose state was lost would otherwise adopt what the tag names now, without waiting for
    its wave. The version found is looked up and installed again, so it is verified all the same.
    """
    for model in memory.models():
        progress = memory.progress[model.name]
        if progress.adopted is not None or progress.versions:
            continue
        found = next(
            (
                one
                for one in memory.observation.installed
                if one.pinned and is_visible(one, model.reference)
            ),
            None,
        )
        if found is not None:
            memory.update(replace(progress, adopted=found.digest))
