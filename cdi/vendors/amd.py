"""AMD: ``/dev/kfd`` and the DRM nodes of each GPU or compute partition, as amd-ctk lists them.

Owns the order of devices (all of one card together, by render node), their unique ids and compute
units from the KFD topology, and the nodes. Leaves out ROCm itself, which images bring.

>>> unique_id("12345678901234567890")
'GPU-ab54a98ceb1f0ad2'
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cdi.discovery import sysfs
from cdi.discovery.tree import Tree
from cdi.inventory import Accelerator, Driver, Node, Vendor
from cdi.spec import ContainerEdits
from cdi.vendors import base
from cdi.vendors.base import Basis, Found, Note, NoteKind, Support

_PCI_DRIVER = "/sys/module/amdgpu/drivers/pci:amdgpu"
_PLATFORM = "/sys/devices/platform"
_KFD_NODES = "/sys/class/kfd/kfd/topology/nodes"
_KFD = "/dev/kfd"
_PROPERTY = re.compile(r"(\w+) (\d{1,20})", re.ASCII)


def unique_id(number: str) -> str:
    """Return KFD's unique id as ROCm writes it in ROCR_VISIBLE_DEVICES; empty for none."""
    return f"GPU-{int(number):016x}" if int(number) else ""


class Amd(base.UsualVendor):
    """AMD GPUs under the amdgpu driver."""

    support = Support(
        vendor=Vendor.AMD,
        kinds={"gpu": "amd.com/gpu"},
        basis=Basis.OFFICIAL,
        source="amd-ctk cdi generate of ROCm/container-toolkit",
    )

    def discover(self, tree: Tree, driver_root: str) -> Found:  # noqa: ARG002 - images bring ROCm
        """Find GPUs under the amdgpu driver, and the compute partitions beside them."""
        looked = (_PCI_DRIVER, f"{_PLATFORM}/amdgpu_xcp_N", _KFD_NODES)
        topology = _topology(tree)
        functions = [
            (name, f"{_PCI_DRIVER}/{name}") for name in sysfs.pci_addresses(tree, _PCI_DRIVER)
        ]
        parts = [
            ("", f"{_PLATFORM}/{name}") for name in tree.names(_PLATFORM, r"amdgpu_xcp_\d{1,4}")
        ]
        cards: dict[str, list[Accelerator]] = {}
        for address, path in functions + parts:
            device = _device(tree, address, path, topology)
            if device is not None:
                # A card's partitions share its unique id; without one, each stands alone.
                cards.setdefault(device.uuid or path, []).append(device)
        devices = [
            device
            for group in cards.values()
            for device in sorted(_one_card(group), key=lambda d: d.render or 0)
        ]
        if not devices:
            return Found(looked=looked)
        nodes = base.existing_nodes(tree, [_KFD])
        version = tree.read("/sys/module/amdgpu/version") or ""
        notes = () if nodes else (_no_kfd(),)
        return Found(
            devices=tuple(replace(device, index=i) for i, device in enumerate(devices)),
            driver=Driver(version=version, nodes=nodes),
            notes=notes,
            looked=looked,
        )

    def device_edits(self, device: Accelerator, driver: Driver) -> ContainerEdits:
        """Return the DRM nodes and kfd, which amd-ctk gives each device and not the whole spec."""
        own = device.nodes or base.drm_nodes(device)
        return base.node_edits((*own, *(driver.nodes or (Node(path=_KFD),)))) if own else _NONE

    def common_edits(
        self,
        devices: Sequence[Accelerator],  # noqa: ARG002
        driver: Driver,
    ) -> tuple[ContainerEdits, tuple[Note, ...]]:
        """Return the mounts that the inventory names; amd-ctk itself makes none."""
        files = (*driver.libraries, *driver.binaries, *driver.firmware, *driver.configs)
        return ContainerEdits(mounts=base.by_depth(base.mounts(files, driver))), ()


_NONE = ContainerEdits()
MODULE = Amd()


@dataclass(frozen=True, kw_only=True, slots=True)
class _KfdNode:
    """What the KFD topology says of one GPU or compute partition."""

    unique_id: str = ""
    attributes: Mapping[str, int] = field(default_factory=dict)


def _topology(tree: Tree) -> dict[int, _KfdNode]:
    """Return the KFD nodes by the minor of their render node; processors have none."""
    found = {}
    for name in tree.names(_KFD_NODES, r"\d{1,4}"):
        text = tree.read(f"{_KFD_NODES}/{name}/properties") or ""
        properties = {match[1]: int(match[2]) for match in _PROPERTY.finditer(text)}
        minor = properties.get("drm_render_minor", 0)
        if minor > 0:
            found[minor] = _KfdNode(
                unique_id=unique_id(str(properties.get("unique_id", 0))),
                attributes=_compute_units(properties),
            )
    return found


def _compute_units(properties: Mapping[str, int]) -> dict[str, int]:
    """Return the compute units, which KFD gives as SIMDs and SIMDs in a unit; empty if it does not."""
    simds, each = properties.get("simd_count", 0), properties.get("simd_per_cu", 0)
    return {"computeUnits": simds // each} if simds and each else {}


def _device(
    tree: Tree, address: str, path: str, topology: Mapping[int, _KfdNode]
) -> Accelerator | None:
    drm = sysfs.drm_of(tree, path)
    if not drm.nodes:
        return None
    known = topology.get(drm.render or 0, _KfdNode())
    return Accelerator(
        vendor=Vendor.AMD,
        type="gpu",
        index=0,
        uuid=known.unique_id,
        product=tree.read(f"{path}/product_name") or "",
        memory=sysfs.bytes_in(tree, f"{path}/mem_info_vram_total"),
        pci=address,
        numa=sysfs.numa_node(tree, address),
        card=drm.card,
        render=drm.render,
        nodes=drm.nodes,
        attributes=known.attributes,
    )


def _one_card(group: Sequence[Accelerator]) -> list[Accelerator]:
    """Return the devices of one card; partitions share its address, and its id names none of them."""
    if len(group) == 1:
        return list(group)
    whole = next((device for device in group if device.pci), group[0])
    return [
        replace(
            device,
            uuid="",
            product=device.product or whole.product,
            memory=None,
            pci=whole.pci,
            numa=whole.numa,
            attributes={**device.attributes, "uniqueID": device.uuid},
        )
        for device in group
    ]


def _no_kfd() -> Note:
    text = f"{_KFD}: it does not exist on this machine, and ROCm does not work without it"
    return Note(vendor=Vendor.AMD, kind=NoteKind.LEFT_OUT, text=text)
