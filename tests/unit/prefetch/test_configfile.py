"""The daemon's configuration: what the parser takes the schema takes, and what one refuses both do.

Faults that only relate two members, or need the machine, are the parser's alone and listed apart.
"""

import copy
import json
from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import jsonschema
import pytest
import yaml

from modelpack.digest import Digest
from modelpack.errors import UsageError
from modelpack.prefetch import config
from modelpack.prefetch.configfile import NODE_VARIABLE, read_config
from modelpack.prefetch.sources import DiskSource
from modelpack.prefetch.windows import Window
from modelpack.reference import parse_reference

ROOT = Path(__file__).parents[3]
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "schemas" / "daemon.schema.json").read_text())
)
DIGEST = f"sha256:{'a' * 64}"
ISSUE = """
store: /var/lib/modelpack
budget: 20Gi
listen: 127.0.0.1:9464
runtime: {kind: containerd, address: /run/containerd/containerd.sock, hostRoot: /}
models:
  - ref: registry.example/team/model:v1
"""
SMALL = {
    "store": "/s",
    "budget": "20Gi",
    "runtime": {"kind": "directory", "path": "/m"},
    "models": [{"ref": "registry.example/a:v1"}],
}
MODEL = ("models", 0)
WINDOW = {"from": "22:00", "to": "06:00"}


def changed(*steps, value=None, drop=False):
    """Return the small configuration with the member at ``steps`` changed or dropped."""
    document = copy.deepcopy(SMALL)
    place = document
    for step in steps[:-1]:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    if drop:
        del place[steps[-1]]
    else:
        place[steps[-1]] = value
    return document


def as_yaml(document):
    """Return a document as YAML in which nothing is shared."""
    return yaml.safe_dump(json.loads(json.dumps(document)))


def read(tmp_path, document, environ=None):
    text = document if isinstance(document, str) else as_yaml(document)
    (tmp_path / "daemon.yaml").write_text(text)
    return read_config(tmp_path / "daemon.yaml", DiskSource(), environ or {NODE_VARIABLE: "n1"})


FULL = {
    **SMALL,
    "watermarks": {"high": "90%", "low": "75.5%"},
    "minFree": "1Gi",
    "listen": "0.0.0.0:9464",
    "allowRemote": True,
    "controlSocket": "/run/modelpack.sock",
    "node": {"name": "worker-3", "labels": {"gpu": "h100", "example.com/zone": ""}},
    "runtime": {
        "kind": "containerd",
        "address": "/run/c.sock",
        "namespace": "k8s.io",
        "snapshotter": "overlayfs",
        "hostRoot": "/host",
        "pageCache": False,
    },
    "policy": "policy.yaml",
    "concurrency": 4,
    "connections": 8,
    "limitRate": "100M",
    "rates": [
        {"from": "08:00", "to": "18:00", "days": ["mon", "fri"], "rate": "50M"},
        {**WINDOW, "rate": "unlimited"},
    ],
    "timezone": "UTC",
    "mirrors": {"registry.example": ["http://127.0.0.1:5001", "https://m.example/prefix"]},
    "plainHttp": ["registry.internal:5000"],
    "proxy": "http://127.0.0.1:65001",
    "caFile": "ca.pem",
    "authFile": "/etc/modelpack/auth.json",
    "bounds": {"models": 10, "modelSize": "500Gi", "updatesPerDay": 3},
    "scrub": {"every": "7d", "rate": "50M"},
    "retry": {"first": "5s", "longest": "1h30m"},
    "defaults": {"resolve": "1h", "priority": -5, "rollout": {"keepPrevious": "2h"}},
    "models": [
        {
            "name": "big",
            "ref": "registry.example/big:v1",
            "resolve": "never",
            "priority": 7,
            "pin": True,
            "hold": True,
            "window": [WINDOW],
            "selector": {
                "matchLabels": {"gpu": "h100"},
                "matchExpressions": [
                    {"key": "zone", "operator": "In", "values": ["a", "b"]},
                    {"key": "old", "operator": "DoesNotExist"},
                ],
            },
            "rollout": {
                "waves": [{"percent": 5, "soak": "1h"}, {"percent": 50.5, "soak": "6h"}],
                "keepPrevious": "24h",
            },
        },
        {"ref": "registry.example/small", "digest": DIGEST, "window": WINDOW},
    ],
}

GOOD = {
    "issue": yaml.safe_load(ISSUE),
    "small": SMALL,
    "full": FULL,
    "no-models": changed("models", value=[]),
    "budget-number": changed("budget", value=10**9),
    "budget-decimal": changed("budget", value="1.5Ti"),
    "digest-reference": changed("models", value=[{"ref": f"registry.example/a@{DIGEST}"}]),
    "listen-v6": changed("listen", value="[::1]:0"),
    "listen-name": changed("listen", value="localhost:9464"),
    "wave-100": changed(*MODEL, "rollout", value={"waves": [{"percent": 100, "soak": "0s"}]}),
    "window-until-midnight": changed(*MODEL, "window", value={"from": "18:00", "to": "24:00"}),
    "empty-values": changed(
        *MODEL,
        "selector",
        value={"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]},
    ),
    "never-scrub": changed("scrub", value={"every": "never"}),
}

BAD = {
    "unknown": (changed("budgt", value=1), "budgt is not known; did you mean budget?"),
    "unknown-nested": (
        changed(*MODEL, "rollout", value={"waves": [{"percent": 5, "soak": "1h", "until": 3}]}),
        r"models\[0\].rollout.waves\[0\].until is not known",
    ),
    "unknown-model": (changed(*MODEL, "reff", value="x"), r"models\[0\].reff is not known; did"),
    "unknown-runtime": (
        changed("runtime", "address", value="/x"),
        "runtime.address is not known",
    ),
    "unknown-selector": (
        changed(*MODEL, "selector", value={"labels": {}}),
        r"models\[0\].selector.labels is not known",
    ),
    "no-store": (changed("store", drop=True), "store is missing"),
    "no-budget": (changed("budget", drop=True), "budget is missing"),
    "no-runtime": (changed("runtime", drop=True), "runtime is missing"),
    "no-list": (changed("models", drop=True), "models is missing"),
    "no-ref": (changed("models", value=[{"name": "a"}]), r"models\[0\].ref is missing"),
    "models-mapping": (changed("models", value={}), "models is a mapping, not a list"),
    "model-text": (changed("models", value=["a"]), r"models\[0\] is a text, not a mapping"),
    "unknown-for-required": (
        {**changed("store", drop=True), "stor": "/s"},
        "stor is not known; did you mean store",
    ),
    "unknown-kind": (changed("runtime", value={"knd": "x"}), "runtime.knd is not known; did you"),
    "null": (changed("policy", value=None), "policy is empty; give it a value or leave it out"),
    "store-relative": (changed("store", value="s"), "store is not an absolute path"),
    "store-number": (changed("store", value=3), "store is a number, not a text"),
    "budget-unit": (changed("budget", value="20GB"), "budget: '20GB' is not a size such as"),
    "budget-negative": (changed("budget", value=-1), "budget: -1 is not a size"),
    "budget-boolean": (changed("budget", value=True), "budget: True is not a size"),
    "percent-number": (changed("watermarks", value={"high": 90}), "high: 90 is not a percentage"),
    "percent-101": (changed("watermarks", value={"low": "101%"}), "low: '101%' is not a percent"),
    "kind": (changed("runtime", "kind", value="docker"), "runtime.kind is not one of containerd"),
    "no-path": (changed("runtime", "path", drop=True), "runtime.path is missing"),
    "listen": (changed("listen", value="9464"), "listen is not HOST:PORT"),
    "listen-port": (changed("listen", value=9464), "listen is not HOST:PORT, such as 127.0.0.1:"),
    "concurrency": (changed("concurrency", value=0), "concurrency is not a whole number from 1"),
    "concurrency-float": (changed("concurrency", value=1.5), "concurrency is not a whole number"),
    "rate": (changed("limitRate", value="0"), "limitRate: '0' is not a rate"),
    "rate-word": (changed("rates", value=[{**WINDOW, "rate": "fast"}]), r"rates\[0\].rate: 'fast'"),
    "time": (
        changed("rates", value=[{"from": "8:00", "to": "18:00", "rate": "1M"}]),
        r"rates\[0\].from: '8:00' is not a time of day",
    ),
    "time-61": (changed(*MODEL, "window", value={**WINDOW, "to": "06:61"}), "window.to: '06:61'"),
    "from-24": (changed(*MODEL, "window", value={**WINDOW, "from": "24:00"}), "write 00:00"),
    "day": (
        changed(*MODEL, "window", value={**WINDOW, "days": ["monday"]}),
        r"models\[0\].window.days\[0\] is not one of mon, tue",
    ),
    "no-day": (changed(*MODEL, "window", value={**WINDOW, "days": []}), "never opens"),
    "mirror-password": (
        changed("mirrors", value={"r.example": ["http://u:hunter2@m.example"]}),
        r"mirrors.r.example\[0\]: the URL holds a user or password",
    ),
    "mirror-scheme": (changed("mirrors", value={"r.example": ["m.example"]}), "is not a URL"),
    "mirror-query": (
        changed("mirrors", value={"r.example": ["http://m/?a"]}),
        "more than a scheme",
    ),
    "proxy-password": (changed("proxy", value="http://u:hunter2@p.example"), "user or password"),
    "updates": (changed("bounds", value={"updatesPerDay": -1}), "bounds.updatesPerDay is not a"),
    "duration-bare": (changed(*MODEL, "resolve", value=300), "resolve: 300 is not a duration"),
    "duration-order": (changed(*MODEL, "resolve", value="1m1h"), "is not a duration"),
    "percent-0": (
        changed(*MODEL, "rollout", value={"waves": [{"percent": 0, "soak": "1h"}]}),
        r"waves\[0\].percent is not a number above 0",
    ),
    "no-soak": (changed(*MODEL, "rollout", value={"waves": [{"percent": 5}]}), "soak is missing"),
    "priority": (changed(*MODEL, "priority", value="high"), "priority is not a whole number"),
    "hold-text": (changed(*MODEL, "hold", value="yes"), "hold is a text, neither true nor false"),
    "digest": (changed(*MODEL, "digest", value="sha256:1"), r"models\[0\].digest: "),
    "operator": (
        changed(*MODEL, "selector", value={"matchExpressions": [{"key": "a", "operator": "Gt"}]}),
        r"matchExpressions\[0\].operator is not one of In, NotIn",
    ),
    "in-nothing": (
        changed(*MODEL, "selector", value={"matchExpressions": [{"key": "a", "operator": "In"}]}),
        "values must be given for In",
    ),
    "bare-labels": (
        changed(*MODEL, "selector", value={"gpu": "h100"}),
        r"selector.gpu is not known; labels go below it, as matchLabels: {gpu: h100}",
    ),
    "label-boolean": (changed("node", value={"labels": {"a": True}}), "True is not a text; quote"),
    "label-key": (changed("node", value={"labels": {"-a": "b"}}), "is not a label's key"),
    "label-value": (
        changed(*MODEL, "selector", value={"matchLabels": {"a": "b c"}}),
        "'b c' is not a label's value",
    ),
}

PARSER_ONLY = {
    "marks": (changed("watermarks", value={"high": "50%", "low": "60%"}), "low is above high"),
    "budget-0": (changed("budget", value=0), "budget is nothing"),
    "remote": (changed("listen", value="0.0.0.0:9464"), "add 'allowRemote: true' if"),
    "port": (changed("listen", value="127.0.0.1:65536"), "listen is not HOST:PORT"),
    "socket": (changed("store", value="/" + "s" * 100), "controlSocket is longer than 107 bytes"),
    "ref": (
        changed(*MODEL, "ref", value="model:v1"),
        r"models\[0\].ref: reference 'model:v1' does",
    ),
    "layout": (changed(*MODEL, "ref", value="oci:/a:v1"), "ref is not in a registry"),
    "two-digests": (
        changed(
            "models", value=[{"ref": f"r.example/a@{DIGEST}", "digest": DIGEST.replace("aa", "bb")}]
        ),
        "digest is not the digest in ref",
    ),
    "one-name": (
        changed("models", value=[SMALL["models"][0]] * 2),
        r"models\[1\].ref gives the model the name 'registry.example/a:v1', which .*models\[0\] has",
    ),
    "zone": (changed("timezone", value="Mars/Olympus"), "timezone: 'Mars/Olympus' is not a time"),
    "zone-path": (changed("timezone", value="../../etc/passwd"), "is not a time zone"),
    "resolve-1s": (changed(*MODEL, "resolve", value="1s"), "resolve is less than 10s"),
    "scrub-1s": (changed("scrub", value={"every": "1s"}), "scrub.every is less than an hour"),
    "retry": (changed("retry", value={"first": "5m", "longest": "1m"}), "shorter than first"),
    "retry-0": (changed("retry", value={"first": "0s"}), "retry.first is less than a second"),
    "empty-window": (
        changed(*MODEL, "window", value={"from": "06:00", "to": "06:00"}),
        "same time",
    ),
    "waves": (
        changed(
            *MODEL,
            "rollout",
            value={"waves": [{"percent": 50, "soak": "1h"}, {"percent": 5, "soak": "1h"}]},
        ),
        r"waves\[1\].percent is not above that of the wave before, 50",
    ),
    "ten-years": (changed("scrub", value={"every": "9999w"}), "scrub.every: '9999w' is not"),
    "bound": (
        {
            **changed("bounds", value={"models": 1}),
            "models": [{"ref": f"r.io/a:{n}"} for n in "12"],
        },
        "models has 2 for this node; bounds.models is 1",
    ),
    "labels-file": (
        changed("node", value={"labelsFile": "labels"}),
        "node.labelsFile: configuration .*labels does not exist",
    ),
    "include": (changed("include", value="more.d"), "include: configuration .*more.d does not"),
}


@pytest.mark.parametrize("document", GOOD.values(), ids=GOOD)
def test_what_the_schema_takes_is_read(tmp_path, document):
    SCHEMA.validate(document)
    assert isinstance(read(tmp_path, document), config.DaemonConfig)


@pytest.mark.parametrize(("document", "message"), BAD.values(), ids=BAD)
def test_what_the_schema_refuses_is_an_error_with_its_path(tmp_path, document, message):
    assert not SCHEMA.is_valid(document)
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, document)
    text = str(caught.value)
    assert text.startswith(str(tmp_path / "daemon.yaml"))
    assert "\n" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize(("document", "message"), PARSER_ONLY.values(), ids=PARSER_ONLY)
def test_what_only_the_parser_can_tell(tmp_path, document, message):
    SCHEMA.validate(document)
    with pytest.raises(UsageError, match=message):
        read(tmp_path, document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ISSUE + "budget: 1Gi\n", "line 8: the key 'budget' is there twice"),
        (ISSUE + "    ref: x\n", "line 8: the key 'ref' is there twice"),
        (ISSUE + "1: 2\n", "line 8: the key '1' is not a text"),
        (ISSUE + "policy: !!str a\n", "line 8: tags are not accepted"),
        ("a: &a [1]\nb: *a\n", "line 2: aliases are not accepted"),
        ("store: [\n", "not valid YAML"),
        ("- a\n", "the file is a list, not a mapping"),
        ("", "the file is empty, not a mapping"),
        ("[" * 1000, "nested deeper than 16"),
        ("store: \x07\n", "not valid YAML"),
    ],
    ids=[
        "twice",
        "twice-deep",
        "number",
        "tag",
        "alias",
        "syntax",
        "list",
        "empty",
        "deep",
        "bell",
    ],
)
def test_yaml_that_is_not_taken(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_the_values_are_those_of_the_file(tmp_path):
    found = read(tmp_path, FULL)
    assert found.budget == config.Budget(
        limit=20 * 2**30, high=18 * 2**30, low=int(20 * 2**30 * 0.755), min_free=2**30
    )
    assert found.identity.name == "worker-3"
    assert found.identity.labels == {
        "gpu": "h100",
        "example.com/zone": "",
        "kubernetes.io/hostname": "worker-3",
    }
    assert found.runtime.host_root == Path("/host")
    assert found.runtime.page_cache is False
    assert found.policy == tmp_path / "policy.yaml"
    assert found.network.ca_file == tmp_path / "ca.pem"
    assert found.network.auth_file == Path("/etc/modelpack/auth.json")
    assert found.network.mirrors["registry.example"] == (
        "http://127.0.0.1:5001",
        "https://m.example/prefix",
    )
    assert found.rates.timed[0] == (
        Window(start=480, end=1080, days=frozenset({0, 4})),
        50_000_000,
    )
    assert found.rates.timed[1][1] is None
    assert found.retry == config.Retry(first=5, longest=5400)
    big, small = found.models
    assert (big.priority, big.resolve, big.pin, big.hold) == (7, None, True, True)
    assert big.rollout == config.Rollout(
        waves=(config.Wave(percent=5, soak=3600), config.Wave(percent=50.5, soak=21600)),
        keep_previous=86400,
    )
    assert (small.name, small.priority, small.resolve) == (
        "registry.example/small:latest",
        -5,
        3600,
    )
    assert small.rollout.keep_previous == 7200
    assert small.digest == Digest.parse(DIGEST)
    assert small.windows == big.windows == (Window(start=22 * 60, end=6 * 60),)


def test_the_smallest_form_has_sound_defaults(tmp_path):
    found = read(tmp_path, ISSUE)
    (model,) = found.models
    assert model.reference == parse_reference("registry.example/team/model:v1")
    assert model.name == "registry.example/team/model:v1"
    assert found.control_socket == Path("/var/lib/modelpack/control.sock")
    assert found.listen.is_local
    assert found.budget.high == int(20 * 2**30 * 0.9)
    assert found.zone is UTC
    assert found.policy is None


def test_times_need_no_quotes(tmp_path):
    text = ISSUE + "    window: {from: 18:00, to: 06:30, days: [sat, sun]}\n"
    (model,) = read(tmp_path, text).models
    assert model.windows == (Window(start=1080, end=390, days=frozenset({5, 6})),)


def test_a_named_time_zone(tmp_path):
    document = changed("timezone", value="Europe/Berlin")
    assert read(tmp_path, document).zone == ZoneInfo("Europe/Berlin")


def test_the_node_is_named_by_the_variable_or_the_host(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "host-7")
    assert read(tmp_path, SMALL, {NODE_VARIABLE: "n4"}).identity.name == "n4"
    assert read(tmp_path, SMALL, {"HOME": "/"}).identity.name == "host-7"


def test_labels_come_from_the_downward_api_too(tmp_path):
    (tmp_path / "labels").write_text('zone="a"\ngpu="h100"\n')
    document = changed("node", value={"labelsFile": "labels", "labels": {"gpu": "l4"}})
    labels = read(tmp_path, document).identity.labels
    assert labels == {"zone": "a", "gpu": "l4", "kubernetes.io/hostname": "n1"}
    (tmp_path / "labels").write_text('zone="a b"\n')
    with pytest.raises(UsageError, match="labels: line 1: 'a b' is not a label's value"):
        read(tmp_path, document)
