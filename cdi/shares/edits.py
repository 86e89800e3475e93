"""What a share puts into a container: HAMi's variables and mounts, for each vendor that has them.

Owns the names and the indexes. Leaves out the devices' own edits (:mod:`cdi.shares.build`) and the
host directories (:mod:`cdi.shares.store`).

Variables are indexed in the order of the parts, which is the order in which the container sees the
devices.

>>> from cdi.shares.model import Part
>>> part = Part(device="nvidia.com/gpu=0", keys=("a",), memory=8 << 30, cores=30, card_memory=0)
>>> share = Share(
...     claim="c", vendor=Vendor.NVIDIA, parts=(part,), path="", hook_path="/usr/local"
... )
>>> share_edits(share).env[:2]
('CUDA_DEVICE_MEMORY_LIMIT_0=8192m', 'CUDA_DEVICE_SM_LIMIT_0=30')
"""

import uuid
from collections.abc import Iterable, Sequence

from cdi.errors import CdiUsageError
from cdi.inventory import Vendor
from cdi.shares.model import WHOLE, Card, Share
from cdi.spec import ContainerEdits, Mount

MIB = 1024**2
# Where the edits of HAMi's DRA driver put things in a container, whatever the host's paths are.
_VGPU = "/usr/local/vgpu"
LOCK_DIRECTORY = "/tmp/vgpulock"  # noqa: S108 - HAMi-core's own fixed path
_READ_ONLY = ("ro", "nosuid", "nodev", "bind")
_WRITABLE = ("rw", "nosuid", "nodev", "bind")
_PRELOAD = "/etc/ld.so.preload"
# Makes the name of a claim's cache file, which HAMi's driver draws at random, the same each time.
_NAMESPACE = uuid.UUID("6b1c0e3e-6f1e-5d0e-9d5e-0d1f7f7c5a11")


def share_edits(share: Share) -> ContainerEdits:
    """Return the variables and mounts of a share, apart from its devices' own edits."""
    match share.vendor:
        case Vendor.ASCEND:
            return _ascend(share)
        case Vendor.AMD:
            return _amd(share)
    return _nvidia(share)


def own_directory(share: Share) -> str:
    """Return the host directory that is the claim's alone, or empty when it has none."""
    match share.vendor:
        case Vendor.ASCEND:
            return f"{share.hook_path}/hami-vnpu-core/containers/{share.claim}"
        case Vendor.AMD:
            return ""
    return f"{share.hook_path}/vgpu/claims/{share.claim}"


def common_directories(share: Share) -> tuple[str, ...]:
    """Return the host directories that all shares of the vendor use."""
    match share.vendor:
        case Vendor.ASCEND:
            return (f"{share.hook_path}/hami-shared-region",)
        case Vendor.AMD:
            return ()
    return (LOCK_DIRECTORY,)


def hook_files(share: Share) -> tuple[str, ...]:
    """Return the host files of HAMi that the share's mounts need."""
    match share.vendor:
        case Vendor.ASCEND:
            core = f"{share.hook_path}/hami-vnpu-core"
            return (f"{core}/libvnpu.so", f"{core}/ld.so.preload")
        case Vendor.AMD:
            return (f"{share.hook_path}/vgpu/libamvgpu.so",)
    return (f"{share.hook_path}/vgpu/libvgpu.so", f"{share.hook_path}/vgpu/ld.so.preload")


def require_possible(
    vendor: Vendor, cards: Sequence[Card], memory: Sequence[int], cores: Sequence[int]
) -> None:
    """Return when the vendor's library can enforce such parts.

    Raises:
        CdiUsageError: it cannot.
    """
    if vendor is Vendor.ASCEND and (len(set(memory)) > 1 or len(set(cores)) > 1):
        raise CdiUsageError(
            "an Ascend share has one amount of memory and cores for all of its devices"
        )
    if vendor is Vendor.AMD:
        for card, percent in zip(cards, cores, strict=True):
            if percent and not card.units:
                raise CdiUsageError(
                    f"{card.device}: cores are compute units on AMD, and their number is not "
                    "known; give it in the inventory as attributes: {computeUnits: N}"
                )


def pick_units(
    card: Card, cores: int, used: dict[int, int], *, oversubscribe: bool
) -> tuple[int, ...] | None:
    """Return the AMD compute units for a percentage, or None when not enough are free.

    The least used come first and, among those, the lowest.
    """
    if card.vendor is not Vendor.AMD or not cores:
        return ()
    wanted = max(card.units * cores // WHOLE, 1)
    order = sorted(range(card.units), key=lambda unit: (used.get(unit, 0), unit))
    if not oversubscribe:
        order = [unit for unit in order if not used.get(unit)]
    return tuple(sorted(order[:wanted])) if len(order) >= wanted else None


def _nvidia(share: Share) -> ContainerEdits:
    vgpu = f"{share.hook_path}/vgpu"
    claims = f"{_VGPU}/claims/{share.claim}"
    cache = uuid.uuid5(_NAMESPACE, share.claim)
    env = []
    for i, part in enumerate(share.parts):
        env.append(f"CUDA_DEVICE_MEMORY_LIMIT_{i}={part.memory // MIB}m")
        env += [f"CUDA_DEVICE_SM_LIMIT_{i}={part.cores}"] if part.cores else []
    env.append(f"CUDA_DEVICE_MEMORY_SHARED_CACHE={claims}/{cache}.cache")
    if share.oversubscribe:
        env.append("CUDA_OVERSUBSCRIBE=true")
    return ContainerEdits(
        env=tuple(env),
        mounts=(
            _mount(own_directory(share), claims, _WRITABLE),
            _mount(f"{vgpu}/libvgpu.so", f"{_VGPU}/libvgpu.so", _READ_ONLY),
            _mount(f"{vgpu}/ld.so.preload", _PRELOAD, _READ_ONLY),
            _mount(LOCK_DIRECTORY, LOCK_DIRECTORY, _WRITABLE),
        ),
    )


def _ascend(share: Share) -> ContainerEdits:
    core = f"{share.hook_path}/hami-vnpu-core"
    first = share.parts[0]
    env = [
        f"ASCEND_VISIBLE_DEVICES={_joined(part.number for part in share.parts)}",
        f"NPU_MEM_QUOTA={first.memory // MIB}",
        *([f"NPU_PRIORITY={first.cores}"] if first.cores else []),
        f"NPU_GLOBAL_SHM_PATH=/hami-shared-region/{first.number}_global_registry",
        "NPU_LOCAL_SHM_PATH=/hami-vnpu-shmem/vnpu_local_shmem",
    ]
    return ContainerEdits(
        env=tuple(env),
        mounts=(
            _mount(core, "/hami-vnpu-core", _READ_ONLY),
            _mount(f"{core}/ld.so.preload", _PRELOAD, _READ_ONLY),
            _mount(f"{share.hook_path}/hami-shared-region", "/hami-shared-region", _WRITABLE),
            _mount(own_directory(share), "/hami-vnpu-shmem", _WRITABLE),
        ),
    )


def _amd(share: Share) -> ContainerEdits:
    library = "vgpu/libamvgpu.so"
    env = [f"HIP_DEVICE_MEMORY_LIMIT={min(part.memory for part in share.parts) // MIB}m"]
    env += [
        f"HIP_DEVICE_MEMORY_LIMIT_{i}={part.memory // MIB}m" for i, part in enumerate(share.parts)
    ]
    masks = [f"{i}:{_ranges(part.units)}" for i, part in enumerate(share.parts) if part.units]
    env += [f"HSA_CU_MASK={';'.join(masks)}"] if masks else []
    if all(part.uuid for part in share.parts):
        # ROCr numbers the devices in this order, and HIP counts in ROCr's numbers.
        env.append(f"ROCR_VISIBLE_DEVICES={_joined(part.uuid for part in share.parts)}")
        env.append(f"HIP_VISIBLE_DEVICES={_joined(range(len(share.parts)))}")
    env.append(f"LD_AUDIT=/usr/local/{library}")
    mount = _mount(f"{share.hook_path}/{library}", f"/usr/local/{library}", _READ_ONLY)
    return ContainerEdits(env=tuple(env), mounts=(mount,))


def _mount(host: str, container: str, options: tuple[str, ...]) -> Mount:
    return Mount(host_path=host, container_path=container, options=options)


def _joined(values: Iterable[object]) -> str:
    return ",".join(str(value) for value in values)


def _ranges(units: Sequence[int]) -> str:
    """Write numbers as HSA_CU_MASK lists them: ``0-3,8``."""
    groups: list[list[int]] = []
    for unit in units:
        if groups and groups[-1][-1] + 1 == unit:
            groups[-1].append(unit)
        else:
            groups.append([unit])
    return ",".join(str(g[0]) if len(g) == 1 else f"{g[0]}-{g[-1]}" for g in groups)
