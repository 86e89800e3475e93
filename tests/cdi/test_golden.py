"""Recorded machines become the specs that the vendors' own generators describe."""

from pathlib import Path

import pytest

from cdi.diff import compare
from cdi.emit import to_json_text, to_yaml
from cdi.generate import GenerateOptions, NameStrategy, generate
from cdi.inventory import Vendor
from cdi.inventory_discover import discover
from cdi.inventory_load import load_inventory
from cdi.inventory_load import to_yaml as inventory_to_yaml
from cdi.parse import parse_spec
from tests.cdi.machines import nvidia, others
from tests.cdi.machines.build import build

GOLDEN = Path(__file__).parent / "golden"
UUID = GenerateOptions(names=(NameStrategy.UUID,), with_all=False)
NO_ALL = GenerateOptions(with_all=False)

CASES = [
    pytest.param("nvidia-full", nvidia.TWO_H200, "/", GenerateOptions(), id="nvidia-full"),
    pytest.param("nvidia-mig", nvidia.MIG, "/", GenerateOptions(), id="nvidia-mig"),
    pytest.param("nvidia-driver-root", nvidia.DRIVER_ROOT, nvidia.ROOT, NO_ALL, id="driver-root"),
    pytest.param("amd", others.TWO_MI300X, "/", GenerateOptions(), id="amd"),
    pytest.param("intel-gpu", others.FLEX, "/", UUID, id="intel-gpu"),
    pytest.param("intel-gaudi", others.TWO_GAUDI2, "/", UUID, id="intel-gaudi"),
    pytest.param("ascend", others.VNPU, "/", NO_ALL, id="ascend"),
]


@pytest.mark.parametrize(("name", "machine", "driver_root", "options"), CASES)
class TestGolden:
    def test_discovered(self, tmp_path, name, machine, driver_root, options):
        found = discover(build(tmp_path, machine), driver_root=driver_root)
        (spec,) = generate(found.inventory, options).specs
        golden = parse_spec((GOLDEN / f"{name}.yaml").read_bytes())
        assert compare(golden, spec) == ()
        assert to_yaml(spec) == to_yaml(golden)

    def test_declared_gives_the_same_bytes(self, tmp_path, name, machine, driver_root, options):
        """The inventory of a machine, written to a file and read, needs no machine."""
        found = discover(build(tmp_path, machine), driver_root=driver_root, node="n1").inventory
        declared = load_inventory(inventory_to_yaml(found))
        assert declared == found
        texts = {
            to_json_text(generate(inventory, options).specs[0])
            for inventory in (found, declared, declared)
        }
        assert len(texts) == 1


def test_the_official_generator_agrees(tmp_path):
    """nvidia-ctk's library, run over this tree, gives these nodes, mounts, variables and links.

    Its two hooks that only nvidia-cdi-hook 1.20 knows are the difference: an older one would fail
    on them, and containers with it.
    """
    root = build(tmp_path, nvidia.ORACLE)
    (spec,) = generate(discover(root, vendors=[Vendor.NVIDIA]).inventory, NO_ALL).specs
    official = parse_spec((GOLDEN / "nvidia-ctk-1.20.1.yaml").read_bytes())
    ours, theirs = spec.container_edits, official.container_edits
    assert ours.env == theirs.env
    assert ours.mounts == theirs.mounts
    assert [node.path for node in ours.device_nodes] == [n.path for n in theirs.device_nodes]
    assert _numbers(ours) == _numbers(theirs)
    assert [_numbers(device.container_edits) for device in spec.devices] == [
        _numbers(device.container_edits) for device in official.devices
    ]
    assert [device.name for device in spec.devices] == [d.name for d in official.devices]
    missing = _commands(theirs) - _commands(ours)
    assert missing == {"update-application-profile"}
    assert _commands(ours) <= _commands(theirs)
    assert _links(ours) == _links(theirs)


def _numbers(edits):
    return [(n.path, n.major, n.minor or 0, n.file_mode, n.permissions) for n in edits.device_nodes]


def _commands(edits):
    return {hook.args[1] for hook in edits.hooks}


def _links(edits):
    return {arg for hook in edits.hooks for arg in hook.args if "::" in arg}
