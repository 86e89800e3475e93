"""A full inventory to change, its schema, and inventories made up by Hypothesis."""

import copy
import json
from pathlib import Path

import jsonschema
from hypothesis import strategies as st

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
from cdi.inventory_quantity import MAX_BYTES

ROOT = Path(__file__).parents[2]
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
