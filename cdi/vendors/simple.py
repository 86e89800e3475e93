"""A vendor whose devices are numbered nodes under ``/dev``, described by data alone.

Owns the discovery and the edits of such vendors. Leaves out the facts: each vendor's own file holds
them as one :class:`SimpleVendor`.

A template such as ``/dev/xpu{index}`` takes the fields index, minor, card and render of a device,
and is skipped for a device that lacks the field.

>>> from cdi.vendors.kunlunxin import MODULE
>>> MODULE.support.kinds["xpu"]
'kunlunxin.com/xpu'
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cdi.discovery import sysfs
from cdi.discovery.tree import Tree
from cdi.inventory import TYPES, Accelerator, Driver, Node, Partition, PartitionType
from cdi.spec import ContainerEdits
from cdi.vendors import base
from cdi.vendors.base import Found, Note, NoteKind, Support


@dataclass(frozen=True, kw_only=True, slots=True)
class SimpleVendor(base.UsualVendor):
    """A vendor described by templates.

    ``main`` is the template of a device's first node; its directory and ``pattern`` find devices,
    and the first group of the pattern is the index. Without a pattern, devices are the DRM devices
    of ``pci_vendor``. ``own`` and ``control`` are needed nodes, the ``optional`` ones are taken
    where they exist. ``files`` are mounted where they exist. ``sys_class`` is a directory whose
    ``<node name>/device`` leads to the PCI function. ``partition`` is the template of a partition's
    node, which also has the field part.
    """

    support: Support
    main: str = ""
    pattern: str = ""
    pci_vendor: str = ""
    with_drm: bool = False
    sys_class: str = ""
    own: tuple[str, ...] = ()
    optional_own: tuple[str, ...] = ()
    control: tuple[str, ...] = ()
    optional_control: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    binaries: tuple[str, ...] = ()
    version_file: str = ""
    type_prefix: str = ""
    partition: str = ""
    partition_type: PartitionType | None = None

    # -- discovery -------------------------------------------------------------------------------

    def discover(self, tree: Tree, driver_root: str) -> Found:
        """Find the devices by their nodes, or by PCI and DRM, and the driver's files."""
        devices = self._by_node(tree) if self.pattern else self._by_drm(tree)
        looked = (
            (self.main.format(index="N"),)
            if self.pattern
            else (f"{sysfs.PCI_ROOT} for vendor {self.pci_vendor}",)
        )
        if not devices:
            return Found(looked=looked)
        driver = Driver(
            version=(tree.read(self.version_file) or "") if self.version_file else "",
            root=driver_root,
            nodes=base.existing_nodes(tree, (*self.control, *self.optional_control)),
            libraries=base.existing_files(tree, driver_root, self.libraries),
            binaries=base.existing_files(tree, driver_root, self.binaries),
        )
        return Found(
            devices=devices,
            driver=driver,
            notes=self._discovery_notes(tree, devices),
            looked=looked,
        )

    @property
    def _directory(self) -> str:
        return self.main.rpartition("/")[0]

    def _by_node(self, tree: Tree) -> tuple[Accelerator, ...]:
        found = []
        for match, node in tree.nodes(self._directory, self.pattern):
            pci = self._pci(tree, match[0], node)
            drm = sysfs.drm_of(tree, f"{sysfs.PCI_ROOT}/{pci}") if pci else sysfs.Drm()
            device = Accelerator(
                vendor=self.support.vendor,
                type=TYPES[self.support.vendor][0],
                index=int(match[1]),
                pci=pci,
                numa=sysfs.numa_node(tree, pci),
                major=node.major,
                minor=node.minor,
                card=drm.card if self.with_drm else None,
                render=drm.render if self.with_drm else None,
            )
            own = self._paths((*self.own, *self.optional_own), device)
            nodes = (node, *base.existing_nodes(tree, own))
            drm_nodes = drm.nodes if self.with_drm else ()
            parts = self._partitions(tree, device)
            found.append(replace(device, nodes=nodes + drm_nodes, partitions=parts))
        return tuple(found)

    def _partitions(self, tree: Tree, device: Accelerator) -> tuple[Partition, ...] | None:
        """Return the partitions whose nodes exist; None for a device without any."""
        if self.partition_type is None:
            return None
        directory, _, name = self.partition.rpartition("/")
        pattern = name.format(index=device.index, part=r"(\d{1,4})")
        return (
            tuple(
                Partition(type=self.partition_type, index=int(match[1]), nodes=(node,))
                for match, node in tree.nodes(directory, pattern)
            )
            or None
        )

    def _pci(self, tree: Tree, name: str, node: Node) -> str:
        linked = tree.resolve(f"{self.sys_class}/{name}/device") if self.sys_class else None
        return sysfs.pci_in_path(linked or "") or sysfs.pci_of_node(tree, node)

    def _by_drm(self, tree: Tree) -> tuple[Accelerator, ...]:
        found: list[Accelerator] = []
        for function in sysfs.pci_functions(tree, self.pci_vendor):
            drm = sysfs.drm_of(tree, function.path)
            if not drm.nodes:
                continue
            device = Accelerator(
                vendor=self.support.vendor,
                type=TYPES[self.support.vendor][0],
                index=len(found),
                product=f"PCI device {function.device}" if function.device else "",
                pci=function.address,
                numa=function.numa,
                card=drm.card,
                render=drm.render,
            )
            own = self._paths((*self.own, *self.optional_own), device)
            nodes = (*drm.nodes, *base.existing_nodes(tree, own))
            found.append(replace(device, nodes=nodes))
        return tuple(found)

    def _discovery_notes(self, tree: Tree, devices: Sequence[Accelerator]) -> tuple[Note, ...]:
        texts = [
            f"control node {path}: it does not exist on this machine"
            for path in self.control
            if tree.node(path) is None
        ]
        if self.with_drm and self.pattern:
            texts += [
                f"DRM nodes of {device.nodes[0].path}: sysfs does not lead to its PCI function"
                for device in devices
                if device.render is None
            ]
        return tuple(
            Note(vendor=self.support.vendor, kind=NoteKind.LEFT_OUT, text=text) for text in texts
        )

    # -- edits -----------------------------------------------------------------------------------

    def _paths(self, templates: Sequence[str], device: Accelerator) -> list[str]:
        numbers = {
            "index": device.index,
            "minor": device.minor,
            "card": device.card,
            "render": device.render,
        }
        known = {name: number for name, number in numbers.items() if number is not None}
        return [
            template.format(**known)
            for template in templates
            if {name for _, name, _, _ in string.Formatter().parse(template) if name} <= set(known)
        ]

    def device_edits(self, device: Accelerator, driver: Driver) -> ContainerEdits:  # noqa: ARG002
        """Return the device's own nodes: those named, or those that its numbers lead to."""
        if device.nodes:
            return base.node_edits(device.nodes)
        main = [base.main_node(device, path) for path in self._paths([self.main], device) if path]
        own = [Node(path=path) for path in self._paths(self.own, device)]
        drm = base.drm_nodes(device) if self.with_drm or not self.main else ()
        return base.node_edits((*main, *own, *drm))

    def partition_edits(
        self, device: Accelerator, partition: Partition, driver: Driver
    ) -> ContainerEdits:
        """Return the device's edits, and the node of the partition beside them."""
        path = self.partition.format(index=device.index, part=partition.index)
        nodes = partition.nodes or ((Node(path=path),) if path else ())
        return self.device_edits(device, driver) + base.node_edits(nodes)

    def common_edits(
        self, devices: Sequence[Accelerator], driver: Driver
    ) -> tuple[ContainerEdits, tuple[Note, ...]]:
        """Return the control nodes and the mounts; says what a declared inventory leaves out."""
        nodes = driver.nodes or tuple(Node(path=path) for path in self.control)
        files = (*driver.libraries, *driver.binaries, *driver.firmware, *driver.configs)
        found = base.mounts(files, driver) + base.mounts(
            driver.sockets, driver, base.SOCKET_OPTIONS
        )
        edits = base.node_edits(nodes)
        return (
            replace(edits, mounts=base.by_depth(found)),
            self._common_notes(devices, driver),
        )

    def _common_notes(self, devices: Sequence[Accelerator], driver: Driver) -> tuple[Note, ...]:
        texts = []
        wanted = (*self.libraries, *self.binaries)
        if wanted and not driver.has_files:
            texts.append(
                f"the driver's files ({', '.join(wanted)}): name those of the target nodes under "
                "driver.libraries and driver.binaries, unless images bring them"
            )
        optional = () if any(device.nodes for device in devices) else self.optional_own
        for where, templates in (
            ("the device's nodes", optional),
            ("driver.nodes", () if driver.nodes else self.optional_control),
        ):
            if templates:
                texts.append(
                    f"nodes that only some machines have ({', '.join(templates)}): name those of "
                    f"the target nodes under {where}"
                )
        return tuple(
            Note(vendor=self.support.vendor, kind=NoteKind.LEFT_OUT, text=text) for text in texts
        )

    def type_name(self, device: Accelerator) -> str:
        """Return the type and the index, such as ``gpu0``."""
        return f"{self.type_prefix or device.type}{device.index}"
