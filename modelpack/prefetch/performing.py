"""Doing one task on the node. Blocking; runs in a worker thread.

Owns the calls of ``Node`` and that every one ends in an outcome, never in an exception. Leaves out
when a task is due (``planning.py``) and what follows from its outcome (``core.py``).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from modelpack.errors import ModelpackError, SpaceError
from modelpack.manifest import Index, Manifest
from modelpack.prefetch.actions import (
    Abandon,
    Evict,
    Install,
    Observation,
    Observe,
    Pin,
    Resolve,
    Scrub,
    Task,
)
from modelpack.prefetch.advice import for_daemon
from modelpack.prefetch.failures import kind_of
from modelpack.prefetch.node import Damage, GoneError, InstallResult, Node, Resolution
from modelpack.prefetch.redaction import redact
from modelpack.prefetch.status import Stage
from modelpack.prefetch.transfer import Transfer
from modelpack.pulling import Gate
from modelpack.ratelimit import RateLimiter
from modelpack.reference import Reference

_logger = logging.getLogger(__name__)


class Asked(Protocol):
    """A policy for one transfer: a gate that is told when the model is there."""

    def __call__(self, reference: Reference, manifest: Manifest | Index) -> None:
        """Let a manifest through, or raise PolicyError."""

    def taken(self) -> None:
        """Note that the model is on the node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """What tasks are done with."""

    node: Node
    open_gate: Callable[[], Asked | None]
    """Returns the policy in force, None if there is none; raises PolicyError if it is unreadable."""
    limiter: RateLimiter
    scrub_limiter: RateLimiter


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a task ended."""

    task: Task
    resolution: Resolution | None = None
    result: InstallResult | None = None
    observation: Observation | None = None
    damage: tuple[Damage, ...] = ()
    kind: str = ""
    """Of the failure, empty if there is none; see ``failures.KINDS``."""
    reason: str = ""
    free_bytes: int | None = None
    """What the disk has left, after a failure for lack of space."""
    stopped: bool = False
    """Whether it was stopped before it was done."""


def perform(task: Task, tools: Tools, transfer: Transfer) -> Outcome:
    """Do one task to its end."""
    try:
        transfer.check()
        return _perform(task, tools, transfer)
    except Exception as error:  # whatever it is, the other models go on
        # A stopped transfer may end in the error of whichever thread came last. And what has gone
        # since the last look shows at the next.
        if transfer.is_stopped or isinstance(error, GoneError):
            return Outcome(task=task, stopped=True)
        kind = kind_of(error)
        if not isinstance(error, ModelpackError):
            _logger.exception("a fault in modelpack, at %s", type(task).__name__)
        free = _free_bytes(tools.node) if isinstance(error, SpaceError) else None
        text = for_daemon(" ".join(str(error).split())) or type(error).__name__
        if isinstance(task, Observe):
            return Outcome(task=task, observation=Observation(trouble=redact(text)))
        return Outcome(task=task, kind=kind, reason=redact(text), free_bytes=free)


def _perform(task: Task, tools: Tools, transfer: Transfer) -> Outcome:
    node = tools.node
    match task:
        case Resolve():
            gate = _Watched(tools.open_gate(), transfer)
            resolution = node.resolve(str(task.reference), gate=gate)
            return Outcome(task=task, resolution=resolution)
        case Install():
            return _install(task, tools, transfer)
        case Evict():
            node.remove(task.digest)
        case Abandon():
            node.abandon(task.digest)
        case Pin():
            node.pin(task.digest, pinned=task.pinned)
        case Scrub():
            return _scrub(task, tools, transfer)
        case Observe():
            return Outcome(task=task, observation=observe(node))
    return Outcome(task=task)


def _install(task: Install, tools: Tools, transfer: Transfer) -> Outcome:
    asked = tools.open_gate()
    result = tools.node.install(
        str(task.reference),
        task.digest,
        gate=_Watched(asked, transfer),
        limiter=tools.limiter,
        observer=transfer.observe,
        fetches=task.fetches,
    )
    if asked is not None:
        asked.taken()
    return Outcome(task=task, result=result)


def _scrub(task: Scrub, tools: Tools, transfer: Transfer) -> Outcome:
    damage = tools.node.scrub(
        task.digest, limiter=tools.scrub_limiter, stop=lambda: transfer.is_stopped
    )
    if damage:
        tools.node.quarantine(task.digest, damage)
    return Outcome(task=task, damage=damage, stopped=transfer.is_stopped and not damage)


def observe(node: Node) -> Observation:
    """Return what is on the node; raises what is the matter with it."""
    node.check()
    return Observation(
        installed=node.models(),
        mounted=node.mounted(),
        unfinished=node.unfinished_bytes(),
        free=node.free_bytes(),
        trouble=None,
    )


class _Watched:
    """A gate that notes when it is asked."""

    def __init__(self, gate: Gate | None, transfer: Transfer) -> None:
        self._gate = gate
        self._transfer = transfer

    def __call__(self, reference: Reference, manifest: Manifest) -> None:
        self._transfer.check()
        if self._gate is not None:
            self._transfer.enter(Stage.VERIFYING)
            self._gate(reference, manifest)


def _free_bytes(node: Node) -> int | None:
    try:
        return node.free_bytes()
    except ModelpackError:
        return None
