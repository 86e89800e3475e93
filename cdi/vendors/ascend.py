"""Huawei Ascend: davinci nodes, vNPUs, the shared manager nodes and the driver's directories.

Owns the facts of Ascend's own CDI package: which nodes are shared, that a vNPU's vdavinci node
becomes a davinci node, and the mounts. Leaves out ``LD_LIBRARY_PATH``, which that package sets: a
CDI variable replaces the image's whole value, so images keep theirs.

>>> MODULE.support.kinds
{'npu': 'ascend.com/npu'}
"""

from collections.abc import Sequence
from dataclasses import replace

from cdi.discovery import sysfs
from cdi.discovery.tree import Tree
from cdi.inventory import Accelerator, Driver, Node, Partition, PartitionType, Vendor
from cdi.spec import ContainerEdits, Mount
from cdi.vendors import base
from cdi.vendors.base import Basis, Found, Note, NoteKind, Support

_MANAGER = "/dev/davinci_manager"
# On 310B the manager of containers is a node of its own, and appears under the usual name.
_MANAGER_DOCKER = "/dev/davinci_manager_docker"
_REQUIRED = (_MANAGER, "/dev/devmm_svm", "/dev/hisi_hdc")
_OPTIONAL = ("/dev/dvpp_cmdlist",)
# The media and control nodes that only 310B has, told apart by the manager above.
_310B = tuple(
    f"/dev/{name}"
    for name in (
        *("svm0", "ts_aisle", "upgrade", "sys", "vdec", "vpc", "pngd", "venc", "log_drv"),
        *("acodec", "ai", "ao", "vo", "hdmi"),
    )
)
_UB_DIRECTORIES = ("/dev/uburma", "/dev/ummu")
_LIBRARIES = ("/usr/local/Ascend/driver/lib64", "/usr/local/dcmi")
_CONFIGS = ("/usr/local/Ascend/driver/include",)
_BINARIES = ("/usr/local/bin/npu-smi",)
_VERSION = "/usr/local/Ascend/driver/version.info"
_MOUNT_OPTIONS = ("rbind", "rprivate", "ro")
# A vNPU of device N is numbered from 100 + 16 N on (npu-smi create-vnpu).
_FIRST_VNPU, _VNPUS = 100, 16


class Ascend(base.UsualVendor):
    """Huawei Ascend NPUs and their vNPUs."""

    support = Support(
        vendor=Vendor.ASCEND,
        kinds={"npu": "ascend.com/npu"},
        basis=Basis.OFFICIAL,
        source="the CDI package of Ascend/mind-cluster, and its documented output",
    )

    def discover(self, tree: Tree, driver_root: str) -> Found:
        """Find davinci nodes, the vNPUs beside them, and the driver's files."""
        looked = ("/dev/davinciN",)
        parts = _vnpus(tree)
        devices = []
        for match, node in tree.nodes("/dev", r"davinci(\d{1,4})"):
            index = int(match[1])
            pci = sysfs.pci_of_node(tree, node)
            devices.append(
                Accelerator(
                    vendor=Vendor.ASCEND,
                    type="npu",
                    index=index,
                    pci=pci,
                    numa=sysfs.numa_node(tree, pci),
                    major=node.major,
                    minor=node.minor,
                    nodes=(node,),
                    partitions=parts.get(index) or None,
                )
            )
        if not devices:
            return Found(looked=looked)
        driver = Driver(
            version=_version(tree.read(f"{driver_root.rstrip('/')}{_VERSION}") or ""),
            root=driver_root,
            nodes=_shared_nodes(tree),
            libraries=base.existing_files(tree, driver_root, _LIBRARIES),
            binaries=base.existing_files(tree, driver_root, _BINARIES),
            configs=base.existing_files(tree, driver_root, _CONFIGS),
        )
        notes = [
            _left_out(f"shared node {path}: it does not exist on this machine")
            for path in _REQUIRED
            if path not in {node.container or node.path for node in driver.nodes}
        ]
        return Found(devices=tuple(devices), driver=driver, notes=tuple(notes), looked=looked)

    def device_edits(self, device: Accelerator, driver: Driver) -> ContainerEdits:  # noqa: ARG002
        """Return the NPU's davinci node."""
        main = base.main_node(device, f"/dev/davinci{device.index}")
        return base.node_edits(device.nodes or (main,))

    def partition_edits(
        self,
        device: Accelerator,  # noqa: ARG002
        partition: Partition,
        driver: Driver,  # noqa: ARG002
    ) -> ContainerEdits:
        """Return the vNPU's vdavinci node, which a container sees as a davinci node."""
        nodes = partition.nodes or (Node(path=f"/dev/vdavinci{partition.index}"),)
        return base.node_edits(
            replace(node, container=node.container or node.path.replace("vdavinci", "davinci"))
            for node in nodes
        )

    def common_edits(
        self,
        devices: Sequence[Accelerator],  # noqa: ARG002
        driver: Driver,
    ) -> tuple[ContainerEdits, tuple[Note, ...]]:
        """Return the shared nodes and the driver's directories."""
        nodes = driver.nodes or tuple(Node(path=path) for path in _REQUIRED)
        files = (*driver.libraries, *driver.binaries, *driver.firmware, *driver.configs)
        mounts = base.mounts(files, driver, _MOUNT_OPTIONS) + base.mounts(
            driver.sockets, driver, base.SOCKET_OPTIONS
        )
        notes = [
            _left_out(
                "LD_LIBRARY_PATH: a CDI variable replaces the image's; images need "
                "/usr/local/Ascend/driver/lib64/common and .../driver in theirs"
            )
        ]
        if not driver.has_files:
            wanted = ", ".join((*_LIBRARIES, *_CONFIGS, *_BINARIES))
            notes.append(_left_out(f"the driver's files ({wanted}): name them under driver"))
        if not driver.nodes:
            notes.append(
                _left_out(
                    f"{', '.join(_OPTIONAL)} and other nodes that only some machines have: "
                    "name those of the target nodes under driver.nodes"
                )
            )
        typed = (_bind(mount) for mount in mounts)
        return replace(base.node_edits(nodes), mounts=base.by_depth(typed)), tuple(notes)

    def partition_name(self, device: Accelerator, partition: Partition) -> str:  # noqa: ARG002
        """Return the vNPU's own number, which no other device of the node has."""
        return str(partition.index)


MODULE = Ascend()


def _bind(mount: Mount) -> Mount:
    return replace(mount, type="bind")


def _left_out(text: str) -> Note:
    return Note(vendor=Vendor.ASCEND, kind=NoteKind.LEFT_OUT, text=text)


def _version(text: str) -> str:
    """Return the version in a ``version.info``, whose lines are ``Key=value``."""
    pairs = (line.partition("=") for line in text.splitlines())
    return next((value.strip() for key, _, value in pairs if key.strip().lower() == "version"), "")


def _shared_nodes(tree: Tree) -> tuple[Node, ...]:
    docker = tree.node(_MANAGER_DOCKER)
    paths = [*_REQUIRED, *_OPTIONAL]
    if docker is not None:
        paths = [*_OPTIONAL, *_310B]
    nodes = list(base.existing_nodes(tree, paths))
    if docker is not None:
        nodes.insert(0, replace(docker, container=_MANAGER))
    for directory in _UB_DIRECTORIES:
        nodes += [node for _, node in tree.nodes(directory, ".*")]
    return tuple(nodes)


def _vnpus(tree: Tree) -> dict[int, tuple[Partition, ...]]:
    """Return the vNPUs by the device that their numbers belong to."""
    found: dict[int, tuple[Partition, ...]] = {}
    for match, node in tree.nodes("/dev", r"vdavinci(\d{3,5})"):
        number = int(match[1])
        device = (number - _FIRST_VNPU) // _VNPUS
        part = Partition(type=PartitionType.VNPU, index=number, nodes=(node,))
        found[device] = (*found.get(device, ()), part)
    return found
