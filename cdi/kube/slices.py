r"""An inventory as ResourceSlices: what a node's DRA drivers publish for the scheduler.

Owns pools, slices, and the names, attributes and capacity of devices. Leaves out preparing devices
on the node: publishing alone schedules Pods, but starts none.

Names are made of type and index, ``gpu-0`` or ``gpu-0-mig-1``, and the attribute ``cdiDevice`` holds
the CDI name that :mod:`cdi.generate` gives the same device by default.

>>> from cdi.inventory_load import load_inventory
>>> node = load_inventory("node: n1\ndevices: [{vendor: amd, index: 0, card: 1, render: 128}]")
>>> device = resource_slices(node)[0]["spec"]["devices"][0]
>>> device["name"], device["attributes"]["cdiDevice"]
('gpu-0', {'string': 'amd.com/gpu=0'})
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cdi.errors import CdiUsageError
from cdi.inventory import Accelerator, Inventory, Partition, PartitionType, Vendor
from cdi.inventory_reader import Scalar
from cdi.kube._names import fit_label, is_attribute, require_subdomain
from cdi.kube.classes import (
    API_VERSION,
    ASCEND_SHARED,
    NVIDIA_MIG,
    NVIDIA_SHARED,
    DeviceClass,
    class_of_kind,
)
from cdi.kube.pods import Json
from cdi.kube.quantity import MIB
from cdi.vendors import MODULES

# resource.k8s.io/v1: ResourceSliceMaxDevices, ResourceSliceMaxAttributesAndCapacitiesPerDevice,
# DeviceAttributeMaxValueLength.
MAX_DEVICES = 128
MAX_ATTRIBUTES = 32
MAX_VALUE = 64
_INT64 = 2**63
# Room for two capacities and every attribute below.
_MAX_FREE_ATTRIBUTES = MAX_ATTRIBUTES - 14

_VERSION = re.compile(r"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?")
# An attribute that every driver of PCI devices may set, with this meaning.
PCI_ATTRIBUTE = "resource.kubernetes.io/pciBusID"
CDI_ATTRIBUTE = "cdiDevice"
# Free attributes of an inventory that NVIDIA's driver publishes as versions.
_VERSIONS = frozenset({"cudaComputeCapability", "cudaDriverVersion"})
_SHARED = {Vendor.NVIDIA: NVIDIA_SHARED, Vendor.ASCEND: ASCEND_SHARED}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    """One device to publish: a whole accelerator or a partition of one."""

    device: Accelerator
    partition: Partition | None
    device_class: DeviceClass
    kind: str


def resource_slices(
    inventory: Inventory, *, node: str = "", generation: int = 1, shared: bool = False
) -> tuple[Json, ...]:
    """Return the ResourceSlices of a node: a pool for each driver, at most 128 devices a slice.

    ``node`` stands for the name in the inventory. ``shared`` publishes whole devices as devices to
    hand out in parts, with memory and cores that claims consume; NVIDIA's and Ascend's then belong
    to HAMi's drivers. Deterministic.

    Raises:
        CdiUsageError: the node has no name or an invalid one, or the generation is negative.
    """
    name = node or inventory.node
    if not name:
        raise CdiUsageError("the inventory names no node; give its name with --node")
    require_subdomain("node", name)
    if not 0 <= generation < _INT64:
        raise CdiUsageError(f"generation {generation} is negative or too large")
    pools: dict[str, list[Json]] = {}
    for item in _items(inventory, shared=shared):
        driver = inventory.driver(item.device.vendor).version
        device = _device(item, driver, shared=shared)
        pools.setdefault(item.device_class.driver, []).append(device)
    return tuple(
        part for driver in sorted(pools) for part in _pool(driver, name, pools[driver], generation)
    )


def _pool(driver: str, node: str, devices: list[Json], generation: int) -> Iterator[Json]:
    starts = range(0, len(devices), MAX_DEVICES)
    for i, start in enumerate(starts):
        yield {
            "apiVersion": API_VERSION,
            "kind": "ResourceSlice",
            "metadata": {"name": fit_label(f"{node}-{driver}-{i}")},
            "spec": {
                "driver": driver,
                "nodeName": node,
                "pool": {
                    "name": node,
                    "generation": generation,
                    "resourceSliceCount": len(starts),
                },
                "devices": devices[start : start + MAX_DEVICES],
            },
        }


def _items(inventory: Inventory, *, shared: bool) -> Iterator[_Item]:
    for device in inventory.devices:
        kind = MODULES[device.vendor].support.kinds[device.type]
        whole = class_of_kind(kind)
        if device.partitions is None:
            chosen = _SHARED.get(device.vendor, whole) if shared else whole
            if device.type == "imex-channel":
                chosen = whole
            yield _Item(device=device, partition=None, device_class=chosen, kind=kind)
        for partition in device.partitions or ():
            mig = partition.type is PartitionType.MIG
            chosen = NVIDIA_MIG if mig else whole
            yield _Item(device=device, partition=partition, device_class=chosen, kind=kind)


def _device(item: _Item, driver_version: str, *, shared: bool) -> Json:
    device, partition = item.device, item.partition
    name = f"{device.type}-{device.index}"
    if partition is not None:
        name += f"-{partition.type}-{partition.index}"
    divides = shared and partition is None and device.type != "imex-channel"
    value: Json = {
        "name": fit_label(name),
        "attributes": _attributes(item, driver_version),
    }
    memory = device.memory if partition is None else partition.memory
    capacity = _capacity(memory, divides=divides)
    value |= {"capacity": capacity} if capacity else {}
    value |= {"allowMultipleAllocations": True} if divides else {}
    return value


def _attributes(item: _Item, driver_version: str) -> Json:
    device, partition = item.device, item.partition
    module = MODULES[device.vendor]
    found: dict[str, Json] = {"type": {"string": item.device_class.type}}
    found["index"] = {"int": device.index}
    if partition is None:
        cdi_name = f"{item.kind}={device.index}"
        uuid = module.uuid(device)
    else:
        cdi_name = f"{item.kind}={module.partition_name(device, partition)}"
        uuid = partition.uuid
        found |= _text("parentUUID", module.uuid(device))
        found |= _text("profile", partition.profile)
    found |= _text(CDI_ATTRIBUTE, cdi_name)
    found |= _text("uuid", uuid)
    found |= _text("productName", device.product)
    found |= _text(PCI_ATTRIBUTE, device.pci)
    if device.minor is not None:
        found["minor"] = {"int": device.minor}
    if device.numa is not None:
        found["numaNode"] = {"int": device.numa}
    if version := semantic_version(driver_version):
        found["driverVersion"] = {"version": version}
    free = [(key, value) for key, value in device.attributes.items() if key not in found]
    for key, value in free[:_MAX_FREE_ATTRIBUTES]:
        if is_attribute(key):
            found |= _free(key, value)
    return dict(sorted(found.items()))


def _text(name: str, value: str) -> dict[str, Json]:
    """Return a text attribute, or nothing when it is empty or longer than the API takes."""
    return {name: {"string": value}} if 0 < len(value.encode()) <= MAX_VALUE else {}


def _free(name: str, value: Scalar) -> dict[str, Json]:
    if name in _VERSIONS and (version := semantic_version(str(value))):
        return {name: {"version": version}}
    if isinstance(value, bool):
        return {name: {"bool": value}}
    return {name: {"int": value}} if isinstance(value, int) else _text(name, value)


def semantic_version(text: str) -> str:
    """Return a driver's version as the API wants it, such as 580.95.5 for 580.95.05; or empty."""
    found = _VERSION.fullmatch(text)
    if found is None:
        return ""
    return ".".join(str(int(part or 0)) for part in found.groups())


def _capacity(memory: int | None, *, divides: bool) -> Json:
    found: dict[str, Mapping[str, object]] = {}
    if divides:
        cores = {"default": "100", "validRange": {"min": "0", "max": "100", "step": "1"}}
        found["cores"] = {"value": "100", "requestPolicy": cores}
    if memory:
        found["memory"] = {"value": str(memory)}
        if divides:
            step = str(MIB)
            most = memory - memory % MIB
            policy = {
                "default": str(most),
                "validRange": {"min": step, "max": str(most), "step": step},
            }
            found["memory"] = {"value": str(memory), "requestPolicy": policy}
    return dict(found)
