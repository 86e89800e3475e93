"""Verdicts and injections compared with the CDI reference implementation, in ``oracle/main.go``.

Where this project is stricter on purpose, the case says so. It must never be more lenient.
"""

import copy
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from cdi.annotations import annotation_key
from cdi.cache import Cache
from cdi.emit import to_json_text, to_yaml
from cdi.errors import CdiError, CdiUsageError
from cdi.names import is_qualified
from cdi.parse import examine, syntax_of
from cdi.version import minimum_version, with_minimum_version
from tests.cdi.cases import BAD, GOOD, STRICTER
from tests.cdi.specdirs import tree
from tests.cdi.strategies import specs
from tests.cdi.test_edits import OCI
from tests.cdi.test_parse import BAD as BAD_FILES
from tests.cdi.test_parse import GOOD as GOOD_FILES
from tests.support.programs import find_program

pytestmark = pytest.mark.real("cdi-oracle")

# What the reference lets pass in the files of bad/: merge keys, and whatever follows a document.
STRICTER_FILES = {"after-end.yaml", "merge-key.yaml", "multi-document.yaml"}


class Oracle:
    def __init__(self, program):
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def ask(self, op, **fields):
        self._process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def oracle():
    running = Oracle(find_program("cdi-oracle"))
    yield running
    running.close()


def as_text(value):
    """Return JSON that is YAML too; only half a surrogate pair has to be escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return json.dumps(value) if re.search("[\ud800-\udfff]", text) else text


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in GOOD + BAD])
def test_verdicts(oracle, case):
    error = oracle.ask("validate", text=as_text(case.value))["error"]
    if STRICTER in case.marks:
        assert case.faults
        assert not error
    else:
        assert bool(error) == bool(case.faults), error


@pytest.mark.parametrize("path", GOOD_FILES + BAD_FILES, ids=lambda path: path.name)
def test_verdicts_on_files(oracle, path):
    data = path.read_bytes()
    spec, _ = examine(data, syntax=syntax_of(path))
    error = oracle.ask("validate", text=data.decode("latin-1"))["error"]
    if path.name in STRICTER_FILES:
        assert spec is None
        assert not error
    else:
        assert bool(error) == (spec is None), error


@settings(max_examples=60, deadline=None)
@given(specs())
def test_the_reference_accepts_what_we_emit_and_needs_the_same_version(oracle, spec):
    for text in (to_yaml(spec), to_json_text(spec)):
        assert oracle.ask("validate", text=text)["error"] == ""
    assert oracle.ask("minimum", text=to_yaml(spec))["version"] == minimum_version(spec).version


@given(st.text("aZ0-_.:/=é", max_size=12))
def test_names(oracle, text):
    assert (oracle.ask("name", text=text)["error"] == "") == is_qualified(text)


@given(st.text("aZ0-_.:/é", max_size=40), st.text("aZ0-_.:/é", max_size=40))
def test_annotation_keys(oracle, plugin, device_id):
    try:
        annotation_key(plugin, device_id)
    except CdiUsageError:
        ours = False
    else:
        ours = True
    assert (oracle.ask("annotation", devices=[plugin, device_id])["error"] == "") == ours


FILES = st.dictionaries(
    st.sampled_from(["a/1.yaml", "a/2.yaml", "b/1.yaml", "b/2.json", "c/1.yaml", "c/2.yml"]),
    st.lists(st.sampled_from(["0", "1", "2"]), min_size=1, max_size=3, unique=True),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(FILES)
def test_precedence_and_conflicts(oracle, tmp_path_factory, files):
    root = tmp_path_factory.mktemp("dirs")
    content = {name: f"v.com/gpu={','.join(ids)}" for name, ids in files.items()}
    directories = tree(root, {**content, "b/bad.yaml": "kind: 5"})
    cache = Cache.load(directories)
    reply = oracle.ask("list", dirs=[str(path) for path in directories])
    assert tuple(reply.get("devices") or ()) == cache.names()
    clashing = {str(path) for conflict in cache.conflicts() for path in conflict.paths}
    broken = {str(path) for path in cache.errors}
    assert set(reply["errors"]) == clashing | broken


def normal(oci):
    """Drop what Go leaves out or adds when it writes JSON: empty values, nulls, default fields."""
    if isinstance(oci, dict):
        kept = {key: normal(value) for key, value in oci.items()}
        return {
            key: value
            for key, value in kept.items()
            if value not in (None, "", [], {}) and not (value in (0, False) and key != "allow")
        }
    return [normal(value) for value in oci] if isinstance(oci, list) else oci


def with_nodes(spec):
    """Return the spec with device nodes that can be made: given in full, or the host's null."""

    def possible(edits):
        return replace(
            edits,
            device_nodes=tuple(
                replace(node, host_path="/dev/null", type="", major=None)
                if i % 2
                else replace(node, type=node.type or "c", major=node.major or 5)
                for i, node in enumerate(edits.device_nodes)
            ),
        )

    devices = tuple(
        replace(device, container_edits=possible(device.container_edits)) for device in spec.devices
    )
    return with_minimum_version(
        replace(spec, devices=devices, container_edits=possible(spec.container_edits))
    )


SPECS = specs() | specs().map(with_nodes) | specs().map(with_nodes)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(OCI, st.lists(SPECS, min_size=1, max_size=2, unique_by=lambda spec: spec.kind), st.data())
def test_injection(oracle, tmp_path_factory, oci, given_specs, data):
    root = tmp_path_factory.mktemp("inject")
    directories = tree(root, {f"a/{i}.yaml": spec for i, spec in enumerate(given_specs)})
    names = data.draw(st.permutations(Cache.load(directories).names()))[:3]
    # The one intended difference: we replace every mount and device of a path, not only the first.
    oci = copy.deepcopy(oci)
    for holder, key in ((oci, "mounts"), (oci.get("linux", {}), "devices")):
        if key in holder:
            holder[key] = list({json.dumps(entry): entry for entry in holder[key]}.values())
    theirs = oracle.ask("inject", dirs=[str(path) for path in directories], devices=names, oci=oci)
    cache = Cache.load(directories)
    event("injected" if not theirs["error"] else "refused")
    if theirs["error"]:
        with pytest.raises(CdiError):
            cache.inject(oci, names)
    else:
        assert normal(cache.inject(oci, names)) == normal(theirs["oci"])


def test_an_unresolvable_name_has_the_same_message(oracle, tmp_path):
    directories = tree(tmp_path, {"a/1.yaml": "v.com/gpu=0"})
    names = ["v.com/gpu=0", "v.com/gpu=1", "x"]
    theirs = oracle.ask("inject", dirs=[str(path) for path in directories], devices=names, oci={})
    with pytest.raises(CdiError) as info:
        Cache.load(directories).edits(names)
    assert str(info.value) == theirs["error"] == "unresolvable CDI devices v.com/gpu=1, x"


def test_the_oracle_is_built_from_the_version_the_tests_were_written_for():
    text = (Path(__file__).parent / "oracle" / "go.mod").read_text()
    assert "tags.cncf.io/container-device-interface v1.1.1\n" in text
