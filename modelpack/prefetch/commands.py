"""What root may ask of a running daemon, as changes of what it knows.

Owns the meaning of ``control.Control``'s calls. Leaves out locking and keeping (``daemon.py``).
"""

from collections.abc import Iterable
from dataclasses import replace

from modelpack.errors import NotFoundError, UsageError
from modelpack.prefetch.memory import Memory
from modelpack.prefetch.progress import MAX_TURNED_AWAY, Progress
from modelpack.prefetch.rollout import short


def hold(memory: Memory, name: str) -> str:
    """Stay with the version that is there; see ``Control.hold``."""
    progress = _find(memory, name)
    memory.update(replace(progress, held=True))
    if progress.adopted is None:
        return f"{name} is held at the first version that is made ready"
    return f"{name} is held at {short(progress.adopted)}"


def release(memory: Memory, name: str) -> str:
    """End a hold, and what a rollback turned away; see ``Control.release``."""
    progress = _find(memory, name)
    memory.update(replace(progress, held=False, turned_away=frozenset(), resolved=None))
    model = next((model for model in memory.models() if model.name == name), None)
    if model is not None and model.hold:
        return f"{name} is still held by the configuration"
    return f"{name} follows its reference again"


def rollback(memory: Memory, name: str, *, steady: float) -> str:
    """Go back to the version before, and hold it; see ``Control.rollback``."""
    progress = _find(memory, name)
    present, before = progress.adopted, progress.previous
    if before is None or present is None or memory.observation.find(before) is None:
        raise UsageError(f"{name} has no earlier version on this node to go back to")
    turned_away = frozenset([*list(progress.turned_away)[: MAX_TURNED_AWAY - 1], present])
    memory.update(
        replace(
            progress,
            adopted=before,
            previous=None,
            candidate=progress.candidate or present,
            candidate_seen=progress.candidate_seen if progress.candidate else steady,
            turned_away=turned_away,
            held=True,
            failure=None,
        )
    )
    return (
        f"{name} goes back to {short(before)} and is held there; {short(present)} is not adopted "
        "again until the model is released"
    )


def refresh(memory: Memory, name: str | None) -> str:
    """Look up and try again now; see ``Control.refresh``."""
    chosen = list(_chosen(memory, name))
    for progress in chosen:
        memory.update(replace(progress, resolved=None, failure=None, lookup=None))
    return f"{_what(name, chosen)} looked up and tried again now"


def scrub(memory: Memory, name: str | None) -> str:
    """Read again soon; see ``Control.scrub``."""
    chosen = [progress for progress in _chosen(memory, name) if progress.adopted is not None]
    if name is not None and not chosen:
        raise UsageError(f"{name} is not on this node yet")
    for progress in chosen:
        memory.update(replace(progress, scrub_asked=True))
    return f"{_what(name, chosen)} read again soon"


def _find(memory: Memory, name: str) -> Progress:
    progress = memory.progress.get(name)
    if progress is None:
        raise NotFoundError(f"no model is called {name!r:.200}; see: modelpack daemon status")
    return progress


def _chosen(memory: Memory, name: str | None) -> Iterable[Progress]:
    if name is not None:
        return [_find(memory, name)]
    return [memory.progress[model.name] for model in memory.models()]


def _what(name: str | None, chosen: list[Progress]) -> str:
    if name is not None:
        return f"{name} is"
    return f"{len(chosen)} models are" if len(chosen) != 1 else "1 model is"
