"""A recorded machine is discovered as the machine is, and tells nobody whose it was."""

from pathlib import Path

import pytest

from cdi.discovery.record import Scrubber
from cdi.discovery.tree import Tree
from cdi.errors import CdiUsageError
from cdi.inventory_discover import discover, record_machine
from tests.cdi.machines import nvidia, others
from tests.cdi.machines.build import Machine, build
from tests.cdi.test_generate import MACHINES

MODULES = {"nvidia": nvidia, "others": others}


def keep(data):
    return data


@pytest.mark.parametrize(("module", "name"), MACHINES, ids=[name for _, name in MACHINES])
def test_the_copy_is_discovered_as_the_machine_is(tmp_path, module, name):
    root = build(tmp_path / "machine", getattr(MODULES[module], name))
    driver_root = nvidia.ROOT if name == "DRIVER_ROOT" else "/"
    record_machine(root, tmp_path / "copy", driver_root=driver_root, scrub=keep)
    copy = discover(tmp_path / "copy", driver_root=driver_root)
    assert copy == discover(root, driver_root=driver_root)
    record_machine(tmp_path / "copy", tmp_path / "again", driver_root=driver_root, scrub=keep)
    assert listing(tmp_path / "again") == listing(tmp_path / "copy")


def listing(root):
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
        for path in root.rglob("*")
    }


def test_only_what_discovery_asks_for_is_copied(tmp_path):
    machine = nvidia.TWO_H200 | Machine(
        files={"/etc/shadow": "secret", "/sys/bus/pci/devices/0000:17:00.0/serial": "1234"},
        programs=["/usr/bin/bash"],
    )
    root = build(tmp_path / "machine", machine)
    (root / "usr/bin/nvidia-smi").write_bytes(b"program")
    (root / "etc/ld.so.cache").write_bytes(b"everything that is installed")
    record_machine(root, tmp_path / "copy")
    names = listing(tmp_path / "copy")
    assert not {name for name in names if "shadow" in name or "serial" in name or "bash" in name}
    assert "etc/ld.so.cache" not in names
    assert names["usr/bin/nvidia-smi"] == b"", "contents of programs stay behind"
    assert "dev/nvidia0" not in names, "nodes are a list"


def test_uuids_become_numbers(tmp_path):
    root = build(tmp_path / "machine", nvidia.TWO_H200 | others.TWO_MI300X)
    record_machine(root, tmp_path / "copy")
    text = b"".join(listing(tmp_path / "copy").values())
    assert not any(uuid.encode() in text for uuid in nvidia.UUIDS)
    assert b"12345678901234567890" not in text
    uuids = {device.uuid for device in discover(tmp_path / "copy").inventory.devices}
    assert len(uuids) == 4, "devices stay apart"


def test_the_scrubber_is_consistent():
    scrub = Scrubber()
    one = b"GPU-6d1c2f30-8a4e-9d6b-1c57-2f0e9a7b3c41"
    assert scrub(one + b" " + one) == scrub(one) + b" " + scrub(one)
    assert scrub(b"unique_id 0") == b"unique_id 0"


def test_a_directory_in_use_is_refused(tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "file").write_text("")
    with pytest.raises(CdiUsageError, match="is not empty"):
        record_machine(tmp_path, tmp_path / "copy")


def test_the_running_machine_can_be_recorded(tmp_path):
    record_machine(Path("/"), tmp_path / "copy", scrub=keep)
    assert not Tree(tmp_path / "copy").is_live
    live, copy = discover(Path("/")), discover(tmp_path / "copy")
    assert (live.inventory is None) == (copy.inventory is None)
