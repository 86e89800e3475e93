"""What NVML tells of GPUs and MIG devices, through the optional ``pynvml`` module.

Owns the one import of pynvml and the reading of its answers into plain values. Leaves out device
nodes, which come from the tree. Any failure of NVML reads as no NVML: procfs then speaks alone.

>>> read_nvml(lambda name: None) is None
True
"""

import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cdi.inventory_reader import normal_pci

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class NvmlMig:
    """A MIG device: its number on the GPU, UUID, instance ids, and memory in bytes."""

    index: int
    uuid: str
    gi: int
    ci: int
    name: str = ""
    memory: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NvmlGpu:
    """A GPU by NVML; ``migs`` is None where MIG is off."""

    index: int
    uuid: str
    minor: int
    pci: str
    product: str
    memory: int | None
    migs: tuple[NvmlMig, ...] | None = None


def import_pynvml(name: str = "pynvml") -> Any | None:
    """Return the pynvml module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def read_nvml(load: Callable[[str], Any | None] = import_pynvml) -> tuple[NvmlGpu, ...] | None:
    """Return all GPUs that NVML shows, by index; None where there is no NVML or it fails.

    ``load`` returns the module; tests pass one of their own.
    """
    nvml = load("pynvml")
    if nvml is None:
        return None
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError, OSError) as error:
        _logger.info("NVML is not usable: %s", error)
        return None
    try:
        return tuple(_gpu(nvml, i) for i in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError as error:
        _logger.warning("NVML failed, its facts are left out: %s", error)
        return None
    finally:
        nvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _gpu(nvml: Any, index: int) -> NvmlGpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return NvmlGpu(
        index=index,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        minor=nvml.nvmlDeviceGetMinorNumber(handle),
        pci=normal_pci(_text(nvml.nvmlDeviceGetPciInfo(handle).busId)),
        product=_text(nvml.nvmlDeviceGetName(handle)),
        memory=_memory(nvml, handle),
        migs=tuple(_migs(nvml, handle)) if _mig_enabled(nvml, handle) else None,
    )


def _memory(nvml: Any, handle: Any) -> int | None:
    """Return the memory in bytes; some integrated GPUs have none of their own to tell."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        return None


def _mig_enabled(nvml: Any, handle: Any) -> bool:
    """Tell whether MIG is on; GPUs without MIG answer with an error."""
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        return False
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _migs(nvml: Any, handle: Any) -> Iterator[NvmlMig]:
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:
            continue  # no MIG device has this number
        yield NvmlMig(
            index=index,
            uuid=_text(nvml.nvmlDeviceGetUUID(mig)),
            gi=nvml.nvmlDeviceGetGpuInstanceId(mig),
            ci=nvml.nvmlDeviceGetComputeInstanceId(mig),
            name=_text(nvml.nvmlDeviceGetName(mig)),
            memory=_memory(nvml, mig),
        )
