r"""NVIDIA: GPUs, MIG devices and IMEX channels.

Owns the discovery of devices from procfs, sysfs and, on the running machine, NVML, and the edits of
each device. The driver's files are :mod:`cdi.vendors.nvidia_driver`'s, MIG nodes
:mod:`cdi.vendors.nvidia_mig`'s, NVML :mod:`cdi.vendors.nvidia_nvml`'s and hooks
:mod:`cdi.vendors.nvidia_edits`'s. Leaves out Tegra, WSL, GDS and MOFED.

>>> parse_information("GPU UUID: \t GPU-1\nDevice Minor: \t 3")
{'GPU UUID': 'GPU-1', 'Device Minor': '3'}
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cdi.discovery import sysfs
from cdi.discovery.tree import Tree
from cdi.inventory import Accelerator, Driver, Node, Partition, PartitionType, Vendor
from cdi.inventory_reader import normal_pci
from cdi.spec import ContainerEdits
from cdi.vendors import base, nvidia_edits, nvidia_mig
from cdi.vendors.base import Basis, Found, Note, NoteKind, Support
from cdi.vendors.nvidia_driver import dev_root, find_driver, loaded_version, node_at, version_note
from cdi.vendors.nvidia_nvml import NvmlGpu, NvmlMig, read_nvml

_GPUS = "/proc/driver/nvidia/gpus"
_IMEX = "/dev/nvidia-caps-imex-channels"
_PCI_VENDOR = "0x10de"


def parse_information(text: str) -> dict[str, str]:
    """Return the fields of ``/proc/driver/nvidia/gpus/<address>/information``."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


@dataclass(frozen=True, kw_only=True)
class Nvidia(base.UsualVendor):
    """NVIDIA devices; ``nvml`` is asked on the running machine only."""

    nvml: Callable[[], tuple[NvmlGpu, ...] | None] = read_nvml

    support = Support(
        vendor=Vendor.NVIDIA,
        kinds={"gpu": "nvidia.com/gpu", "imex-channel": "nvidia.com/imex-channel"},
        basis=Basis.OFFICIAL,
        source="nvidia-ctk cdi generate of NVIDIA/nvidia-container-toolkit 1.20",
    )

    # -- discovery -------------------------------------------------------------------------------

    def discover(self, tree: Tree, driver_root: str) -> Found:
        """Find GPUs with their MIG devices, IMEX channels, and the driver's files."""
        looked = (_GPUS, "/dev/nvidiaN", f"{_IMEX}/channelN")
        root = dev_root(tree, driver_root)
        gpus = _by_procfs(tree, root) or _by_nodes(tree, root)
        if tree.is_live:
            gpus = _with_nvml(tree, root, gpus, self.nvml() or ())
        channels = _channels(tree, root)
        if not gpus and not channels:
            return Found(looked=looked, notes=_not_loaded(tree))
        driver, notes = find_driver(tree, driver_root)
        loaded = loaded_version(tree)
        notes += version_note(driver, loaded)
        driver = replace(
            driver,
            version=driver.version or loaded,
            links=driver.links + base.existing_by_path(tree, gpus),
        )
        notes += _mig_notes(gpus)
        return Found(devices=(*gpus, *channels), driver=driver, notes=notes, looked=looked)

    # -- edits -----------------------------------------------------------------------------------

    def device_edits(self, device: Accelerator, driver: Driver) -> ContainerEdits:
        """Return a GPU's or channel's nodes, and the hook that makes a GPU's by-path links."""
        if device.type == "imex-channel":
            path = f"{_IMEX}/channel{device.index}"
            return nvidia_edits.node_edits(device.nodes or (base.main_node(device, path),))
        nodes = device.nodes or (_main_node(device), *base.drm_nodes(device))
        hooks = nvidia_edits.create_symlinks(driver, base.by_path_links(device, driver))
        return replace(nvidia_edits.node_edits(nodes), hooks=hooks)

    def partition_edits(
        self,
        device: Accelerator,
        partition: Partition,
        driver: Driver,  # noqa: ARG002
    ) -> ContainerEdits:
        """Return the GPU's node and the capability nodes of the two instances."""
        minors = (partition.gi_minor, partition.ci_minor)
        caps = partition.nodes or tuple(
            Node(path=nvidia_mig.cap_path(minor)) for minor in minors if minor is not None
        )
        return nvidia_edits.node_edits((_main_node(device), *caps))

    def common_edits(
        self, devices: Sequence[Accelerator], driver: Driver
    ) -> tuple[ContainerEdits, tuple[Note, ...]]:
        """Return the control nodes, mounts and hooks of GPUs; channels need none of them."""
        if all(device.type == "imex-channel" for device in devices):
            return ContainerEdits(env=("NVIDIA_VISIBLE_DEVICES=void",)), ()
        return nvidia_edits.common_edits(driver)

    def uuid(self, device: Accelerator) -> str:
        """Return the GPU's UUID; a channel's number is already the same on every node."""
        return str(device.index) if device.type == "imex-channel" else device.uuid

    def type_name(self, device: Accelerator) -> str:
        """Return ``gpu`` or ``channel`` and the index."""
        prefix = "channel" if device.type == "imex-channel" else device.type
        return f"{prefix}{device.index}"


MODULE = Nvidia()


def _main_node(device: Accelerator) -> Node:
    """Return the GPU's own node: the one among its nodes, or the one its minor leads to."""
    for node in device.nodes:
        name = (node.container or node.path).removeprefix("/dev/nvidia")
        if name.isdigit():
            return node
    number = device.index if device.minor is None else device.minor
    return base.main_node(device, f"/dev/nvidia{number}")


def _by_procfs(tree: Tree, root: str) -> tuple[Accelerator, ...]:
    """Return the GPUs that the loaded driver shows, in PCI order, which is NVML's."""
    found: list[Accelerator] = []
    for name in sorted(tree.names(_GPUS)):
        facts = parse_information(tree.read(f"{_GPUS}/{name}/information") or "")
        minor = facts.get("Device Minor", "")
        if not minor.isdigit():
            continue
        uuid = facts.get("GPU UUID", "")
        found.append(
            _gpu(
                tree,
                root,
                index=len(found),
                minor=int(minor),
                pci=normal_pci(facts.get("Bus Location", name)),
                # Until a program has used the GPU the driver prints question marks.
                uuid="" if "?" in uuid else uuid,
                product=facts.get("Model", ""),
            )
        )
    return tuple(found)


def _by_nodes(tree: Tree, root: str) -> tuple[Accelerator, ...]:
    """Return a GPU for each node, for machines that show no procfs, as sandboxes do."""
    return tuple(
        _gpu(tree, root, index=i, minor=int(match[1]), pci=sysfs.pci_of_node(tree, node))
        for i, (match, node) in enumerate(tree.nodes(f"{root}/dev", r"nvidia(\d{1,3})"))
    )


def _gpu(
    tree: Tree, root: str, *, index: int, minor: int, pci: str, uuid: str = "", product: str = ""
) -> Accelerator:
    node = node_at(tree, root, f"/dev/nvidia{minor}")
    drm = sysfs.drm_of(tree, f"{sysfs.PCI_ROOT}/{pci}") if pci else sysfs.Drm()
    drm_nodes = (node_at(tree, root, inner.path) or inner for inner in drm.nodes)
    return Accelerator(
        vendor=Vendor.NVIDIA,
        type="gpu",
        index=index,
        uuid=uuid,
        product=product,
        pci=pci,
        numa=sysfs.numa_node(tree, pci),
        major=node.major if node else None,
        minor=minor,
        card=drm.card,
        render=drm.render,
        nodes=(node, *drm_nodes) if node else (),
        partitions=nvidia_mig.partitions(tree, root, minor),
    )


def _with_nvml(
    tree: Tree, root: str, gpus: Sequence[Accelerator], known: Sequence[NvmlGpu]
) -> tuple[Accelerator, ...]:
    """Return the GPUs with NVML's index, UUID, memory and MIG devices where it knows them."""
    by_minor = {gpu.minor: gpu for gpu in known}
    minors = nvidia_mig.parse_mig_minors(tree.read(nvidia_mig.MINORS) or "")
    found = []
    for gpu in gpus:
        facts = by_minor.get(-1 if gpu.minor is None else gpu.minor)
        if facts is None:
            found.append(gpu)
            continue
        parts = None
        if facts.migs is not None:
            parts = tuple(_mig(tree, root, minors, facts.minor, mig) for mig in facts.migs)
        found.append(
            replace(
                gpu,
                index=facts.index,
                uuid=facts.uuid,
                product=facts.product or gpu.product,
                memory=facts.memory,
                pci=facts.pci or gpu.pci,
                partitions=parts,
            )
        )
    return tuple(sorted(found, key=lambda gpu: gpu.index))


def _mig(tree: Tree, root: str, minors: nvidia_mig.Minors, gpu: int, mig: NvmlMig) -> Partition:
    gi_minor, ci_minor, nodes = nvidia_mig.cap_nodes(tree, root, minors, gpu, mig.gi, mig.ci)
    return Partition(
        type=PartitionType.MIG,
        index=mig.index,
        uuid=mig.uuid,
        profile=mig.name.rpartition(" ")[2] if " MIG " in mig.name else "",
        memory=mig.memory,
        gi=mig.gi,
        ci=mig.ci,
        gi_minor=gi_minor,
        ci_minor=ci_minor,
        nodes=nodes,
    )


def _channels(tree: Tree, root: str) -> tuple[Accelerator, ...]:
    return tuple(
        Accelerator(
            vendor=Vendor.NVIDIA,
            type="imex-channel",
            index=int(match[1]),
            major=node.major,
            minor=node.minor,
            nodes=(replace(node, container=f"{_IMEX}/{match[0]}") if root else node,),
        )
        for match, node in tree.nodes(f"{root}{_IMEX}", r"channel(\d{1,5})")
    )


def _not_loaded(tree: Tree) -> tuple[Note, ...]:
    """Say that there are GPUs without a driver: at boot this passes, so trying again helps."""
    addresses = [function.address for function in sysfs.pci_functions(tree, _PCI_VENDOR)]
    if not addresses:
        return ()
    text = (
        f"there are NVIDIA devices at {', '.join(addresses)}, but no driver serves them yet; "
        "load it (modprobe nvidia) and try again"
    )
    return (Note(vendor=Vendor.NVIDIA, kind=NoteKind.WARNING, text=text),)


def _mig_notes(gpus: Sequence[Accelerator]) -> tuple[Note, ...]:
    texts = []
    for gpu in gpus:
        if gpu.partitions == ():
            texts.append(f"GPU {gpu.index}: MIG is on and no instance is set up")
        elif any(not part.uuid for part in gpu.partitions or ()):
            texts.append(
                f"UUIDs and profiles of the MIG devices of GPU {gpu.index}, which only NVML knows; "
                "their numbers are taken in the order of their instances"
            )
    return tuple(Note(vendor=Vendor.NVIDIA, kind=NoteKind.LEFT_OUT, text=text) for text in texts)
