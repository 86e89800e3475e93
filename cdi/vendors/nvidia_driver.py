"""The NVIDIA driver's user space: which of its files containers need, and where they lie.

Owns the search of libraries, programs, firmware, sockets and configuration under a driver's root,
and the symbolic links that programs expect beside the libraries. Leaves out devices
(:mod:`cdi.vendors.nvidia`) and edits (:mod:`cdi.vendors.nvidia_edits`).

The lists are nvidia-ctk's, from pkg/nvcdi and internal/discover of nvidia-container-toolkit 1.20.

>>> version_of("libcuda.so.580.95.05"), version_of("libcuda.so.1")
('580.95.05', '')
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cdi.discovery.ldcache import parse_ldcache
from cdi.discovery.tree import Tree
from cdi.inventory import Driver, HostFile, Link, Node, Vendor
from cdi.vendors.base import Note, NoteKind

CONTROL_NODES = (
    "/dev/nvidia-modeset",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidiactl",
)
_MULTIARCH = ("x86_64-linux-gnu", "aarch64-linux-gnu")
_LIBRARY_DIRECTORIES = (
    "/",
    "/usr/lib64",
    *(f"/usr/lib/{arch}" for arch in _MULTIARCH),
    *(f"/usr/lib/{arch}/nvidia/current" for arch in _MULTIARCH),
    "/lib64",
    *(f"/lib/{arch}" for arch in _MULTIARCH),
    *(f"/lib/{arch}/nvidia/current" for arch in _MULTIARCH),
)
_PROGRAM_DIRECTORIES = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)
_PROGRAMS = (
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-imex",
    "nvidia-imex-ctl",
)
_SOCKETS = ("nvidia-persistenced/socket", "nvidia-fabricmanager/socket")
_MPS = "/tmp/nvidia-mps"  # noqa: S108 - where the MPS control daemon puts its pipes by default
_CONFIG_DIRECTORIES = ("/etc", "/usr/local/share", "/usr/share")
_CONFIGS = (
    "glvnd/egl_vendor.d/10_nvidia.json",
    "egl/egl_external_platform.d/15_nvidia_gbm.json",
    "egl/egl_external_platform.d/10_nvidia_wayland.json",
    "nvidia/nvoptix.bin",
    "X11/xorg.conf.d/10-nvidia.conf",
    "X11/xorg.conf.d/nvidia-drm-outputclass.conf",
)
# Vulkan's loader looks in /etc/vulkan wherever the host keeps these.
_VULKAN_CONFIGS = (
    "vulkan/icd.d/nvidia_icd.json",
    "vulkan/icd.d/nvidia_icd.x86_64.json",
    "vulkan/icd.d/nvidia_icd.aarch64.json",
    "vulkan/icd.d/nvidia_layers.json",
    "vulkan/implicit_layer.d/nvidia_layers.json",
)
# These carry versions of their own.
_OTHER_LIBRARIES = re.compile(
    r"libnvidia-egl-(gbm|wayland)\.so\.\d+(\.\d+)+|libnvidia-nvvm70\.so\.\d+", re.ASCII
)
_XORG_DIRECTORIES = (
    "nvidia/xorg",
    "xorg/modules/drivers",
    "xorg/modules/extensions",
    "xorg/modules/updates/drivers",
    "xorg/modules/updates/extensions",
)
_HOOKS = (
    "/usr/bin/nvidia-cdi-hook",
    "/usr/local/nvidia/toolkit/nvidia-cdi-hook",
    "/usr/bin/nvidia-ctk",
)
_VERSION = re.compile(r"lib[A-Za-z0-9_.+-]+\.so\.(\d+\.\d+(?:\.\d+)?)", re.ASCII)
_KERNEL_VERSION = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+\.\d+(?:\.\d+)?)\s", re.ASCII)


def version_of(name: str) -> str:
    """Return the driver version at the end of a library's name, or empty."""
    found = _VERSION.fullmatch(name)
    return found[1] if found else ""


def loaded_version(tree: Tree) -> str:
    """Return the version of the kernel module that is loaded, or empty."""
    text = tree.read("/proc/driver/nvidia/version") or ""
    found = _KERNEL_VERSION.search(f"{text}\n")
    return found[1] if found else (tree.read("/sys/module/nvidia/version") or "")


def dev_root(tree: Tree, driver_root: str) -> str:
    """Return where the device nodes lie: under the driver's root if it has them, else ``/``."""
    root = driver_root.rstrip("/")
    return root if root and tree.node(f"{root}/dev/nvidiactl") is not None else ""


def node_at(tree: Tree, root: str, path: str) -> Node | None:
    """Return the node at a path below a dev root; a container sees it without that root."""
    node = tree.node(f"{root}{path}")
    return replace(node, container=path) if node is not None and root else node


def find_driver(tree: Tree, driver_root: str) -> tuple[Driver, tuple[Note, ...]]:
    """Find the driver's files under ``driver_root``.

    A root without libraries gives a driver without files, and a note that says what is missing.
    """
    search = _Search(tree, driver_root)
    directory, version = search.libcuda()
    root = dev_root(tree, driver_root)
    driver = Driver(
        version=version,
        root=driver_root,
        nodes=tuple(
            node for path in CONTROL_NODES if (node := node_at(tree, root, path)) is not None
        ),
        sockets=search.sockets(),
        hook=next((path for path in _HOOKS if tree.is_program(path)), ""),
    )
    if not version:
        text = (
            f"the driver's libraries and programs: no libcuda.so.* of a driver under {driver_root}"
        )
        return driver, (_note(NoteKind.LEFT_OUT, text),)
    libraries = search.libraries(directory, version)
    driver = replace(
        driver,
        libraries=libraries,
        binaries=search.programs(),
        firmware=search.firmware(version),
        configs=search.configs(),
        links=search.links(libraries),
    )
    return driver, ()


def version_note(driver: Driver, loaded: str) -> tuple[Note, ...]:
    """Warn where the loaded kernel module and the libraries do not belong together."""
    if not loaded or not driver.version or loaded == driver.version:
        return ()
    text = (
        f"the kernel module is {loaded} and the libraries are {driver.version}: programs fail until "
        "the module is loaded anew, most simply by a reboot"
    )
    return (_note(NoteKind.WARNING, text),)


def _note(kind: NoteKind, text: str) -> Note:
    return Note(vendor=Vendor.NVIDIA, kind=kind, text=text)


class _Search:
    """Find files below the driver's root; results are host paths that hold the root."""

    def __init__(self, tree: Tree, driver_root: str) -> None:
        self._tree = tree
        self._root = driver_root.rstrip("/")

    def _under(self, path: str) -> str:
        return f"{self._root}{path}"

    def libcuda(self) -> tuple[str, str]:
        """Return the directory and version of libcuda, or else of libnvidia-ml; or empty."""
        for library in ("libcuda.so.", "libnvidia-ml.so."):
            for directory in (*_LIBRARY_DIRECTORIES, *self._cached_directories(library)):
                place = self._under(directory)
                for name in self._tree.names(place, rf"{re.escape(library)}\d.*"):
                    if version := version_of(name):
                        path = self._tree.resolve(f"{place.rstrip('/')}/{name}") or ""
                        return path.rpartition("/")[0], version
        return "", ""

    def _cached_directories(self, library: str) -> tuple[str, ...]:
        data = self._tree.read_bytes(self._under("/etc/ld.so.cache")) or b""
        paths = (entry.path for entry in parse_ldcache(data) if entry.name.startswith(library))
        return tuple(dict.fromkeys(path.rpartition("/")[0] for path in paths))

    def libraries(self, directory: str, version: str) -> tuple[HostFile, ...]:
        """Return the libraries of the version, and the few that have versions of their own."""
        found: dict[str, None] = {}
        for place in (directory, f"{directory}/vdpau"):
            for name in self._tree.names(place, r".*\.so\..*"):
                if name.endswith(f".so.{version}") or _OTHER_LIBRARIES.fullmatch(name):
                    self._add_library(f"{place}/{name}", found)
        xorg = [f"{directory}/{name}" for name in _XORG_DIRECTORIES]
        for usual in ("/usr/lib", "/usr/lib64"):
            xorg += [self._under(f"{usual}/{name}") for name in _XORG_DIRECTORIES[1:]]
        for wanted in ("nvidia_drv.so", f"libglxserver_nvidia.so.{version}"):
            place = next((p for p in xorg if self._tree.is_file(f"{p}/{wanted}")), "")
            if place:
                self._add_library(f"{place}/{wanted}", found)
        return tuple(HostFile(path=path) for path in found)

    def _add_library(self, path: str, found: dict[str, None]) -> None:
        resolved = self._tree.resolve(path)
        if resolved is not None and self._tree.is_file(resolved):
            found[resolved] = None

    def programs(self) -> tuple[HostFile, ...]:
        """Return each program where it is found first."""
        return self._first(_PROGRAMS, _PROGRAM_DIRECTORIES, self._tree.is_program)

    def _first(
        self, names: Iterable[str], directories: Sequence[str], fits: Callable[[str], bool]
    ) -> tuple[HostFile, ...]:
        found = []
        for name in names:
            paths = (self._under(f"{directory}/{name}") for directory in directories)
            if path := next((path for path in paths if fits(path)), ""):
                found.append(HostFile(path=path))
        return tuple(found)

    def sockets(self) -> tuple[HostFile, ...]:
        """Return the daemons' sockets and the MPS pipe directory."""
        daemons = self._first(_SOCKETS, ("/run", "/var/run"), self._tree.exists)
        mps = self._under(_MPS)
        return (*daemons, HostFile(path=mps)) if self._tree.exists(mps) else daemons

    def firmware(self, version: str) -> tuple[HostFile, ...]:
        """Return the GSP and microcode files, from where the kernel looks for firmware."""
        custom = self._tree.read("/sys/module/firmware_class/parameters/path") or ""
        release = self._tree.read("/proc/sys/kernel/osrelease") or ""
        directories = [custom] if custom.startswith("/") else []
        for directory in ("/lib/firmware/updates", "/lib/firmware"):
            directories += [f"{directory}/{release}"] if release else []
            directories.append(directory)
        found: dict[str, None] = {}
        for directory in directories:
            place = self._under(f"{directory.rstrip('/')}/nvidia/{version}")
            for name in self._tree.names(place, r"(gsp|ucodes).*\.bin"):
                found[f"{place}/{name}"] = None
        return tuple(HostFile(path=path) for path in found)

    def configs(self) -> tuple[HostFile, ...]:
        """Return the configuration of EGL, X11 and Vulkan."""
        found = [
            HostFile(path=path)
            for name in _CONFIGS
            for directory in _CONFIG_DIRECTORIES
            if self._tree.is_file(path := self._under(f"{directory}/{name}"))
        ]
        seen = set()
        for name in _VULKAN_CONFIGS:
            paths = (self._under(f"{place}/{name}") for place in (*_CONFIG_DIRECTORIES, ""))
            path = next((path for path in paths if self._tree.is_file(path)), "")
            resolved = self._tree.resolve(path) if path else None
            if resolved is not None and resolved not in seen:
                seen.add(resolved)
                found.append(HostFile(path=path, container=f"/etc/{name}"))
        return tuple(found)

    def links(self, libraries: Sequence[HostFile]) -> tuple[Link, ...]:
        """Return the links beside the libraries that lead to them, such as libcuda.so.1."""
        targets = {file.path for file in libraries}
        directories = dict.fromkeys(file.path.rpartition("/")[0] for file in libraries)
        found = []
        for directory in directories:
            for name in self._tree.names(directory, r"lib.*\.so(\..*)?"):
                path = f"{directory}/{name}"
                text, resolved = self._tree.link(path), self._tree.resolve(path)
                if text is None or resolved not in targets:
                    continue
                if "/" in text:
                    # A link through another directory, as Debian's alternatives are, is made to
                    # point at the library itself; one to the next name of a chain stays.
                    text = resolved.removeprefix(f"{directory}/").removeprefix(self._root)
                found.append(Link(target=text, path=path.removeprefix(self._root)))
        return tuple(found)
