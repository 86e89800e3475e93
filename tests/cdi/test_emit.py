"""Emitting: fixed order, fixed bytes, and quotes wherever readers would disagree."""

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import given

from cdi.emit import to_json_text, to_yaml, yaml_text
from cdi.parse import parse_spec
from cdi.spec import ContainerEdits, Device, Spec
from tests.cdi.cases import FULL
from tests.cdi.strategies import specs


def named(name):
    device = Device(name=name, container_edits=ContainerEdits(env=("A=1",)))
    return Spec(cdi_version="0.5.0", kind="a.com/gpu", devices=(device,))


EXPECTED = """\
cdiVersion: "1.1.0"
kind: vendor.com/gpu
annotations:
  about: everything
devices:
- name: gpu0
  annotations:
    k: v
  containerEdits:
    env:
    - A=1
    - B=
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/host0
      type: c
      major: 195
      minor: 0
      fileMode: 438
      permissions: rw
      uid: 0
      gid: 44
    netDevices:
    - hostInterfaceName: eth1
      name: net0
    hooks:
    - hookName: createContainer
      path: /usr/bin/hook
      args:
      - hook
      - "-v"
      env:
      - X=y
      timeout: 5
    mounts:
    - hostPath: /usr/lib/a.so
      containerPath: /usr/lib/a.so
      options:
      - ro
      - bind
      type: none
    intelRdt:
      closID: gpu
      l3CacheSchema: L3:0=f
      memBwSchema: MB:0=50
      schemata:
      - L2:0=f
      enableMonitoring: true
    additionalGids:
    - 0
    - 44
    - 4294967295
"""


def test_every_field_in_its_place():
    spec = replace(Spec.from_json(FULL), container_edits=ContainerEdits())
    assert to_yaml(spec) == EXPECTED
    assert json.loads(to_json_text(spec)) == {
        key: value for key, value in FULL.items() if key != "containerEdits"
    }


def test_the_order_of_annotations_does_not_matter():
    one = replace(named("x"), annotations={"b": "1", "a": "2"})
    other = replace(named("x"), annotations={"a": "2", "b": "1"})
    assert to_yaml(one) == to_yaml(other)
    assert to_json_text(one) == to_json_text(other)
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("0", '"0"'),
        ("0:1", '"0:1"'),
        ("1e3", '"1e3"'),
        ("no", '"no"'),
        ("Y", '"Y"'),
        ("null", '"null"'),
        ("gpu0", "gpu0"),
        ("GPU-6d1c", "GPU-6d1c"),
        ("mig0:1", "mig0:1"),
    ],
)
def test_names_are_quoted_where_readers_disagree(name, written):
    assert f"- name: {written}\n" in to_yaml(named(name))


def test_a_node_shared_by_devices_is_written_out_and_not_as_an_alias():
    edits = ContainerEdits(env=("A=1",))
    devices = tuple(Device(name=name, container_edits=edits) for name in ("a", "b"))
    text = to_yaml(replace(named("x"), devices=devices))
    assert text.count("- A=1") == 2
    assert "*" not in text


@pytest.mark.parametrize("key", ["x" * 1000, "x" * 5000, " " * 1100])
def test_a_key_too_long_for_a_plain_one(key):
    spec = replace(named("x"), cdi_version="0.6.0", annotations={"a": "b", key: "v", "z": ""})
    assert parse_spec(to_yaml(spec)) == spec


@given(specs())
def test_yaml_and_json_mean_the_same_to_other_readers(spec):
    assert yaml.safe_load(to_yaml(spec)) == json.loads(to_json_text(spec)) == spec.to_json()


@given(specs())
def test_the_same_spec_gives_the_same_bytes(spec):
    again = Spec.from_json(json.loads(to_json_text(spec)))
    assert to_yaml(again) == to_yaml(spec)
    assert to_json_text(again) == to_json_text(spec)
    assert to_yaml(spec).endswith("\n")


@pytest.mark.parametrize("value", ["no", "", {}, [], 3, {"a": []}, [{"b": {}}, ["c"]]], ids=repr)
def test_any_plain_value_is_one_document(value):
    assert yaml.safe_load(yaml_text(value)) == value
