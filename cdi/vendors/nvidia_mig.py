r"""MIG devices as procfs shows them, without NVML.

Owns ``mig-minors``, which numbers the capability nodes, and the capabilities directory, which shows
the instances that exist. Leaves out the UUIDs and profiles of MIG devices, which only NVML knows.

>>> parse_mig_minors("gpu3/gi1/access 31\ngpu3/gi1/ci2/access 312\nconfig 1")[3, 1, 2]
312
"""

import re
from collections.abc import Mapping

from cdi.discovery.tree import Tree
from cdi.inventory import Node, Partition, PartitionType
from cdi.vendors.nvidia_driver import node_at

MINORS = "/proc/driver/nvidia-caps/mig-minors"
CAPABILITIES = "/proc/driver/nvidia/capabilities"

# (gpu minor, gpu instance, compute instance or None for the GPU instance itself) to cap minor.
Minors = Mapping[tuple[int, int, int | None], int]

_LINE = re.compile(r"gpu(\d{1,4})/gi(\d{1,4})(?:/ci(\d{1,4}))?/access (\d{1,7})", re.ASCII)


def parse_mig_minors(text: str) -> Minors:
    """Return the cap minors of GPU instances and compute instances; other lines are skipped."""
    found: dict[tuple[int, int, int | None], int] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is not None:
            gpu, gi, ci, minor = match.groups()
            found[int(gpu), int(gi), None if ci is None else int(ci)] = int(minor)
    return found


def cap_path(minor: int) -> str:
    """Return the capability node with a minor."""
    return f"/dev/nvidia-caps/nvidia-cap{minor}"


def instances(tree: Tree, gpu: int) -> tuple[tuple[int, int], ...] | None:
    """Return the (gi, ci) pairs that exist on a GPU, by number; None where MIG is not at hand.

    The order is that in which the driver numbers MIG devices on the machines seen so far.
    """
    base = f"{CAPABILITIES}/gpu{gpu}/mig"
    if not tree.exists(base):
        return None
    return tuple(
        (int(gi.removeprefix("gi")), int(ci.removeprefix("ci")))
        for gi in tree.names(base, r"gi\d{1,4}")
        for ci in tree.names(f"{base}/{gi}", r"ci\d{1,4}")
    )


def cap_nodes(
    tree: Tree, root: str, minors: Minors, gpu: int, gi: int, ci: int
) -> tuple[int | None, int | None, tuple[Node, ...]]:
    """Return the cap minors of a MIG device, and those of its two nodes that exist."""
    pair = (minors.get((gpu, gi, None)), minors.get((gpu, gi, ci)))
    found = (node_at(tree, root, cap_path(minor)) for minor in pair if minor is not None)
    return (*pair, tuple(node for node in found if node is not None))


def partitions(tree: Tree, root: str, gpu: int) -> tuple[Partition, ...] | None:
    """Return a GPU's MIG devices from procfs alone; None where it has none."""
    minors = parse_mig_minors(tree.read(MINORS) or "")
    found = []
    for index, (gi, ci) in enumerate(instances(tree, gpu) or ()):
        gi_minor, ci_minor, nodes = cap_nodes(tree, root, minors, gpu, gi, ci)
        found.append(
            Partition(
                type=PartitionType.MIG,
                index=index,
                gi=gi,
                ci=ci,
                gi_minor=gi_minor,
                ci_minor=ci_minor,
                nodes=nodes,
            )
        )
    return tuple(found) or None
