"""Prometheus metrics, made afresh from the daemon's status whenever they are asked for.

Owns the list of metrics, their names and labels, and the registry, which holds nothing else's.
Leaves out the counting: what only grows is counted where it happens and stands in the status.

Names follow Prometheus' conventions: one prefix, base units, ``_total`` for what only grows. A
label is a model's name, a stage or a word of a fixed set; digests, references and reasons are no
labels, as each value of one would be a time series of its own for ever.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client import exposition as formats
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelpack.prefetch.redaction import redact
from modelpack.prefetch.status import DaemonStatus, ModelStatus, Stage

PREFIX = "modelpack_"
MAX_MODELS = 500
"""Models with series of their own, the most important first: a scrape stays within its limits."""

_Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """One metric: what it is called, and how it is read off a status."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()
    samples: Callable[[DaemonStatus], Iterable[_Sample]]

    def family(self, status: DaemonStatus) -> Metric:
        """Return the metric with its values."""
        make = GaugeMetricFamily if self.kind == "gauge" else CounterMetricFamily
        family = make(self.name, self.help, labels=self.labels)
        seen = set()
        for labels, value in self.samples(status):
            shown = tuple(map(_label, labels))
            if shown not in seen:  # two names may look alike without their secrets
                seen.add(shown)
                family.add_metric(shown, value)
        return family


def _label(text: str) -> str:
    return redact(text).encode("utf-8", "backslashreplace").decode()


def _one(value: Callable[[DaemonStatus], float]) -> Callable[[DaemonStatus], Iterator[_Sample]]:
    def samples(status: DaemonStatus) -> Iterator[_Sample]:
        yield (), float(value(status))

    return samples


def _each(
    value: Callable[[ModelStatus], float | None],
) -> Callable[[DaemonStatus], Iterator[_Sample]]:
    def samples(status: DaemonStatus) -> Iterator[_Sample]:
        for model in listed(status):
            found = value(model)
            if found is not None:
                yield (model.name,), float(found)

    return samples


def listed(status: DaemonStatus) -> list[ModelStatus]:
    """Return the models that have series of their own."""
    return sorted(status.models, key=lambda model: -model.priority)[:MAX_MODELS]


def _stages(status: DaemonStatus) -> Iterator[_Sample]:
    for stage in Stage:
        yield (str(stage),), sum(model.stage is stage for model in status.models)


def _model_stages(status: DaemonStatus) -> Iterator[_Sample]:
    for model in listed(status):
        for stage in Stage:
            yield (model.name, str(stage)), float(model.stage is stage)


def _model_timings(status: DaemonStatus) -> Iterator[_Sample]:
    known = set(map(str, Stage))
    for model in listed(status):
        for stage, seconds in model.timings.items():
            if stage in known:
                yield (model.name, stage), seconds


def _gauge(
    name: str,
    help_text: str,
    samples: Callable[[DaemonStatus], Iterable[_Sample]],
    *labels: str,
) -> Definition:
    return Definition(
        name=PREFIX + name, kind="gauge", help=help_text, labels=labels, samples=samples
    )


def _counter(
    name: str,
    help_text: str,
    samples: Callable[[DaemonStatus], Iterable[_Sample]],
    *labels: str,
) -> Definition:
    return Definition(
        name=f"{PREFIX}{name}_total", kind="counter", help=help_text, labels=labels, samples=samples
    )


DEFINITIONS: tuple[Definition, ...] = (
    _gauge(
        "build_info",
        "Always 1; the label says which version runs.",
        lambda status: [((status.version,), 1.0)],
        "version",
    ),
    _gauge(
        "start_time_seconds",
        "When the daemon started, in seconds since the epoch.",
        _one(lambda status: status.started_at),
    ),
    _gauge(
        "main_loop_timestamp_seconds",
        "When the main loop last came round, in seconds since the epoch.",
        _one(lambda status: status.alive_at),
    ),
    _gauge(
        "node_ready",
        "Whether the runtime answers and no wanted model is still on its first way to the node.",
        _one(lambda status: not status.unready),
    ),
    _gauge(
        "runtime_up",
        "Whether the container runtime or directory that models go into can be used.",
        lambda status: [((status.runtime.kind,), float(status.runtime.reachable))],
        "kind",
    ),
    _gauge(
        "config_last_reload_successful",
        "Whether the configuration files as they are now are in force.",
        _one(lambda status: status.configuration.error is None),
    ),
    _gauge(
        "config_last_reload_success_timestamp_seconds",
        "When the configuration in force was loaded, in seconds since the epoch.",
        _one(lambda status: status.configuration.loaded_at),
    ),
    _counter(
        "config_reloads",
        "Configurations that came into force after the first.",
        _one(lambda status: status.totals.reloads),
    ),
    _counter(
        "config_reload_failures",
        "Configurations that were turned down.",
        _one(lambda status: status.totals.failed_reloads),
    ),
    _gauge(
        "budget_limit_bytes",
        "Disk that the daemon's models may take.",
        _one(lambda status: status.budget.limit),
    ),
    _gauge(
        "budget_used_bytes",
        "Disk that they take; what several models share counts once.",
        _one(lambda status: status.budget.used),
    ),
    _gauge(
        "budget_reserved_bytes",
        "Disk promised to transfers that run, and not written yet.",
        _one(lambda status: status.budget.reserved),
    ),
    _gauge(
        "budget_high_watermark_bytes",
        "Above this, models that are not wanted any more are evicted.",
        _one(lambda status: status.budget.high),
    ),
    _gauge(
        "budget_low_watermark_bytes",
        "Eviction ends when no more than this is used.",
        _one(lambda status: status.budget.low),
    ),
    _gauge("models", "Models at each stage.", _stages, "stage"),
    _gauge(
        "model_stage",
        "1 for the stage that the model is at, 0 for the others.",
        _model_stages,
        "model",
        "stage",
    ),
    _gauge(
        "model_ready",
        "Whether a version of the model is ready on the node, whatever else is going on.",
        _each(lambda model: model.digest is not None),
        "model",
    ),
    _gauge(
        "model_update_pending",
        "Whether a newer version is being fetched, waits for its wave or is held back.",
        _each(lambda model: model.candidate is not None),
        "model",
    ),
    _gauge(
        "model_held",
        "Whether newer versions are held back.",
        _each(lambda model: model.held),
        "model",
    ),
    _gauge(
        "model_mounted",
        "Whether a container mounts the model now.",
        _each(lambda model: model.mounted),
        "model",
    ),
    _gauge(
        "model_ready_timestamp_seconds",
        "When the version on the node was made ready; absent while there is none.",
        _each(lambda model: model.ready_at),
        "model",
    ),
    _gauge(
        "model_last_used_timestamp_seconds",
        "When the model was last seen mounted since it was made ready; absent until it is.",
        _each(lambda model: model.used_at),
        "model",
    ),
    _gauge("model_size_bytes", "Size of the model.", _each(lambda model: model.bytes), "model"),
    _gauge(
        "model_fetched_bytes",
        "Bytes off the wire in the transfer that runs, or in the last.",
        _each(lambda model: model.fetched_bytes),
        "model",
    ),
    _gauge(
        "model_reused_bytes",
        "Bytes that were on the node already, in the same transfer.",
        _each(lambda model: model.reused_bytes),
        "model",
    ),
    _gauge(
        "model_transfer_seconds",
        "Time spent at each stage of the same transfer.",
        _model_timings,
        "model",
        "stage",
    ),
    _gauge(
        "model_failed_attempts",
        "Failed tries in a row.",
        _each(lambda model: model.attempts),
        "model",
    ),
    _gauge(
        "model_next_attempt_timestamp_seconds",
        "When the next try is due; absent when none is.",
        _each(lambda model: model.next_attempt),
        "model",
    ),
    _counter(
        "fetched_bytes", "Bytes off the wire.", _one(lambda status: status.totals.fetched_bytes)
    ),
    _counter(
        "reused_bytes",
        "Bytes that were on the node already and did not have to be fetched.",
        _one(lambda status: status.totals.reused_bytes),
    ),
    _counter("imports", "Models made ready.", _one(lambda status: status.totals.imports)),
    _counter(
        "used_models",
        "Models that were mounted at least once after they were made ready.",
        _one(lambda status: status.totals.used_models),
    ),
    _counter(
        "failures",
        "Failed tries, by kind.",
        lambda status: [((kind,), float(n)) for kind, n in sorted(status.totals.failures.items())],
        "kind",
    ),
    _counter("evictions", "Models evicted.", _one(lambda status: status.totals.evictions)),
    _counter(
        "evicted_bytes",
        "Disk freed by evictions.",
        _one(lambda status: status.totals.evicted_bytes),
    ),
    _counter(
        "scrubbed_bytes",
        "Bytes read again to see whether they are still right.",
        _one(lambda status: status.totals.scrubbed_bytes),
    ),
    _counter(
        "damaged_models",
        "Models in which that found damage.",
        _one(lambda status: status.totals.damaged),
    ),
    _counter(
        "repaired_models", "Damaged models made whole.", _one(lambda status: status.totals.repaired)
    ),
    _counter(
        "stage_seconds",
        "Time spent at each stage by all transfers that ended.",
        lambda status: [
            ((stage,), seconds) for stage, seconds in sorted(status.totals.stage_seconds.items())
        ],
        "stage",
    ),
)


def families(status: DaemonStatus) -> Iterator[Metric]:
    """Return every metric of a status."""
    for definition in DEFINITIONS:
        yield definition.family(status)


class _StatusCollector(Collector):
    def __init__(self, status: Callable[[], DaemonStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of this moment's status."""
        yield from families(self._status())

    def describe(self) -> list[Metric]:
        """Say nothing, so that registering does not ask for a status that is not there yet."""
        return []


def registry(status: Callable[[], DaemonStatus]) -> CollectorRegistry:
    """Return a registry with the daemon's metrics and those of its process."""
    made = CollectorRegistry(auto_describe=False)
    made.register(_StatusCollector(status))
    ProcessCollector(namespace=PREFIX.rstrip("_"), registry=made)
    return made


def exposition(metrics: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the metrics in the format that a scraper asks for, and its content type."""
    encode, content_type = formats.choose_encoder(accept)
    return encode(metrics), content_type
