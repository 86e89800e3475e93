"""Extended resources: every name that vendors, HAMi and Volcano use, with its unit."""

import pytest

from cdi.errors import CdiUsageError
from cdi.kube.resources import FAMILIES, Role, family_for, lookup
from cdi.vendors import MODULES

MIB, GIB = 1024**2, 1024**3
KINDS = {kind for module in MODULES.values() for kind in module.support.kinds.values()}

# What one unit of each resource is: a device, bytes of memory, percent of memory, or the fraction
# of the device's cores, as HAMi, Volcano and the vendors document it.
UNITS = {
    "nvidia.com/gpu": (Role.COUNT, 1),
    "nvidia.com/gpumem": (Role.MEMORY, MIB),
    "nvidia.com/gpumem-percentage": (Role.PERCENT, 1),
    "nvidia.com/gpucores": (Role.CORES, 100),
    "nvidia.com/mig-1g.10gb": (Role.COUNT, 1),
    "volcano.sh/vgpu-number": (Role.COUNT, 1),
    "volcano.sh/vgpu-memory": (Role.MEMORY, MIB),
    "volcano.sh/vgpu-memory-percentage": (Role.PERCENT, 1),
    "volcano.sh/vgpu-cores": (Role.CORES, 100),
    "amd.com/gpu": (Role.COUNT, 1),
    "amd.com/gpumem": (Role.MEMORY, MIB),
    "amd.com/gpucores": (Role.CORES, 100),
    "cambricon.com/mlu": (Role.COUNT, 1),
    "cambricon.com/vmlu": (Role.COUNT, 1),
    "cambricon.com/mlu.smlu.vmemory": (Role.MEMORY, 256 * MIB),
    "cambricon.com/mlu.smlu.vcore": (Role.CORES, 100),
    "hygon.com/dcunum": (Role.COUNT, 1),
    "hygon.com/dcumem": (Role.MEMORY, MIB),
    "hygon.com/dcucores": (Role.CORES, 100),
    "metax-tech.com/gpu": (Role.COUNT, 1),
    "metax-tech.com/sgpu": (Role.COUNT, 1),
    "metax-tech.com/vmemory": (Role.MEMORY, GIB),
    "metax-tech.com/vcore": (Role.CORES, 100),
    "enflame.com/gcu": (Role.COUNT, 1),
    "enflame.com/gcu-memory": (Role.MEMORY, MIB),
    "enflame.com/gcu-core": (Role.CORES, 100),
    "mthreads.com/vgpu": (Role.COUNT, 1),
    "mthreads.com/sgpu-memory": (Role.MEMORY, 512 * MIB),
    "mthreads.com/sgpu-core": (Role.CORES, 16),
    "kunlunxin.com/xpu": (Role.COUNT, 1),
    "kunlunxin.com/vxpu": (Role.COUNT, 1),
    "kunlunxin.com/vxpu-memory": (Role.MEMORY, MIB),
    "vastaitech.com/va": (Role.COUNT, 1),
    "birentech.com/gpu": (Role.COUNT, 1),
    "iluvatar.com/gpu": (Role.COUNT, 1),
    "iluvatar.ai/MR-V100-vgpu": (Role.COUNT, 1),
    "iluvatar.ai/MR-V100.vMem": (Role.MEMORY, 256 * MIB),
    "iluvatar.ai/MR-V100.vCore": (Role.CORES, 100),
    "huawei.com/Ascend910": (Role.COUNT, 1),
    "huawei.com/Ascend910B4-1": (Role.COUNT, 1),
    "huawei.com/Ascend910B4-1-memory": (Role.MEMORY, MIB),
    "huawei.com/Ascend310P-core": (Role.CORES, 100),
    "gpu.intel.com/i915": (Role.COUNT, 1),
    "gpu.intel.com/xe": (Role.COUNT, 1),
    "habana.ai/gaudi": (Role.COUNT, 1),
}


@pytest.mark.parametrize("name", UNITS)
def test_names_and_units(name):
    meaning = lookup(name)
    role, unit = UNITS[name]
    assert meaning.role is role
    if role is Role.MEMORY:
        assert meaning.family.memory_unit == unit
    if role is Role.CORES:
        assert meaning.family.cores_whole == unit


@pytest.mark.parametrize(
    "name",
    ["cpu", "memory", "ephemeral-storage", "example.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/priority",
     "nvidia.com/mig-", "huawei.com/Ascend", "huawei.com/npu", "iluvatar.ai/-vgpu", "hugepages-2Mi",
     "nvidia.com/gpu ", "NVIDIA.com/gpu", "requests.nvidia.com/gpu"],
)  # fmt: skip
def test_what_is_no_device(name):
    assert lookup(name) is None


def test_kinds_are_those_that_generate_makes():
    assert {family.kind for family in FAMILIES} <= KINDS
    assert lookup("huawei.com/Ascend910").family.kind in KINDS


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("nvidia.com/mig-1g.10gb", "1g.10gb"),
        ("nvidia.com/mig-1g.10gb.me", "1g.10gb+me"),
        ("nvidia.com/mig-1c.3g.40gb", "1c.3g.40gb"),
    ],
)
def test_mig_profiles(name, profile):
    assert lookup(name).family.profile == profile


@pytest.mark.parametrize(
    ("device", "shared", "count"),
    [
        ("nvidia.com/gpu", False, "nvidia.com/gpu"),
        ("nvidia.com/gpu", True, "nvidia.com/gpu"),
        ("volcano.sh/vgpu-number", True, "volcano.sh/vgpu-number"),
        ("metax-tech.com/gpu", False, "metax-tech.com/gpu"),
        ("metax-tech.com/gpu", True, "metax-tech.com/sgpu"),
        ("cambricon.com/mlu", True, "cambricon.com/vmlu"),
        ("kunlunxin.com/xpu", True, "kunlunxin.com/vxpu"),
        ("mthreads.com/gpu", False, "mthreads.com/vgpu"),
        ("huawei.com/Ascend910B3", True, "huawei.com/Ascend910B3"),
        ("nvidia.com/mig-2g.20gb", False, "nvidia.com/mig-2g.20gb"),
        ("hygon.com/hcunum", False, "hygon.com/hcunum"),
    ],
)
def test_the_resource_that_is_counted(device, shared, count):
    assert family_for(device, shared=shared, exact=True).count == count


@pytest.mark.parametrize(
    ("device", "shared", "words"),
    [
        ("example.com/gpu", False, "no kind of device"),
        ("nvidia.com/gpumem", False, "no kind of device"),
        ("birentech.com/gpu", True, "a part of"),
        ("nvidia.com/mig-1g.10gb", True, "a part of"),
        ("intel.com/gpu", False, "gpu.intel.com/i915 or gpu.intel.com/xe"),
        ("hygon.com/dcu", False, "hygon.com/dcunum or hygon.com/hcunum"),
        ("ascend.com/npu", False, "huawei.com/Ascend910B3"),
    ],
)
def test_devices_that_say_too_little(device, shared, words):
    with pytest.raises(CdiUsageError, match=words):
        family_for(device, shared=shared, exact=True)
