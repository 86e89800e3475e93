"""Inventories: what loads, what is refused and where, and the round trip."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.errors import CdiUsageError
from cdi.generate import generate
from cdi.inventory import (
    TYPES,
    Accelerator,
    Driver,
    Node,
    Vendor,
)
from cdi.inventory_load import (
    InvalidInventoryError,
    inventory_from_json,
    load_inventory,
    to_yaml,
)
from cdi.inventory_quantity import MAX_BYTES, format_quantity, parse_quantity
from tests.cdi.inventories import DEVICE, GOOD, PART, SCHEMA, changed

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "inventories").glob("*.yaml"))


def faults_of(value):
    with pytest.raises(InvalidInventoryError) as caught:
        inventory_from_json(value)
    return [str(fault) for fault in caught.value.faults]


BAD = [
    (("devices",), ..., "devices: is required"),
    (("devices",), [], "devices: is empty; an inventory names at least one device"),
    (("devices",), {}, "devices: is an object, not an array"),
    (("devices", 0), "gpu", "devices[0]: is a string, not an object"),
    (("extra",), 1, "extra: is not a known field"),
    ((*DEVICE, "vendor"), ..., "devices[0].vendor: is required"),
    (
        (*DEVICE, "vendor"),
        "matrox",
        (
            "devices[0].vendor: 'matrox' is not one of nvidia, amd, intel, ascend, cambricon, hygon, "
            "iluvatar, biren, enflame, metax, mthreads, kunlunxin, vastai"
        ),
    ),
    ((*DEVICE, "vendor"), "", "devices[0].vendor: is empty; leave it out where it is not known"),
    ((*DEVICE, "index"), ..., "devices[0].index: is required"),
    ((*DEVICE, "index"), -1, "devices[0].index: is outside 0 to 16777216"),
    ((*DEVICE, "index"), "0", "devices[0].index: is a string, not a whole number"),
    ((*DEVICE, "index"), 1, "devices[1].index: 1 is already that of devices[0]"),
    (
        (*DEVICE, "type"),
        "npu",
        "devices[0].type: 'npu' is no type of nvidia; it has gpu or imex-channel",
    ),
    ((*DEVICE, "uuid"), 7, "devices[0].uuid: is a number, not a string; quote it"),
    (
        (*DEVICE, "memory"),
        "141 Gi",
        "devices[0].memory: '141 Gi' is no amount of memory; write it like 141Gi or 80G",
    ),
    ((*DEVICE, "memory"), True, "devices[0].memory: is a boolean, not a whole number"),
    (
        (*DEVICE, "pci"),
        "17:00.0",
        "devices[0].pci: '17:00.0' is no PCI address; write it like 0000:17:00.0",
    ),
    ((*DEVICE, "minor"), ..., "devices[0].minor: is required with major"),
    ((*DEVICE, "major"), 4096, "devices[0].major: is outside 0 to 4095"),
    ((*DEVICE, "colour"), "red", "devices[0].colour: is not a known field"),
    ((*DEVICE, "attributes"), {"a": []}, "devices[0].attributes.a: is an array, not a string"),
    (
        (*DEVICE, "nodes"),
        ["dev/nvidia0"],
        "devices[0].nodes[0].path: 'dev/nvidia0' is not an absolute path without '..'",
    ),
    (
        (*DEVICE, "nodes"),
        ["/dev/../etc/shadow"],
        "devices[0].nodes[0].path: '/dev/../etc/shadow' is not an absolute path without '..'",
    ),
    (
        (*DEVICE, "nodes"),
        [{"path": "/dev/a", "major": 1}],
        "devices[0].nodes[0]: has only one of major and minor; a node needs both or neither",
    ),
    (
        (*DEVICE, "nodes"),
        [{"path": "/dev/a", "mode": 438}],
        "devices[0].nodes[0].mode: is a number, not a string; quote it",
    ),
    (
        (*DEVICE, "nodes"),
        [{"path": "/dev/a", "mode": "rw"}],
        "devices[0].nodes[0].mode: 'rw' is no octal mode; write it like \"0666\"",
    ),
    (
        (*DEVICE, "nodes"),
        [{"path": "/dev/a", "type": "p"}],
        "devices[0].nodes[0].type: 'p' is not one of c, b",
    ),
    ((*PART, "gi"), ..., "devices[1].partitions[0].gi: is required for a MIG device"),
    (
        (*PART, "ciMinor"),
        ...,
        (
            "devices[1].partitions[0].ciMinor: is required unless nodes are named; "
            "/proc/driver/nvidia-caps/mig-minors of the node has it"
        ),
    ),
    (
        (*PART, "index"),
        1,
        "devices[1].partitions[1].index: 1 is already that of devices[1].partitions[0]",
    ),
    (
        (*PART, "type"),
        "vnpu",
        "devices[1].partitions[0].gi: belongs to MIG devices, not to vnpu",
    ),
    (
        ("devices", 1, "partitions"),
        [{"type": "vnpu", "index": 100}],
        "devices[1].partitions[0].type: is vnpu, but nvidia has mig",
    ),
    (
        ("driver", "libraries"),
        ["libcuda.so"],
        "driver.libraries[0].path: 'libcuda.so' is not an absolute path without '..'",
    ),
    (("driver", "links"), [{"path": "/a"}], "driver.links[0].target: is required"),
    (
        ("drivers",),
        {"nvidia": {}},
        "driver: stands beside drivers; write one of the two",
    ),
    (
        ("drivers",),
        {"matrox": {}},
        (
            "drivers.matrox: is not a vendor; they are nvidia, amd, intel, "
            "ascend, cambricon, hygon, iluvatar, biren, enflame, metax, mthreads, kunlunxin, vastai"
        ),
    ),
]
# What the schema cannot say, by the start of the fault's reason.
ONLY_CODE = ("is already that of",)


class TestFaults:
    @pytest.mark.parametrize(
        ("path", "value", "fault"), BAD, ids=[f"{i}-{case[0][-1]}" for i, case in enumerate(BAD)]
    )
    def test_each_is_found_at_its_place(self, path, value, fault):
        document = changed(path, value)
        assert fault in faults_of(document)
        if not any(reason in fault for reason in ONLY_CODE):
            assert not SCHEMA.is_valid(document), "the schema accepts it"

    def test_all_are_found_at_once(self):
        document = changed(("devices", 0, "index"), "0")
        document["driver"]["hook"] = 1
        assert len(faults_of(document)) == 2

    def test_one_driver_for_two_vendors_is_ambiguous(self):
        document = changed(("devices", 1), {"vendor": "amd", "index": 0})
        assert faults_of(document) == [
            "driver: is ambiguous for devices of amd, nvidia; write drivers with a field for each"
        ]

    def test_the_same_uuid_or_address_twice(self):
        document = changed(("devices", 1, "uuid"), "GPU-1")
        document["devices"][1] |= {"pci": "0000:17:00.0", "render": 128}
        assert faults_of(document) == [
            "devices[1].uuid: GPU-1 is already that of devices[0]",
            "devices[1].pci: 0000:17:00.0 is already that of devices[0]",
        ]

    def test_the_source_is_named(self):
        with pytest.raises(InvalidInventoryError, match=r"^gpu\.yaml: devices: is required$"):
            load_inventory("node: a", source="gpu.yaml")

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "is empty"),
            ("devices: []\ndevices: []", "devices: is given twice"),
            ("{", "line 1, column 2: Expecting property name enclosed in double quotes"),
            ("devices: 1\n---\ndevices: 2", "a second YAML document"),
        ],
    )
    def test_malformed_text(self, text, fault):
        with pytest.raises(InvalidInventoryError) as caught:
            load_inventory(text)
        assert fault in str(caught.value)


class TestGood:
    def test_the_smallest(self):
        inventory = load_inventory(
            'driver: {version: "580.95.05"}\n'
            "devices:\n"
            "  - {vendor: nvidia, index: 0, uuid: GPU-6d1c…, product: NVIDIA H200, memory: 141Gi, "
            'pci: "0000:17:00.0", major: 195, minor: 0}\n'
        )
        (device,) = inventory.devices
        assert device == Accelerator(
            vendor=Vendor.NVIDIA,
            type="gpu",
            index=0,
            uuid="GPU-6d1c…",
            product="NVIDIA H200",
            memory=141 * 2**30,
            pci="0000:17:00.0",
            major=195,
            minor=0,
        )
        assert inventory.driver(Vendor.NVIDIA).version == "580.95.05"
        assert inventory.driver(Vendor.AMD) == Driver()

    def test_the_full_one(self):
        inventory = inventory_from_json(GOOD)
        assert SCHEMA.is_valid(GOOD)
        assert inventory.node == "gpu-01"
        assert inventory.devices[0].pci == "0000:17:00.0", "NVML's long domain is shortened"
        assert inventory.devices[0].partitions is None
        assert inventory.devices[1].partitions[1].nodes == (Node(path="/dev/nvidia-caps/x"),)
        assert inventory.devices[0].attributes == {
            "architecture": "Hopper",
            "links": 18,
            "coherent": False,
        }
        driver = inventory.driver(Vendor.NVIDIA)
        assert driver.in_container("/run/nvidia/driver/usr/bin/nvidia-smi") == "/usr/bin/nvidia-smi"
        assert driver.in_container("/run/nvidia/drivers/x") == "/run/nvidia/drivers/x"

    def test_partitions_none_and_empty_differ(self):
        text = "devices: [{vendor: nvidia, index: 0, partitions: []}, {vendor: nvidia, index: 1}]"
        first, second = load_inventory(text).devices
        assert (first.partitions, second.partitions) == ((), None)

    def test_json_text(self):
        assert load_inventory(json.dumps(GOOD)) == inventory_from_json(GOOD)

    @pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
    def test_examples_load_generate_and_fit_the_schema(self, path):
        inventory = load_inventory(path.read_bytes(), source=path.name)
        assert SCHEMA.is_valid(inventory.to_json())
        assert load_inventory(to_yaml(inventory)) == inventory
        generated = generate(inventory)  # raises when a spec is not valid
        kinds = {(device.vendor, device.type) for device in inventory.devices}
        assert len(generated.specs) == len(kinds)

    def test_there_is_an_example_for_each_vendor_and_type(self):
        shown = {
            (device.vendor, device.type)
            for path in EXAMPLES
            for device in load_inventory(path.read_bytes()).devices
        }
        assert shown == {(vendor, type_) for vendor in Vendor for type_ in TYPES[vendor]}
        assert sum(len(load_inventory(p.read_bytes()).vendors) > 1 for p in EXAMPLES) >= 2


class TestQuantity:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("0", 0),
            ("1024", 1024),
            ("141Gi", 141 * 2**30),
            ("80G", 80 * 10**9),
            ("1.5Ti", 3 * 2**39),
            ("16384Mi", 2**34),
            ("12k", 12000),
            ("9223372036854775807", MAX_BYTES),
        ],
    )
    def test_good(self, text, number):
        assert parse_quantity(text) == number

    @pytest.mark.parametrize(
        "text",
        ["", "Gi", "-1", "1GB", "1gi", "1e3", "0.5", "8Ei", "9" * 40, "8192Pi", "1 G", "٣Gi"],
    )
    def test_bad(self, text):
        with pytest.raises(CdiUsageError):
            parse_quantity(text)

    @given(st.integers(0, MAX_BYTES))
    def test_round_trip(self, number):
        assert parse_quantity(format_quantity(number)) == number
