"""PCI functions, DRM nodes and NUMA nodes, as sysfs shows them.

Owns the paths below ``/sys`` that all vendors share. Leaves out vendors' own attributes.

>>> is_accelerator_class("0x030200"), is_accelerator_class("0x040300")
(True, False)
"""

import re
from dataclasses import dataclass

from cdi.discovery.tree import Tree
from cdi.inventory import Node

PCI_ROOT = "/sys/bus/pci/devices"
_ADDRESS = r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
# PCI base classes: 03 is display, 12 is processing accelerators (PCI Code and ID Assignment 1.11).
_CLASSES = ("0x03", "0x12")
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


def is_accelerator_class(code: str) -> bool:
    """Tell whether a PCI class code is that of a display or a processing accelerator."""
    return code.startswith(_CLASSES)


@dataclass(frozen=True, kw_only=True, slots=True)
class PciFunction:
    """One PCI function: its address, vendor and device id, driver and NUMA node."""

    address: str
    vendor: str
    device: str
    driver: str = ""
    numa: int | None = None

    @property
    def path(self) -> str:
        """Return its directory in sysfs."""
        return f"{PCI_ROOT}/{self.address}"


def pci_functions(tree: Tree, vendor: str) -> tuple[PciFunction, ...]:
    """Return a vendor's displays and accelerators by address; ``vendor`` is like ``0x10de``."""
    found = (pci_function(tree, address) for address in pci_addresses(tree, PCI_ROOT))
    return tuple(
        function
        for function in found
        if function.vendor == vendor
        and is_accelerator_class(tree.read(f"{function.path}/class") or "")
    )


def pci_addresses(tree: Tree, directory: str) -> tuple[str, ...]:
    """Return the PCI addresses that a directory names, in order; they are hexadecimal."""
    return tuple(sorted(tree.names(directory, _ADDRESS)))


def pci_function(tree: Tree, address: str) -> PciFunction:
    """Return what sysfs says of one address; unknown facts are empty."""
    path = f"{PCI_ROOT}/{address}"
    return PciFunction(
        address=address,
        vendor=tree.read(f"{path}/vendor") or "",
        device=tree.read(f"{path}/device") or "",
        driver=(tree.link(f"{path}/driver") or "").rpartition("/")[2],
        numa=numa_node(tree, address),
    )


def numa_node(tree: Tree, address: str) -> int | None:
    """Return the NUMA node of a PCI function; None where the machine says -1 or nothing."""
    return number(tree, f"{PCI_ROOT}/{address}/numa_node") if address else None


def number(tree: Tree, path: str) -> int | None:
    """Return the whole number that a file holds, if it holds one and it is not negative."""
    text = tree.read(path) or ""
    return int(text) if _NUMBER.fullmatch(text) else None


def bytes_in(tree: Tree, path: str) -> int | None:
    """Return a file's number of bytes, up to 19 digits."""
    text = tree.read(path) or ""
    return int(text) if re.fullmatch(r"\d{1,19}", text, re.ASCII) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Drm:
    """The DRM nodes of one device: their numbers, and those that exist under ``/dev/dri``."""

    card: int | None = None
    render: int | None = None
    nodes: tuple[Node, ...] = ()


def drm_of(tree: Tree, device: str) -> Drm:
    """Return the DRM nodes of a device's sysfs directory, the card first."""
    card = render = None
    nodes: list[Node] = []
    for name in tree.names(f"{device}/drm", r"(card|renderD)\d{1,6}"):
        if name.startswith("card"):
            card = int(name.removeprefix("card"))
        else:
            render = int(name.removeprefix("renderD"))
        if node := tree.node(f"/dev/dri/{name}"):
            nodes.append(node)
    return Drm(card=card, render=render, nodes=tuple(nodes))


def pci_of_node(tree: Tree, node: Node) -> str:
    """Return the PCI address behind a device node, or empty: the last one on its sysfs path."""
    kind = "char" if node.type.value == "c" else "block"
    path = tree.resolve(f"/sys/dev/{kind}/{node.major}:{node.minor}") or ""
    return pci_in_path(path)


def pci_in_path(path: str) -> str:
    """Return the last PCI address among the components of a path, or empty."""
    found = [part for part in path.split("/") if re.fullmatch(_ADDRESS, part)]
    return found[-1] if found else ""
