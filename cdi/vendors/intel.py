"""Intel: GPUs under i915 or xe, and Gaudi under habanalabs.

Owns the nodes and by-path mounts of GPUs, the accel and uverbs nodes of Gaudi, and the names made of
PCI address and device id. Leaves out GPUs bound to VFIO, and Gaudi's network hook, which belongs to
a claim and not to a device.

>>> MODULE.support.kinds["gaudi"]
'intel.com/gaudi'
"""

from collections.abc import Sequence
from dataclasses import replace

from cdi.discovery import sysfs
from cdi.discovery.sysfs import PciFunction
from cdi.discovery.tree import Tree
from cdi.inventory import Accelerator, Driver, Node, Vendor
from cdi.spec import ContainerEdits, Mount
from cdi.vendors import base
from cdi.vendors.base import Basis, Found, Note, Support

_GPU_VENDOR = "0x8086"
_GAUDI_VENDOR = "0x1da3"  # Habana Labs
_GPU_DRIVERS = ("i915", "xe")
_BY_PATH_OPTIONS = ("bind", "rw")


class Intel(base.UsualVendor):
    """Intel GPUs and Gaudi accelerators."""

    support = Support(
        vendor=Vendor.INTEL,
        kinds={"gpu": "intel.com/gpu", "gaudi": "intel.com/gaudi"},
        basis=Basis.OFFICIAL,
        source="the CDI helpers of intel/intel-resource-drivers-for-kubernetes",
    )

    def discover(self, tree: Tree, driver_root: str) -> Found:  # noqa: ARG002 - images bring it
        """Find GPUs with DRM nodes and Gaudi cards with accel nodes."""
        gpus = [
            device
            for function in sysfs.pci_functions(tree, _GPU_VENDOR)
            if (device := _gpu(tree, function)) is not None
        ]
        gaudis = [
            device
            for function in sysfs.pci_functions(tree, _GAUDI_VENDOR)
            if (device := _gaudi(tree, function)) is not None
        ]
        numbered = [replace(device, index=i) for i, device in enumerate(gpus)]
        looked = (
            f"{sysfs.PCI_ROOT} for vendor {_GPU_VENDOR}",
            f"{sysfs.PCI_ROOT} for vendor {_GAUDI_VENDOR}",
        )
        driver = Driver(links=base.existing_by_path(tree, numbered))
        return Found(devices=(*numbered, *gaudis), driver=driver, looked=looked)

    def device_edits(self, device: Accelerator, driver: Driver) -> ContainerEdits:
        """Return the device's nodes, and for a GPU the names under ``/dev/dri/by-path``."""
        if device.type == "gaudi":
            return base.node_edits(device.nodes or _gaudi_nodes(device))
        nodes = device.nodes or base.drm_nodes(device)
        return replace(base.node_edits(nodes), mounts=_by_path(device, driver))

    def common_edits(
        self,
        devices: Sequence[Accelerator],  # noqa: ARG002
        driver: Driver,
    ) -> tuple[ContainerEdits, tuple[Note, ...]]:
        """Return what the inventory names of a driver; Intel's own generators add nothing."""
        files = (*driver.libraries, *driver.binaries, *driver.firmware, *driver.configs)
        edits = base.node_edits(driver.nodes)
        return replace(edits, mounts=base.by_depth(base.mounts(files, driver))), ()

    def uuid(self, device: Accelerator) -> str:
        """Return the inventory's UUID, or Intel's own name: ``0000-03-00-0-0x56c0``."""
        model = device.attributes.get("pciDevice", "")
        if device.uuid or not (device.pci and model):
            return device.uuid
        return f"{device.pci.replace(':', '-').replace('.', '-')}-{model}"


MODULE = Intel()


def _gpu(tree: Tree, function: PciFunction) -> Accelerator | None:
    drm = sysfs.drm_of(tree, function.path)
    if not drm.nodes or (function.driver and function.driver not in _GPU_DRIVERS):
        return None
    return Accelerator(
        vendor=Vendor.INTEL,
        type="gpu",
        index=0,
        pci=function.address,
        numa=function.numa,
        card=drm.card,
        render=drm.render,
        nodes=drm.nodes,
        attributes={"pciDevice": function.device} if function.device else {},
    )


def _gaudi(tree: Tree, function: PciFunction) -> Accelerator | None:
    names = tree.names(f"{function.path}/accel", r"accel\d{1,4}")
    if len(names) != 1:
        return None
    number = names[0].removeprefix("accel")
    paths = [f"/dev/accel/accel{number}", f"/dev/accel/accel_controlD{number}"]
    paths += [
        f"/dev/infiniband/{name}"
        for name in tree.names(f"{function.path}/infiniband_verbs", r"uverbs\d{1,4}")
    ]
    nodes = base.existing_nodes(tree, paths)
    if not nodes:
        return None
    return Accelerator(
        vendor=Vendor.INTEL,
        type="gaudi",
        index=int(number),
        pci=function.address,
        numa=function.numa,
        nodes=nodes,
        attributes={"pciDevice": function.device} if function.device else {},
    )


def _gaudi_nodes(device: Accelerator) -> tuple[Node, ...]:
    control = Node(path=f"/dev/accel/accel_controlD{device.index}")
    return base.main_node(device, f"/dev/accel/accel{device.index}"), control


def _by_path(device: Accelerator, driver: Driver) -> tuple[Mount, ...]:
    """Return the mounts that give a container the by-path names of a device."""
    return tuple(
        Mount(host_path=link.path, container_path=link.path, options=_BY_PATH_OPTIONS, type="none")
        for link in base.by_path_links(device, driver)
    )
