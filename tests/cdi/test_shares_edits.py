"""HAMi's variables and mounts, for each vendor, in the container's order."""

from pathlib import Path

import pytest

from cdi.edits import apply_edits
from cdi.errors import CdiUsageError
from cdi.files import read_spec
from cdi.inventory import Inventory
from cdi.nodes import NodeFacts, RecordedNodes
from cdi.shares.model import share_device
from cdi.shares.store import Amount
from tests.cdi.shares_machine import GIB, Machine, amd, gpu, npu

CONTROL_NODES = ("nvidiactl", "nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools")


@pytest.fixture
def machine(tmp_path):
    return Machine(
        tmp_path, Inventory(devices=(*map(gpu, range(3)), amd(0), amd(1), npu(0), npu(1)))
    )


def spec_of(granted):
    return read_spec(Path(granted.share.path))


def edits_of(granted):
    (device,) = spec_of(granted).devices
    return device.container_edits


def mounts_of(edits):
    return {m.container_path: (m.host_path, m.options[0]) for m in edits.mounts}


def test_nvidia(machine):
    granted = machine.share("job", "nvidia.com/gpu=2", "nvidia.com/gpu=0", cores=30)
    spec, edits = spec_of(granted), edits_of(granted)
    assert spec.kind == "k8s.hami-core-gpu.project-hami.io/claim"
    assert [d.name for d in spec.devices] == ["job"]
    *limits, cache = [v for v in edits.env if v.startswith("CUDA_")]
    assert limits == [
        "CUDA_DEVICE_MEMORY_LIMIT_0=8192m",
        "CUDA_DEVICE_SM_LIMIT_0=30",
        "CUDA_DEVICE_MEMORY_LIMIT_1=8192m",
        "CUDA_DEVICE_SM_LIMIT_1=30",
    ]
    name, _, path = cache.partition("=")
    assert name == "CUDA_DEVICE_MEMORY_SHARED_CACHE"
    assert path.startswith("/usr/local/vgpu/claims/job/")
    assert path.endswith(".cache")
    hook = machine.hook
    assert mounts_of(edits) == {
        "/usr/local/vgpu/claims/job": (f"{hook}/vgpu/claims/job", "rw"),
        "/usr/local/vgpu/libvgpu.so": (f"{hook}/vgpu/libvgpu.so", "ro"),
        "/etc/ld.so.preload": (f"{hook}/vgpu/ld.so.preload", "ro"),
        "/tmp/vgpulock": ("/tmp/vgpulock", "rw"),
    }
    nodes = [node.path for node in edits.device_nodes]
    assert nodes.index("/dev/nvidia0") < nodes.index("/dev/nvidia2")
    assert "/dev/nvidia1" not in nodes
    assert len(set(nodes)) == len(nodes)
    assert (machine.hook / "vgpu/claims/job").stat().st_mode & 0o777 == 0o777


def test_each_card_has_the_limit_that_was_asked_for_it(machine):
    """Amounts belong to cards; the index is the card's place in the container."""
    cards = machine.cards("nvidia.com/gpu=1", "nvidia.com/gpu=0")
    by_name = {"nvidia.com/gpu=1": Amount(memory=GIB), "nvidia.com/gpu=0": Amount(memory=2 * GIB)}
    granted = machine.store.add("j", cards, [by_name[c.device] for c in cards], machine.cache)
    limits = [v for v in edits_of(granted).env if "LIMIT" in v]
    assert limits == ["CUDA_DEVICE_MEMORY_LIMIT_0=2048m", "CUDA_DEVICE_MEMORY_LIMIT_1=1024m"]


def test_no_cores_are_no_limit_and_oversubscription_is_told(machine):
    granted = machine.share("job", "nvidia.com/gpu=0", memory=200 * GIB, oversubscribe=True)
    env = edits_of(granted).env
    assert not any("SM_LIMIT" in variable for variable in env)
    assert "CUDA_OVERSUBSCRIBE=true" in env
    assert "CUDA_DEVICE_MEMORY_LIMIT_0=204800m" in env


def test_ascend(machine):
    granted = machine.share("job", "ascend.com/npu=1", "ascend.com/npu=0", memory=8 * GIB, cores=50)
    assert spec_of(granted).kind == "k8s.ascend.project-hami.io/claim"
    edits = edits_of(granted)
    assert [v for v in edits.env if v.startswith(("NPU_", "ASCEND_"))] == [
        "ASCEND_VISIBLE_DEVICES=0,1",
        "NPU_MEM_QUOTA=8192",
        "NPU_PRIORITY=50",
        "NPU_GLOBAL_SHM_PATH=/hami-shared-region/0_global_registry",
        "NPU_LOCAL_SHM_PATH=/hami-vnpu-shmem/vnpu_local_shmem",
    ]
    hook = machine.hook
    found = mounts_of(edits)
    assert found["/hami-vnpu-core"] == (f"{hook}/hami-vnpu-core", "ro")
    assert found["/etc/ld.so.preload"] == (f"{hook}/hami-vnpu-core/ld.so.preload", "ro")
    assert found["/hami-shared-region"] == (f"{hook}/hami-shared-region", "rw")
    assert found["/hami-vnpu-shmem"] == (f"{hook}/hami-vnpu-core/containers/job", "rw")
    assert (machine.hook / "hami-shared-region").is_dir()
    assert (machine.hook / "hami-vnpu-core/containers/job").is_dir()


def test_ascend_has_one_amount(machine):
    cards = machine.cards("ascend.com/npu=0", "ascend.com/npu=1")
    with pytest.raises(CdiUsageError, match="one amount"):
        machine.store.add("j", cards, [Amount(memory=GIB), Amount(memory=2 * GIB)], machine.cache)


def test_amd(machine):
    granted = machine.share("job", "amd.com/gpu=0", "amd.com/gpu=1", memory=48 * GIB, cores=25)
    assert spec_of(granted).kind == "k8s.gpu.amd.com/claim"
    edits = edits_of(granted)
    assert [v for v in edits.env if not v.startswith("AMD_")] == [
        "HIP_DEVICE_MEMORY_LIMIT=49152m",
        "HIP_DEVICE_MEMORY_LIMIT_0=49152m",
        "HIP_DEVICE_MEMORY_LIMIT_1=49152m",
        "HSA_CU_MASK=0:0-75;1:0-75",
        "ROCR_VISIBLE_DEVICES=GPU-0000000000000000,GPU-0000000000000001",
        "HIP_VISIBLE_DEVICES=0,1",
        "LD_AUDIT=/usr/local/vgpu/libamvgpu.so",
    ]
    assert [node.path for node in edits.device_nodes].count("/dev/kfd") == 1


def test_amd_claims_have_their_own_compute_units(machine):
    def masks(granted):
        return next(v for v in edits_of(granted).env if v.startswith("HSA_CU_MASK")).partition("=")[
            2
        ]

    assert masks(machine.share("a", "amd.com/gpu=0", memory=GIB, cores=10)) == "0:0-29"
    assert masks(machine.share("b", "amd.com/gpu=0", memory=GIB, cores=10)) == "0:30-59"
    machine.store.remove("a", machine.cache)
    assert masks(machine.share("c", "amd.com/gpu=0", memory=GIB, cores=20)) == "0:0-29,60-89"


def test_amd_cores_need_the_number_of_units(tmp_path):
    machine = Machine(tmp_path, Inventory(devices=(amd(0, units=0),)))
    with pytest.raises(CdiUsageError, match="computeUnits"):
        machine.share("a", "amd.com/gpu=0", cores=10)
    assert "HSA_CU_MASK" not in " ".join(edits_of(machine.share("b", "amd.com/gpu=0")).env)


def test_a_container_gets_all_of_it(machine):
    """What a runtime makes of the one device: the card's node, the limits and the mounts."""
    granted = machine.share("job", "nvidia.com/gpu=1", cores=30)
    host = {
        f"/dev/{name}": NodeFacts(type="c", major=195, minor=i, file_mode=0o666)
        for i, name in enumerate(CONTROL_NODES, 250)
    }
    edits = machine.cache.edits([granted.share.name])
    oci = apply_edits({"process": {"env": ["A=1"]}}, edits, nodes=RecordedNodes(host))
    assert "CUDA_DEVICE_MEMORY_LIMIT_0=8192m" in oci["process"]["env"]
    assert "/dev/nvidia1" in [d["path"] for d in oci["linux"]["devices"]]
    assert "/etc/ld.so.preload" in [m["destination"] for m in oci["mounts"]]


@pytest.mark.parametrize(
    ("claim", "devices", "name"),
    [
        ("a", ["nvidia.com/gpu=0"], "k8s.hami-core-gpu.project-hami.io/claim=a"),
        (
            "a.b-c_9",
            ["ascend.com/npu=0", "ascend.com/npu=1"],
            "k8s.ascend.project-hami.io/claim=a.b-c_9",
        ),
        ("7f3c", ["amd.com/gpu=0"], "k8s.gpu.amd.com/claim=7f3c"),
    ],
)
def test_names(claim, devices, name):
    assert share_device(claim, devices) == name


@pytest.mark.parametrize(
    ("claim", "devices"),
    [
        ("", ["nvidia.com/gpu=0"]),
        ("..", ["nvidia.com/gpu=0"]),
        ("a/b", ["nvidia.com/gpu=0"]),
        ("a\n", ["nvidia.com/gpu=0"]),
        ("a" * 129, ["nvidia.com/gpu=0"]),
        ("a", ["nvidia.com/gpu"]),
        ("a", []),
        ("a", ["nvidia.com/gpu=0", "amd.com/gpu=0"]),
        ("a", ["x.com/gpu=0"]),
        ("a", ["hygon.com/dcu=0"]),
    ],
)
def test_what_has_no_name(claim, devices):
    with pytest.raises(CdiUsageError):
        share_device(claim, devices)
