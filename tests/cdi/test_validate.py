"""Code and JSON Schema agree on every case; every fault is found at its path."""

import dataclasses
import json
import math
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.errors import Fault, InvalidSpecError
from cdi.spec import ContainerEdits, Device, DeviceNode, Spec
from cdi.validate import check, require_valid, validate
from tests.cdi.cases import BAD, CODE_ONLY, FULL, GOOD
from tests.cdi.strategies import damaged_specs, specs

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "schemas" / "cdi-1.1.0.schema.json").read_text())
BY_SCHEMA = jsonschema.Draft202012Validator(SCHEMA)


def by_id(cases):
    return [pytest.param(case, id=case.id) for case in cases]


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_table_is_large_and_its_names_are_unique():
    names = [case.id for case in GOOD + BAD]
    assert len(names) >= 250
    assert len(names) == len(set(names))
    assert sum(CODE_ONLY in case.marks for case in BAD) <= 6


@pytest.mark.parametrize("case", by_id(GOOD))
def test_good_cases_are_good_for_code_and_schema(case):
    assert check(case.value) == ()
    assert BY_SCHEMA.is_valid(case.value)


@pytest.mark.parametrize("case", by_id(BAD))
def test_bad_cases_have_exactly_these_faults(case):
    assert tuple(fault.path for fault in check(case.value)) == case.faults


@pytest.mark.parametrize("case", by_id(BAD))
def test_the_schema_refuses_what_the_code_refuses(case):
    assert BY_SCHEMA.is_valid(case.value) == (CODE_ONLY in case.marks)


def test_the_schema_knows_every_field_and_no_other():
    def fields(name):
        return set(SCHEMA["$defs"][name]["properties"])

    edits = FULL["containerEdits"]
    assert set(SCHEMA["properties"]) == set(FULL)
    assert fields("device") == set(FULL["devices"][0])
    assert fields("containerEdits") == set(edits)
    assert fields("intelRdt") == set(edits["intelRdt"])
    for name, array in (
        ("deviceNode", "deviceNodes"),
        ("netDevice", "netDevices"),
        ("hook", "hooks"),
        ("mount", "mounts"),
    ):
        assert fields(name) == set(edits[array][0])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param({}, "cdiVersion: is required", id="missing"),
        pytest.param(
            {"cdiVersion": 1}, "cdiVersion: is a number, not a string; quote it", id="type"
        ),
        pytest.param(
            {"deviceNodes": [{"path": "/a", "major": 1.5}]},
            "containerEdits.deviceNodes[0].major: is a fraction, not a whole number",
            id="fraction",
        ),
        pytest.param(
            {"additionalGIDs": []},
            "containerEdits.additionalGIDs: is not a known field; did you mean additionalGids?",
            id="near-miss",
        ),
        pytest.param(
            {"intelRdt": {"schemata": []}},
            "cdiVersion: is 0.5.0, but containerEdits.intelRdt.schemata (schemata and monitoring) "
            "needs 1.1.0",
            id="version",
        ),
        pytest.param(
            {"hooks": [{"hookName": "x" * 90, "path": "/a"}]},
            f"containerEdits.hooks[0].hookName: invalid hook name '{'x' * 60}\\u2026'; known are "
            "prestart, createRuntime, createContainer, startContainer, poststart, poststop",
            id="long-value-is-cut",
        ),
    ],
)
def test_messages_say_what_and_where(value, message):
    if value and "cdiVersion" not in value:
        value = {"cdiVersion": "0.5.0", "containerEdits": value}
    assert message in [str(fault) for fault in check(value)]


def test_faults_come_in_document_order_with_indexes_as_numbers():
    devices = [{"name": "-", "containerEdits": {"env": ["A=1"]}} for _ in range(12)]
    found = check({"cdiVersion": "0.5.0", "kind": "a.com/b", "devices": devices})
    assert [f.path for f in found if f.reason.startswith("invalid")] == [
        f"devices[{i}].name" for i in range(12)
    ]


def test_a_rule_is_silent_where_the_shape_is_already_wrong():
    value = {"cdiVersion": 1, "kind": [], "devices": [{"name": 0, "containerEdits": 7}, "x", None]}
    assert [f.path for f in check(value)] == [
        "cdiVersion",
        "devices[0].containerEdits",
        "devices[0].name",
        "devices[1]",
        "devices[2]",
        "kind",
    ]


def test_specs_built_from_types_are_checked_just_as_strictly():
    node = DeviceNode(path="", uid=-1)
    spec = Spec(
        cdi_version="0.3.0",
        kind="a.com/b",
        devices=(Device(name="x", container_edits=ContainerEdits(device_nodes=(node,))),),
    )
    assert validate(spec) == (
        Fault(path="devices[0].containerEdits.deviceNodes[0].path", reason="is empty"),
        Fault(
            path="devices[0].containerEdits.deviceNodes[0].uid",
            reason="is outside 0 to 4294967295",
        ),
    )
    with pytest.raises(InvalidSpecError, match=r"^a\.yaml: devices.*\(and 1 more fault\)$") as info:
        require_valid(spec, source="a.yaml")
    assert info.value.exit_code == 5
    assert len(info.value.faults) == 2


def test_a_valid_spec_passes():
    spec = Spec.from_json(FULL)
    assert validate(spec) == ()
    require_valid(spec)
    assert validate(dataclasses.replace(spec, kind="a"))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_check_never_raises_on_any_json_value(value):
    faults = check(value)
    assert faults
    assert all(fault.reason for fault in faults)


def _finite(value):
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True


@given(damaged_specs())
def test_code_and_schema_agree_on_damaged_specs(value):
    faults = check(value)
    said_by_code_only = [
        fault
        for fault in faults
        if any(word in fault.reason for word in ("unique", " too", "4095 bytes", "surrogate"))
    ]
    if said_by_code_only or not _finite(value):
        assert faults
    else:
        assert BY_SCHEMA.is_valid(value) == (not faults)


@given(specs())
def test_generated_specs_are_valid_for_code_and_schema(spec):
    assert validate(spec) == ()
    assert BY_SCHEMA.is_valid(spec.to_json())
