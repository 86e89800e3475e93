"""Extended resources of device plugins: which names count devices, memory and cores, in which units.

Owns the table of names, HAMi's and Volcano's included. Leaves out manifests
(:mod:`cdi.kube.convert`) and claims (:mod:`cdi.kube.claims`).

A family is one way to ask for one kind of device: a count, and for a part of a device its memory
and cores, each per device. Where only memory or cores are asked for, one device is meant, as in
HAMi and Volcano.

>>> found = lookup("mthreads.com/sgpu-memory")
>>> found.family.kind, found.role, found.family.memory_unit // 1024**2
('mthreads.com/gpu', <Role.MEMORY: 'memory'>, 512)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cdi.errors import CdiUsageError
from cdi.kube.classes import (
    ASCEND_SHARED,
    NVIDIA_MIG,
    NVIDIA_SHARED,
    DeviceClass,
    cel_string,
    class_of_kind,
)
from cdi.kube.quantity import GIB, MIB


class Role(StrEnum):
    """What a resource name stands for within its family."""

    COUNT = "count"
    MEMORY = "memory"
    PERCENT = "percent"
    CORES = "cores"


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """The resource names of one kind of device under one device plugin.

    ``memory_unit`` is the bytes of one unit of memory; ``cores_whole`` the number of cores that is
    the whole device. ``whole`` is the class of whole devices where it is not the one named after the
    kind, and ``shared`` that of parts, where parts do not come from the class of whole ones.
    ``request`` is the name of a request for such a device. ``product`` is a word of the product's name that devices must have, and
    ``profile`` the MIG profile. ``annotations`` begins the names of HAMi's Pod annotations that
    choose devices.
    """

    kind: str
    count: str
    memory: str = ""
    memory_unit: int = MIB
    percent: str = ""
    cores: str = ""
    cores_whole: int = 100
    request: str = "gpu"
    whole: DeviceClass | None = None
    shared: DeviceClass | None = None
    product: str = ""
    profile: str = ""
    annotations: str = ""

    def roles(self) -> dict[str, Role]:
        """Return the family's resource names and what each stands for."""
        named = {
            self.count: Role.COUNT,
            self.memory: Role.MEMORY,
            self.percent: Role.PERCENT,
            self.cores: Role.CORES,
        }
        return {name: role for name, role in named.items() if name}

    @property
    def divisible(self) -> bool:
        """Tell whether a part of a device can be asked for."""
        return bool(self.memory or self.cores or self.shared)

    def device_class(self, *, shared: bool) -> DeviceClass:
        """Return the class of parts of devices, or of whole ones."""
        return (self.shared if shared else None) or self.whole or class_of_kind(self.kind)

    def selectors(self, device_class: DeviceClass) -> tuple[str, ...]:
        """Return the CEL expressions that narrow the class to what the resource name means."""
        if self.profile:
            return (f"{device_class.attribute('profile')} == {cel_string(self.profile)}",)
        if self.product:
            # An attribute that a device lacks is an error, which would stop the whole allocation.
            product = device_class.attribute("productName")
            word = cel_string(self.product.upper())
            return (f"has({product}) && {product}.upperAscii().contains({word})",)
        return ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What one resource name means: its family, and its role there."""

    family: Family
    role: Role


# The units are those of HAMi's device configurations; each name is its chart's default.
FAMILIES: tuple[Family, ...] = (
    Family(
        kind="nvidia.com/gpu",
        count="nvidia.com/gpu",
        memory="nvidia.com/gpumem",
        percent="nvidia.com/gpumem-percentage",
        cores="nvidia.com/gpucores",
        shared=NVIDIA_SHARED,
        annotations="nvidia.com/",
    ),
    Family(
        kind="nvidia.com/gpu",
        count="volcano.sh/vgpu-number",
        memory="volcano.sh/vgpu-memory",
        percent="volcano.sh/vgpu-memory-percentage",
        cores="volcano.sh/vgpu-cores",
        shared=NVIDIA_SHARED,
        annotations="nvidia.com/",
    ),
    Family(
        kind="amd.com/gpu", count="amd.com/gpu", memory="amd.com/gpumem", cores="amd.com/gpucores"
    ),
    Family(kind="intel.com/gpu", count="gpu.intel.com/i915"),
    Family(kind="intel.com/gpu", count="gpu.intel.com/xe"),
    Family(kind="intel.com/gaudi", count="habana.ai/gaudi", request="gaudi"),
    Family(kind="cambricon.com/mlu", count="cambricon.com/mlu", request="mlu"),
    Family(
        kind="cambricon.com/mlu",
        count="cambricon.com/vmlu",
        request="mlu",
        memory="cambricon.com/mlu.smlu.vmemory",
        memory_unit=256 * MIB,
        cores="cambricon.com/mlu.smlu.vcore",
    ),
    Family(
        kind="hygon.com/dcu",
        count="hygon.com/dcunum",
        request="dcu",
        memory="hygon.com/dcumem",
        cores="hygon.com/dcucores",
    ),
    Family(
        kind="hygon.com/dcu",
        count="hygon.com/hcunum",
        request="dcu",
        memory="hygon.com/hcumem",
        cores="hygon.com/hcucores",
    ),
    Family(kind="metax-tech.com/gpu", count="metax-tech.com/gpu"),
    Family(
        kind="metax-tech.com/gpu",
        count="metax-tech.com/sgpu",
        memory="metax-tech.com/vmemory",
        memory_unit=GIB,
        cores="metax-tech.com/vcore",
    ),
    Family(
        kind="enflame.com/gcu",
        count="enflame.com/gcu",
        request="gcu",
        memory="enflame.com/gcu-memory",
        cores="enflame.com/gcu-core",
    ),
    Family(
        kind="mthreads.com/gpu",
        count="mthreads.com/vgpu",
        memory="mthreads.com/sgpu-memory",
        memory_unit=512 * MIB,
        cores="mthreads.com/sgpu-core",
        cores_whole=16,
    ),
    Family(kind="kunlunxin.com/xpu", count="kunlunxin.com/xpu", request="xpu"),
    Family(
        kind="kunlunxin.com/xpu",
        count="kunlunxin.com/vxpu",
        request="xpu",
        memory="kunlunxin.com/vxpu-memory",
    ),
    Family(kind="vastaitech.com/va", count="vastaitech.com/va", request="va"),
    Family(kind="birentech.com/gpu", count="birentech.com/gpu"),
    Family(kind="iluvatar.com/gpu", count="iluvatar.com/gpu"),
)

_BY_NAME: Mapping[str, Meaning] = {
    name: Meaning(family=family, role=role)
    for family in FAMILIES
    for name, role in family.roles().items()
}

# Names that hold the chip or the partition: a pattern each, since new chips appear.
_MIG = re.compile(r"nvidia\.com/mig-([1-9][0-9a-z.]*)")
_ASCEND = re.compile(r"huawei\.com/(Ascend[0-9A-Za-z]+(?:-[0-9]+)?)(-memory|-core)?")
_ILUVATAR = re.compile(r"iluvatar\.ai/([A-Za-z0-9-]+?)(-vgpu|\.vMem|\.vCore)")
_ANY_ASCEND = Family(kind="ascend.com/npu", count="", request="npu", shared=ASCEND_SHARED)
# HAMi's name of this chip is not the name that its driver gives the product.
_UNSELECTABLE = frozenset({"Ascend910C"})


def lookup(name: str) -> Meaning | None:
    """Return what a resource name means, or None for one that is no device's."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    family = _mig(name) or _ascend(name) or _iluvatar(name)
    return Meaning(family=family, role=family.roles()[name]) if family else None


def _mig(name: str) -> Family | None:
    found = _MIG.fullmatch(name)
    if found is None:
        return None
    # A resource name cannot hold the plus sign of a profile such as 1g.10gb+me.
    profile = re.sub(r"\.(me|me\.all|gfx)$", r"+\1", found[1])
    return Family(
        kind="nvidia.com/gpu", count=name, request="mig", whole=NVIDIA_MIG, profile=profile
    )


def _ascend(name: str) -> Family | None:
    found = _ASCEND.fullmatch(name)
    if found is None:
        return None
    chip = found[1]
    return Family(
        kind="ascend.com/npu",
        count=f"huawei.com/{chip}",
        request="npu",
        memory=f"huawei.com/{chip}-memory",
        cores=f"huawei.com/{chip}-core",
        shared=ASCEND_SHARED,
        product="" if chip in _UNSELECTABLE else chip.removeprefix("Ascend"),
    )


def _iluvatar(name: str) -> Family | None:
    found = _ILUVATAR.fullmatch(name)
    if found is None:
        return None
    chip = found[1]
    return Family(
        kind="iluvatar.com/gpu",
        count=f"iluvatar.ai/{chip}-vgpu",
        memory=f"iluvatar.ai/{chip}.vMem",
        memory_unit=256 * MIB,
        cores=f"iluvatar.ai/{chip}.vCore",
        product=chip,
    )


def family_for(device: str, *, shared: bool, exact: bool = False) -> Family:
    """Return the family for a device that a user names by CDI kind or by resource name.

    ``shared`` asks for one that can hand out parts; ``exact`` for one whose resource names are
    the ones that count, and not just its device class.

    Raises:
        CdiUsageError: it is neither, cannot be divided, or several resource names could be meant.
    """
    candidates = [family for family in (*FAMILIES, _ANY_ASCEND) if device == family.kind]
    meaning = lookup(device)
    if not candidates and meaning is not None and meaning.role is Role.COUNT:
        candidates = [meaning.family]
    if not candidates:
        kinds = ", ".join(sorted({family.kind for family in (*FAMILIES, _ANY_ASCEND)}))
        raise CdiUsageError(f"{device[:80]!a} is no kind of device or resource; kinds are {kinds}")
    fitting = [family for family in candidates if family.divisible or not shared]
    if not fitting:
        raise CdiUsageError(f"a part of a {device} cannot be asked for; leave out memory and cores")
    named = [family for family in fitting if family.count == device]
    if exact and not named and (len(fitting) > 1 or not fitting[0].count):
        choices = " or ".join(family.count for family in fitting if family.count)
        raise CdiUsageError(
            f"device plugins have several names for {device}; name the resource itself, "
            f"{choices or 'such as huawei.com/Ascend910B3'}"
        )
    return (named or fitting)[0]
