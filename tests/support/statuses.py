"""Statuses of a daemon, one that takes orders and writes them down, and any status at all.

status(model("chat", Stage.DOWNLOADING, bytes=100, fetched_bytes=40))
"""

import time

from hypothesis import strategies as st

from modelpack.errors import NotFoundError, UsageError
from modelpack.prefetch.status import (
    BudgetStatus,
    ConfigurationStatus,
    DaemonStatus,
    ModelStatus,
    RuntimeStatus,
    Stage,
    Totals,
)

GIB = 1 << 30
DIGEST = "sha256:" + "0a" * 32
CANDIDATE = "sha256:" + "1b" * 32


def model(name="chat", stage=Stage.READY, **members):
    """A model, complete if it is ready."""
    members.setdefault("reference", f"registry.example/models/{name}:v1")
    members.setdefault("bytes", 4 * GIB)
    if stage is Stage.READY:
        members.setdefault("digest", DIGEST)
        members.setdefault("ready_at", time.time() - 3600)
    return ModelStatus(name=name, stage=stage, **members)


def status(*models, **members):
    """A daemon's status of this moment, in which all is well."""
    now = members.setdefault("now", time.time())
    return DaemonStatus(
        **{
            "node": "node-a",
            "version": "1.2.3",
            "started_at": now - 90_000,
            "alive_at": now,
            "models": models,
            "budget": BudgetStatus(
                limit=20 * GIB, used=8 * GIB, reserved=2 * GIB, high=18 * GIB, low=16 * GIB
            ),
            "configuration": ConfigurationStatus(
                path="/etc/modelpack/daemon.yaml", loaded_at=now - 60, generation=3
            ),
            "runtime": RuntimeStatus(kind="containerd", reachable=True),
            **members,
        }
    )


class RecordingControl:
    """Knows the model ``chat`` and writes down what is asked of it."""

    def __init__(self):
        self.asked = []

    def _do(self, verb, name):
        self.asked.append((verb, name))
        if name not in {"chat", "registry.example/a b:v1", None}:
            raise NotFoundError(f"no model is called {name}; see modelpack daemon status")
        return f"{verb}: {name or 'all'}"

    def hold(self, name):
        return self._do("hold", name)

    def release(self, name):
        return self._do("release", name)

    def rollback(self, name):
        self._do("rollback", name)
        raise UsageError(f"{name}: there is no earlier version on this node")

    def refresh(self, name):
        return self._do("refresh", name)

    def scrub(self, name):
        self._do("scrub", name)
        raise RuntimeError("a fault, with a password=hunter2")


def statuses():
    """Any status that a daemon could publish."""
    texts = st.text(max_size=12)
    moments = st.floats(min_value=0, max_value=4e9)
    counts = st.integers(min_value=0, max_value=2**53)
    digests = st.none() | st.just(DIGEST)
    seconds = st.floats(min_value=0, max_value=1e6).map(lambda value: round(value, 3))
    timings = st.dictionaries(st.sampled_from(list(map(str, Stage))), seconds, max_size=3)
    models = st.builds(
        ModelStatus,
        name=texts,
        reference=texts,
        stage=st.sampled_from(Stage),
        reason=texts,
        digest=digests,
        candidate=digests,
        bytes=counts,
        fetched_bytes=counts,
        reused_bytes=counts,
        timings=timings,
        priority=st.integers(-100, 100),
        held=st.booleans(),
        mounted=st.booleans(),
        ready_at=st.none() | moments,
        used_at=st.none() | moments,
        next_attempt=st.none() | moments,
        attempts=st.integers(0, 50),
    )
    return st.builds(
        DaemonStatus,
        node=texts,
        version=texts,
        started_at=moments,
        now=moments,
        alive_at=moments,
        models=st.lists(models, max_size=4, unique_by=lambda one: one.name).map(tuple),
        budget=st.builds(
            BudgetStatus, limit=counts, used=counts, reserved=counts, high=counts, low=counts
        ),
        configuration=st.builds(
            ConfigurationStatus,
            path=texts,
            loaded_at=moments,
            generation=counts,
            error=st.none() | texts,
        ),
        runtime=st.builds(RuntimeStatus, kind=texts, reachable=st.booleans(), reason=texts),
        totals=st.builds(
            Totals,
            fetched_bytes=counts,
            imports=counts,
            failures=st.dictionaries(st.sampled_from(["network", "auth", "space"]), counts),
            stage_seconds=timings,
        ),
        stopping=st.booleans(),
    )
