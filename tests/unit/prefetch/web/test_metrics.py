"""Metrics read back by Prometheus' own parsers, and held to its conventions."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from modelpack.prefetch.status import (
    ConfigurationStatus,
    RuntimeStatus,
    Stage,
    Totals,
)
from modelpack.prefetch.web.metrics import (
    DEFINITIONS,
    MAX_MODELS,
    exposition,
    families,
    registry,
)
from tests.support import programs
from tests.support.statuses import CANDIDATE, GIB, model, status, statuses

ROOT = Path(__file__).parents[4]
DASHBOARD = ROOT / "examples/grafana/modelpack-node.json"
PAGE = ROOT / "docs/metrics.md"
BUSY = status(
    model("chat", mounted=True, used_at=900.0, ready_at=100.0, timings={"Downloading": 2.5}),
    model(
        "code",
        Stage.DOWNLOADING,
        candidate=CANDIDATE,
        fetched_bytes=GIB,
        reused_bytes=2 * GIB,
        attempts=2,
        priority=5,
        timings={"Resolving": 0.5, "Unheard of": 1.0},
    ),
    model("speech", Stage.FAILED, held=True, next_attempt=2000.0),
    now=1000.0,
    totals=Totals(
        fetched_bytes=7,
        reused_bytes=8,
        imports=9,
        used_models=6,
        failures={"network": 3, "space": 1},
        evictions=2,
        evicted_bytes=11,
        scrubbed_bytes=12,
        damaged=2,
        repaired=1,
        reloads=4,
        failed_reloads=5,
        stage_seconds={"Downloading": 77.5},
    ),
)


def text(value):
    return exposition(registry(lambda: value), "")[0].decode()


def samples(value):
    """Every sample by its name and labels, as Prometheus would take it."""
    found = {}
    for family in text_string_to_metric_families(text(value)):
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("build_info", {"version": "1.2.3"}, 1),
        ("start_time_seconds", {}, 1000.0 - 90_000),
        ("main_loop_timestamp_seconds", {}, 1000.0),
        ("node_ready", {}, 0),
        ("runtime_up", {"kind": "containerd"}, 1),
        ("config_last_reload_successful", {}, 1),
        ("config_last_reload_success_timestamp_seconds", {}, 940.0),
        ("config_reloads_total", {}, 4),
        ("config_reload_failures_total", {}, 5),
        ("budget_limit_bytes", {}, 20 * GIB),
        ("budget_used_bytes", {}, 8 * GIB),
        ("budget_reserved_bytes", {}, 2 * GIB),
        ("budget_high_watermark_bytes", {}, 18 * GIB),
        ("budget_low_watermark_bytes", {}, 16 * GIB),
        ("models", {"stage": "Ready"}, 1),
        ("models", {"stage": "Downloading"}, 1),
        ("models", {"stage": "Refused"}, 0),
        ("model_stage", {"model": "chat", "stage": "Ready"}, 1),
        ("model_stage", {"model": "chat", "stage": "Failed"}, 0),
        ("model_ready", {"model": "chat"}, 1),
        ("model_ready", {"model": "code"}, 0),
        ("model_update_pending", {"model": "code"}, 1),
        ("model_held", {"model": "speech"}, 1),
        ("model_mounted", {"model": "chat"}, 1),
        ("model_mounted", {"model": "code"}, 0),
        ("model_ready_timestamp_seconds", {"model": "chat"}, 100.0),
        ("model_last_used_timestamp_seconds", {"model": "chat"}, 900.0),
        ("model_size_bytes", {"model": "chat"}, 4 * GIB),
        ("model_fetched_bytes", {"model": "code"}, GIB),
        ("model_reused_bytes", {"model": "code"}, 2 * GIB),
        ("model_transfer_seconds", {"model": "chat", "stage": "Downloading"}, 2.5),
        ("model_failed_attempts", {"model": "code"}, 2),
        ("model_next_attempt_timestamp_seconds", {"model": "speech"}, 2000.0),
        ("fetched_bytes_total", {}, 7),
        ("reused_bytes_total", {}, 8),
        ("imports_total", {}, 9),
        ("used_models_total", {}, 6),
        ("failures_total", {"kind": "network"}, 3),
        ("evictions_total", {}, 2),
        ("evicted_bytes_total", {}, 11),
        ("scrubbed_bytes_total", {}, 12),
        ("damaged_models_total", {}, 2),
        ("repaired_models_total", {}, 1),
        ("stage_seconds_total", {"stage": "Downloading"}, 77.5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_metric_has_its_value(name, labels, value):
    assert samples(BUSY)[f"modelpack_{name}", *sorted(labels.items())] == value


@pytest.mark.parametrize(
    "name",
    [
        "model_ready_timestamp_seconds",
        "model_last_used_timestamp_seconds",
        "model_next_attempt_timestamp_seconds",
    ],
)
def test_what_has_not_happened_has_no_time(name):
    assert (f"modelpack_{name}", ("model", "code")) not in samples(BUSY)


def test_states_that_are_not_well():
    found = samples(
        status(
            runtime=RuntimeStatus(kind="directory", reachable=False, reason="gone"),
            configuration=ConfigurationStatus(path="x", loaded_at=1, generation=1, error="bad"),
        )
    )
    assert found["modelpack_runtime_up", ("kind", "directory")] == 0
    assert found["modelpack_config_last_reload_successful",] == 0
    assert found["modelpack_node_ready",] == 0


def test_a_model_is_at_one_stage():
    for name in ("chat", "code", "speech"):
        values = [
            value
            for (metric, *labels), value in samples(BUSY).items()
            if metric == "modelpack_model_stage" and ("model", name) in labels
        ]
        assert sorted(values) == [0] * (len(Stage) - 1) + [1]


def test_the_process_is_described():
    assert samples(BUSY)["modelpack_process_resident_memory_bytes",] > 1_000_000
    assert ("modelpack_process_cpu_seconds_total",) in samples(BUSY)


# https://prometheus.io/docs/practices/naming/ and what `promtool check metrics` looks at
UNITS = ("_seconds", "_bytes", "_info")
NO_UNITS = re.compile("milli|micro|kilo|mega|minute|hour|_(ms|kb|mb|kib|mib|percent)(_|$)")


@pytest.mark.parametrize("one", DEFINITIONS, ids=lambda one: one.name)
def test_names_follow_the_conventions(one):
    assert re.fullmatch("modelpack_[a-z]+(_[a-z]+)*", one.name)
    assert one.name.endswith("_total") == (one.kind == "counter")
    assert not one.name.endswith(("_count", "_sum", "_bucket", "_created"))
    assert not NO_UNITS.search(one.name)
    assert "gauge" not in one.name
    assert "counter" not in one.name
    if "byte" in one.name or "second" in one.name:
        assert one.name.removesuffix("_total").endswith(UNITS)
    assert one.help.endswith(".")
    assert set(one.labels) <= {"model", "stage", "kind", "version"}
    assert not any(label in one.name.split("_") for label in one.labels if label == "kind")


def test_names_are_unique():
    assert len({one.name for one in DEFINITIONS}) == len(DEFINITIONS)


@given(statuses())
@settings(max_examples=40, deadline=None)
def test_any_status_is_well_formed(value):
    made = registry(lambda: value)
    body, kind = exposition(made, "application/openmetrics-text;version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    list(openmetrics.text_string_to_metric_families(body.decode()))
    assert len(samples(value)) >= 20


def test_names_of_models_are_taken_as_they_are():
    names = ['a"b', "a\\b", "a\nb", "{x}", "größe", "r.example/team/model:v1", "<b>", ""]
    found = samples(status(*(model(name) for name in names)))
    for name in names:
        assert found["modelpack_model_ready", ("model", name)] == 1


def test_names_without_their_secrets_are_one_series():
    found = samples(status(model("u:hunter2@r.example/m"), model("u:hunter3@r.example/m")))
    assert found["modelpack_model_ready", ("model", "[removed]@r.example/m")] == 1
    assert "hunter" not in text(status(model("u:hunter2@r.example/m")))


def test_half_a_surrogate_pair_is_no_fault():
    assert samples(status(model("a\udc80")))["modelpack_model_ready", ("model", "a\\udc80")] == 1


def test_series_are_bounded_and_models_are_counted_all():
    many = [model(f"m{n}", priority=n) for n in range(MAX_MODELS + 100)]
    found = samples(status(*many))
    named = {dict(labels)["model"] for (name, *labels) in found if name == "modelpack_model_ready"}
    assert len(named) == MAX_MODELS
    assert f"m{MAX_MODELS + 99}" in named
    assert "m0" not in named
    assert found["modelpack_models", ("stage", "Ready")] == MAX_MODELS + 100


def test_no_digest_reference_or_reason_is_a_label():
    shown = text(status(model("a", Stage.FAILED, reason="a reason", digest="sha256:00")))
    assert "sha256" not in shown
    assert "a reason" not in shown
    assert "registry.example" not in shown


def test_every_metric_is_in_the_documentation():
    rows = re.findall(
        r"^\| `(modelpack_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE
    )
    assert [
        (one.name, one.kind, ", ".join(f"`{label}`" for label in one.labels), one.help)
        for one in DEFINITIONS
    ] == rows
    assert set(re.findall(r"modelpack_process_\w+", PAGE.read_text())) <= exported()


def exported():
    process = {name for name, *_ in samples(BUSY) if name.startswith("modelpack_process_")}
    return {one.name for one in DEFINITIONS} | process


def queries():
    """Every expression of the dashboard, its variables filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for target in (target for panel in panels for target in panel.get("targets", [])):
        expression = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "6h")
        yield re.sub(r"\$\w+", ".*", expression)


def test_the_dashboard_asks_for_what_is_exported():
    used = set(re.findall(r"\bmodelpack_\w+", DASHBOARD.read_text()))
    assert used <= exported()
    assert {one.name for one in DEFINITIONS} - used == set()


def test_the_dashboard_is_whole():
    value = json.loads(DASHBOARD.read_text())
    panels = value["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {variable["name"] for variable in value["templating"]["list"]} == {
        "datasource",
        "job",
        "instance",
    }
    for panel in panels:
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            assert target["refId"]


def documented():
    table = re.findall(r"^\| [^|]+\? \| `(.+)` \|$", PAGE.read_text(), re.MULTILINE)
    assert len(table) >= 6
    return table


@pytest.mark.real("promtool")
def test_promtool_has_nothing_to_say_against_them():
    # of the process' own metrics it says nothing either, but they are not ours to name
    ours = "".join(
        line for line in text(BUSY).splitlines(keepends=True) if "modelpack_process_" not in line
    )
    done = programs.run("promtool", "check", "metrics", input=ours)
    assert done.stderr == ""


@pytest.mark.real("promtool")
def test_prometheus_understands_every_query(tmp_path):
    expressions = [*queries(), *documented()]
    rules = [{"record": f"x:{n}", "expr": one} for n, one in enumerate(expressions)]
    path = tmp_path / "rules.json"  # which is YAML, too
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    done = programs.run("promtool", "check", "rules", path)
    assert f"SUCCESS: {len(rules)} rules found" in done.stdout


def test_what_is_asked_for_in_the_documentation_is_exported():
    for expression in documented():
        assert set(re.findall(r"modelpack_\w+", expression)) <= exported()


def test_families_are_made_without_a_registry():
    assert [family.name for family in families(BUSY)][:2] == [
        "modelpack_build_info",
        "modelpack_start_time_seconds",
    ]
