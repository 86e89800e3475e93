"""Inventories: what loads, what is refused and where, and the round trip."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi.errors import CdiUsageError
from cdi.generate import generate
from cdi.inventory import (
    TYPES,
    Accelerator,
    Driver,
    HostFile,
    Inventory,
    Link,
    Node,
    NodeType,
    Partition,
    PartitionType,
    Vendor,
)
from cdi.inventory_load import (
    InvalidInventoryError,
    inventory_from_json,
    load_inventory,
    to_yaml,
)
from cdi.inventory_quantity import MAX_BYTES, format_quantity, parse_quantity

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "inventories").glob("*.yaml"))
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "schemas" / "inventory.schema.json").read_text())
)
GOOD = {
    "node": "gpu-01",
    "driver": {
        "version": "580.95.05",
        "root": "/run/nvidia/driver",
        "nodes": ["/dev/nvidia-uvm", {"path": "/dev/nvidiactl", "major": 195, "minor": 255}],
        "libraries": ["/usr/lib64/libcuda.so.580.95.05", {"path": "/a", "container": "/b"}],
        "links": [{"target": "libcuda.so.1", "path": "/usr/lib64/libcuda.so"}],
        "hook": "/usr/bin/nvidia-cdi-hook",
    },
    "devices": [
        {
            "vendor": "nvidia",
            "index": 0,
            "uuid": "GPU-1",
            "memory": "141Gi",
            "pci": "00000000:17:00.0",
            "numa": 1,
            "major": 195,
            "minor": 0,
            "card": 1,
            "render": 128,
            "attributes": {"architecture": "Hopper", "links": 18, "coherent": False},
        },
        {
            "vendor": "nvidia",
            "index": 1,
            "partitions": [
                {"type": "mig", "index": 0, "gi": 1, "ci": 0, "giMinor": 3, "ciMinor": 4},
                {"type": "mig", "index": 1, "gi": 2, "ci": 0, "nodes": ["/dev/nvidia-caps/x"]},
            ],
        },
    ],
}


def faults_of(value):
    with pytest.raises(InvalidInventoryError) as caught:
        inventory_from_json(value)
    return [str(fault) for fault in caught.value.faults]


def changed(path, value):
    """Return the good inventory with one field replaced, or removed when the value is ``...``."""
    document = copy.deepcopy(GOOD)
    *steps, last = path
    target = document
    for step in steps:
        target = target[step]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return document


DEVICE = ("devices", 0)
PART = ("devices", 1, "partitions", 0)
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


# -- properties -------------------------------------------------------------------------------------

# What json.dumps writes as runtimes and this package's parser want it: no pair of surrogates, no DEL.
texts = st.text(
    st.characters(max_codepoint=0xFFFF, exclude_categories=("Cs",), exclude_characters="\x7f"),
    max_size=12,
)
words = st.text("abcDEF019-_.", min_size=1, max_size=8)
paths = words.map(lambda word: f"/dev/{word}").filter(lambda path: ".." not in path.split("/"))
numbers = st.integers(0, 4095)
pairs = st.none() | st.tuples(numbers, numbers)


@st.composite
def node_values(draw):
    pair = draw(pairs) or (None, None)
    return Node(
        path=draw(paths),
        container=draw(st.just("") | paths),
        type=draw(st.sampled_from(NodeType)),
        major=pair[0],
        minor=pair[1],
        mode=draw(st.none() | st.integers(0, 0o7777)),
        uid=draw(st.none() | numbers),
        gid=draw(st.none() | numbers),
    )


@st.composite
def partition_values(draw, index):
    cap = draw(pairs)
    return Partition(
        type=PartitionType.MIG,
        index=index,
        profile=draw(texts),
        memory=draw(st.none() | st.integers(0, MAX_BYTES)),
        gi=draw(numbers),
        ci=draw(numbers),
        gi_minor=cap and cap[0],
        ci_minor=cap and cap[1],
        nodes=tuple(draw(st.lists(node_values(), min_size=0 if cap else 1, max_size=2))),
    )


@st.composite
def inventory_values(draw):
    vendors = draw(st.lists(st.sampled_from(Vendor), min_size=1, max_size=4))
    devices = []
    for index, vendor in enumerate(vendors):
        pair = draw(pairs) or (None, None)
        parts = None
        if vendor is Vendor.NVIDIA and draw(st.booleans()):
            parts = tuple(draw(partition_values(i)) for i in range(draw(st.integers(0, 2))))
        devices.append(
            Accelerator(
                vendor=vendor,
                type=TYPES[vendor][-1],
                index=index,
                product=draw(texts),
                memory=draw(st.none() | st.integers(0, MAX_BYTES)),
                major=pair[0],
                minor=pair[1],
                nodes=tuple(draw(st.lists(node_values(), max_size=2))),
                partitions=parts,
                attributes=draw(
                    st.dictionaries(texts, texts | st.booleans() | numbers, max_size=2)
                ),
            )
        )
    files = st.lists(st.builds(HostFile, path=paths, container=st.just("") | paths), max_size=2)
    drivers = {
        vendor: Driver(
            version=draw(texts),
            root=draw(st.sampled_from(["/", "/run/driver"])),
            nodes=tuple(draw(st.lists(node_values(), max_size=2))),
            libraries=tuple(draw(files)),
            sockets=tuple(draw(files)),
            links=tuple(draw(st.lists(st.builds(Link, target=words, path=paths), max_size=2))),
        )
        for vendor in draw(st.sets(st.sampled_from(vendors)))
    }
    return Inventory(node=draw(texts), drivers=drivers, devices=tuple(devices))


@given(inventory_values())
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_yaml_and_json_give_the_inventory_back(inventory):
    assert load_inventory(to_yaml(inventory)) == inventory
    assert load_inventory(json.dumps(inventory.to_json())) == inventory
    assert SCHEMA.is_valid(inventory.to_json())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *((*DEVICE, name) for name in ("vendor", "type", "index", "memory", "pci", "nodes", "major")),
    *((*PART, name) for name in ("type", "index", "gi", "memory", "nodes", "uuid")),
    *(("driver", name) for name in ("version", "root", "nodes", "links", "hook", "configs")),
    ("devices", 0, "attributes"),
    ("devices", 1, "partitions"),
    ("devices",),
    ("driver",),
    ("drivers",),
    ("node",),
]


@given(st.sampled_from(FIELDS), json_values)
@settings(max_examples=300, deadline=None)
def test_any_value_anywhere_is_an_inventory_or_an_error_with_paths(path, value):
    document = changed(path, value)
    inventory, faults = outcome(lambda: inventory_from_json(document))
    if inventory is None:
        assert faults
    else:
        assert inventory_from_json(inventory.to_json()) == inventory
        # An amount may fit the schema and be no whole number of bytes, but not the other way round.
        assert SCHEMA.is_valid(document)


@given(st.text(max_size=60) | st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_an_inventory_or_the_packages_own_error(text):
    inventory, faults = outcome(lambda: load_inventory(text))
    assert (inventory is None) == bool(faults)
    assert all("\n" not in str(fault) for fault in faults)


def outcome(load):
    """Return the inventory, or None and the faults; any other error passes through."""
    try:
        return load(), ()
    except InvalidInventoryError as error:
        return None, error.faults
