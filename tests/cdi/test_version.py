"""The minimum version: each feature needs its own, and the newest decides."""

from dataclasses import replace

import pytest
from hypothesis import given

from cdi.spec import (
    ContainerEdits,
    Device,
    DeviceNode,
    Hook,
    IntelRdt,
    Mount,
    NetDevice,
    Spec,
)
from cdi.validate import validate
from cdi.version import VERSIONS, is_known, minimum_version, older, with_minimum_version
from tests.cdi.strategies import specs

PLAIN = ContainerEdits(env=("A=1",))
SPEC = Spec(
    cdi_version="0.3.0", kind="a.com/gpu", devices=(Device(name="x", container_edits=PLAIN),)
)


def edited(**fields):
    return {"container_edits": ContainerEdits(**fields)}


@pytest.mark.parametrize(
    ("changes", "version", "path"),
    [
        pytest.param({}, "0.3.0", "", id="nothing"),
        pytest.param(
            edited(hooks=(Hook(hook_name="poststop", path="/a", timeout=1),)),
            "0.3.0",
            "",
            id="hook",
        ),
        pytest.param(
            edited(mounts=(Mount(host_path="/a", container_path="/b"),)), "0.3.0", "", id="mount"
        ),
        pytest.param(
            edited(mounts=(Mount(host_path="/a", container_path="/b", type="none"),)),
            "0.4.0",
            "containerEdits.mounts[0].type",
            id="mount-type",
        ),
        pytest.param(
            edited(device_nodes=(DeviceNode(path="/a"), DeviceNode(path="/a", host_path="/a"))),
            "0.5.0",
            "containerEdits.deviceNodes[1].hostPath",
            id="host-path",
        ),
        pytest.param(
            {"devices": (*SPEC.devices, Device(name="0", container_edits=PLAIN))},
            "0.5.0",
            "devices[1].name",
            id="digit",
        ),
        pytest.param({"kind": "a.com/g.pu"}, "0.6.0", "kind", id="dotted-class"),
        pytest.param({"annotations": {"a": "b"}}, "0.6.0", "annotations", id="annotations"),
        pytest.param(
            {"devices": (Device(name="x", container_edits=PLAIN, annotations={"a": "b"}),)},
            "0.6.0",
            "devices[0].annotations",
            id="device-annotations",
        ),
        pytest.param(
            edited(additional_gids=(0,)), "0.7.0", "containerEdits.additionalGids", id="gids"
        ),
        pytest.param(edited(intel_rdt=IntelRdt()), "0.7.0", "containerEdits.intelRdt", id="rdt"),
        pytest.param(
            {"devices": (Device(name="0", container_edits=ContainerEdits(intel_rdt=IntelRdt())),)},
            "0.7.0",
            "devices[0].containerEdits.intelRdt",
            id="newest-decides",
        ),
        pytest.param(
            edited(intel_rdt=IntelRdt(schemata=())),
            "1.1.0",
            "containerEdits.intelRdt.schemata",
            id="schemata",
        ),
        pytest.param(
            edited(intel_rdt=IntelRdt(enable_monitoring=True)),
            "1.1.0",
            "containerEdits.intelRdt.enableMonitoring",
            id="monitoring",
        ),
        pytest.param(
            edited(net_devices=(NetDevice(host_interface_name="a", name="b"),)),
            "1.1.0",
            "containerEdits.netDevices",
            id="net-devices",
        ),
    ],
)
def test_each_feature_needs_its_version(changes, version, path):
    found = minimum_version(replace(SPEC, **changes))
    assert (found.version, found.path) == (version, path)


@given(specs())
def test_the_minimum_version_is_valid_and_nothing_older_is(spec):
    least = with_minimum_version(spec)
    assert validate(least) == ()
    for version in VERSIONS:
        if older(version, least.cdi_version):
            assert [f.path for f in validate(replace(spec, cdi_version=version))] == ["cdiVersion"]


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("0.3.0", True),
        ("v1.1.0", True),
        ("0.2.0", False),
        ("1.2.0", False),
        ("vv1.1.0", False),
        ("", False),
    ],
)
def test_known_versions(version, known):
    assert is_known(version) is known
