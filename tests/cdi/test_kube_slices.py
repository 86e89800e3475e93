"""ResourceSlices of inventories: names, attributes, capacity, slices, and CDI names that agree."""

from pathlib import Path

import pytest

from cdi.errors import CdiUsageError
from cdi.generate import ALL, generate
from cdi.inventory import Accelerator, Driver, Inventory, Vendor
from cdi.inventory_load import load_inventory
from cdi.kube._names import is_label
from cdi.kube.classes import NVIDIA_SHARED, class_of_kind
from cdi.kube.slices import MAX_DEVICES, resource_slices, semantic_version

GIB = 1024**3
EXAMPLES = sorted((Path(__file__).parents[2] / "examples/inventories").glob("*.yaml"))


def nvidia(count, **more):
    devices = tuple(
        Accelerator(
            vendor=Vendor.NVIDIA, type="gpu", index=i, memory=80 * GIB, major=195, minor=i, **more
        )
        for i in range(count)
    )
    return Inventory(
        devices=devices, drivers={Vendor.NVIDIA: Driver(version="580.95.05")}, node="n1"
    )


def test_a_gpu():
    inventory = load_inventory("""
node: gpu-01
driver: {version: "580.95.05"}
devices:
- {vendor: nvidia, index: 3, uuid: GPU-6d1c, product: NVIDIA H200, memory: 141Gi,
   pci: "0000:17:00.0", numa: 1, major: 195, minor: 2,
   attributes: {architecture: Hopper, cudaComputeCapability: "9.0", nvlink: true, fans: 0, bad-name: x}}
""")
    (found,) = resource_slices(inventory, generation=7)
    assert found["metadata"]["name"] == "gpu-01-gpu-nvidia-com-0"
    spec = found["spec"]
    assert (spec["driver"], spec["nodeName"]) == ("gpu.nvidia.com", "gpu-01")
    assert spec["pool"] == {"name": "gpu-01", "generation": 7, "resourceSliceCount": 1}
    assert spec["devices"] == [
        {
            "name": "gpu-3",
            "attributes": {
                "architecture": {"string": "Hopper"},
                "cdiDevice": {"string": "nvidia.com/gpu=3"},
                "cudaComputeCapability": {"version": "9.0.0"},
                "driverVersion": {"version": "580.95.5"},
                "fans": {"int": 0},
                "index": {"int": 3},
                "minor": {"int": 2},
                "numaNode": {"int": 1},
                "nvlink": {"bool": True},
                "productName": {"string": "NVIDIA H200"},
                "resource.kubernetes.io/pciBusID": {"string": "0000:17:00.0"},
                "type": {"string": "gpu"},
                "uuid": {"string": "GPU-6d1c"},
            },
            "capacity": {"memory": {"value": str(141 * GIB)}},
        }
    ]


def test_shared_devices_belong_to_hami():
    (found,) = resource_slices(nvidia(1), shared=True)
    assert found["spec"]["driver"] == NVIDIA_SHARED.driver
    (device,) = found["spec"]["devices"]
    assert device["attributes"]["type"] == {"string": NVIDIA_SHARED.type}
    assert device["allowMultipleAllocations"] is True
    assert device["capacity"]["cores"]["value"] == "100"
    policy = device["capacity"]["memory"]["requestPolicy"]
    assert policy["default"] == policy["validRange"]["max"] == str(80 * GIB)
    assert policy["validRange"]["step"] == str(1024**2)


def test_mig_devices():
    path = next(path for path in EXAMPLES if path.name == "nvidia-mig.yaml")
    found = resource_slices(load_inventory(path.read_text()), node="n")
    devices = [d for s in found for d in s["spec"]["devices"]]
    mig = [d for d in devices if d["attributes"]["type"] == {"string": "mig"}]
    assert mig
    for device in mig:
        assert device["name"].startswith("gpu-")
        assert "-mig-" in device["name"]
        assert device["attributes"]["profile"]["string"]
        assert ":" in device["attributes"]["cdiDevice"]["string"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_cdi_names_are_those_of_the_specs(path):
    inventory = load_inventory(path.read_text())
    named = {
        spec.qualified(device.name)
        for spec in generate(inventory).specs
        for device in spec.devices
        if device.name != ALL
    }
    slices = resource_slices(inventory, node="n1")
    devices = [d for s in slices for d in s["spec"]["devices"]]
    assert {d["attributes"]["cdiDevice"]["string"] for d in devices} == named
    for one in slices:
        names = [d["name"] for d in one["spec"]["devices"]]
        assert len(set(names)) == len(names)
        assert all(is_label(name) for name in names)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (128, [128]), (129, [128, 1]), (300, [128, 128, 44])]
)
def test_slices_hold_128_devices(count, sizes):
    found = resource_slices(nvidia(count))
    assert [len(s["spec"]["devices"]) for s in found] == sizes
    assert {s["spec"]["pool"]["resourceSliceCount"] for s in found} == {len(sizes)}
    assert len({s["metadata"]["name"] for s in found}) == len(sizes)
    assert max(sizes) <= MAX_DEVICES


def test_each_driver_has_a_pool():
    path = next(path for path in EXAMPLES if path.name == "mixed-nvidia-amd.yaml")
    found = resource_slices(load_inventory(path.read_text()), node="n1")
    assert [s["spec"]["driver"] for s in found] == ["gpu.amd.com", "gpu.nvidia.com"]


def test_values_that_the_api_does_not_take_are_left_out():
    (found,) = resource_slices(nvidia(1, product="x" * 65, uuid="GPU-1"))
    attributes = found["spec"]["devices"][0]["attributes"]
    assert "productName" not in attributes
    many = {f"a{i}": i for i in range(60)}
    (found,) = resource_slices(nvidia(1, attributes=many))
    device = found["spec"]["devices"][0]
    assert len(device["attributes"]) + len(device["capacity"]) <= 32


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("580.95.05", "580.95.5"),
        ("6.12.12", "6.12.12"),
        ("25", "25.0.0"),
        ("v1.2", "1.2.0"),
        ("24.1.rc2", ""),
        ("", ""),
    ],
)
def test_versions(text, version):
    assert semantic_version(text) == version


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--node"),
        ({"node": "Node 1"}, "no DNS name"),
        ({"node": "n", "generation": -1}, "generation"),
    ],
)
def test_what_is_refused(options, words):
    inventory = Inventory(devices=nvidia(1).devices)
    with pytest.raises(CdiUsageError, match=words):
        resource_slices(inventory, **options)


def test_classes_of_kinds():
    assert class_of_kind("hygon.com/dcu").name == "dcu.hygon.com"
    with pytest.raises(CdiUsageError):
        class_of_kind("no kind")
