"""The edits of NVIDIA devices: nodes, driver mounts, and the hooks of nvidia-cdi-hook.

Owns the shape that ``nvidia-ctk cdi generate`` gives, and what stands in for its hooks where that
program is not installed: links become bind mounts of the libraries themselves. Leaves out which
files and devices there are.

>>> links_of(HostFile(path="/lib64/libcuda.so.580.95.05"), Driver())
(Link(target='libcuda.so.1', path='/lib64/libcuda.so'),)
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cdi.inventory import Driver, HostFile, Link, Node, Vendor
from cdi.spec import ContainerEdits, DeviceNode, Hook, Mount
from cdi.vendors import base
from cdi.vendors.base import Note, NoteKind
from cdi.vendors.nvidia_driver import CONTROL_NODES

# Assigned in Linux's devices.txt; the majors of nvidia-uvm and the capabilities come at boot.
MAJOR = 195
_FIXED_MINORS = {"/dev/nvidiactl": 255, "/dev/nvidia-modeset": 254}

_LIBRARY = re.compile(r"lib[^/]+\.so(\.[^/]*)?")


def node_edits(nodes: Iterable[Node]) -> ContainerEdits:
    """Return the edits of nodes, as nvidia-ctk 1.20 writes them.

    The owner stays the container's user, and a group that a node is only open to is added to the
    container's process.
    """
    found = [base.node_edit(node, with_owner=False) for node in nodes]
    gids = dict.fromkeys(gid for node in found if (gid := _needed_gid(node)))
    return ContainerEdits(device_nodes=tuple(found), additional_gids=tuple(gids))


def _needed_gid(node: DeviceNode) -> int:
    """Return the group that a process needs to use the node, or 0 when it needs none."""
    open_to_all = node.file_mode is None or node.file_mode & 0o006 == 0o006
    return 0 if open_to_all else node.gid or 0


def control_nodes(driver: Driver) -> tuple[Node, ...]:
    """Return the shared nodes: those named, or the usual ones with the numbers that are fixed."""
    if driver.nodes:
        return tuple(sorted(driver.nodes, key=lambda node: node.container or node.path))
    return tuple(
        Node(
            path=path, major=MAJOR if path in _FIXED_MINORS else None, minor=_FIXED_MINORS.get(path)
        )
        for path in CONTROL_NODES
    )


def create_symlinks(driver: Driver, links: Sequence[Link]) -> tuple[Hook, ...]:
    """Return the hook that makes links in the container; none without links or without a hook."""
    args = [part for link in links for part in ("--link", f"{link.target}::{link.path}")]
    return _hooks(driver, "create-symlinks", *args) if args else ()


def _hooks(driver: Driver, name: str, *args: str) -> tuple[Hook, ...]:
    if not driver.hook:
        return ()
    program = driver.hook.rpartition("/")[2]
    command = (program, "hook") if program == "nvidia-ctk" else (program,)
    return (
        Hook(
            hook_name="createContainer",
            path=driver.hook,
            args=(*command, name, *args),
            env=("NVIDIA_CTK_DEBUG=false",),
        ),
    )


def links_of(file: HostFile, driver: Driver) -> tuple[Link, ...]:
    """Return the links that programs expect for a library whether or not the host has them."""
    path = file.container or driver.in_container(file.path)
    directory, _, name = path.rpartition("/")
    stem = name.partition(".so.")[0] if ".so." in name else ""
    match stem:
        case "libcuda":  # many programs open libcuda.so by this name
            return (Link(target="libcuda.so.1", path=f"{directory}/libcuda.so"),)
        case "libGLX_nvidia":  # indirect GLX under libglvnd
            return (Link(target=name, path=f"{directory}/libGLX_indirect.so.0"),)
        case "libnvidia-opticalflow":
            return (Link(target=f"{stem}.so.1", path=f"{directory}/{stem}.so"),)
        case "libnvidia-allocator":  # the GBM back end is this library under another name
            target = "../libnvidia-allocator.so.1"
            return (Link(target=target, path=f"{directory}/gbm/nvidia-drm_gbm.so"),)
        case "libnvidia-vulkan-producer" | "libglxserver_nvidia":
            return (Link(target=name, path=f"{directory}/{stem}.so"),)
    return ()


def common_edits(driver: Driver) -> tuple[ContainerEdits, tuple[Note, ...]]:
    """Return the edits that all GPUs share, and what they leave out."""
    notes = list(_file_notes(driver))
    libraries = [driver.in_container(file.path) for file in driver.libraries]
    links = _library_links(driver)
    mounts = base.mounts(
        (*driver.libraries, *driver.binaries, *driver.firmware, *driver.configs), driver
    ) + base.mounts(driver.sockets, driver, base.SOCKET_OPTIONS)
    env = ["NVIDIA_VISIBLE_DEVICES=void"]
    hooks: tuple[Hook, ...] = ()
    if libcuda := next((path for path in libraries if "/libcuda.so." in path), ""):
        env.insert(0, f"NVIDIA_CTK_LIBCUDA_DIR={libcuda.rpartition('/')[0]}")
    if driver.libraries:
        folders = dict.fromkeys(
            path.rpartition("/")[0]
            for path in sorted(libraries)
            if _LIBRARY.fullmatch(path.rpartition("/")[2])
        )
        compat = (f"--host-driver-version={driver.version}",) if driver.version else ()
        hooks = (
            *create_symlinks(driver, links),
            *_hooks(driver, "enable-cuda-compat", *compat),
            *_hooks(driver, "update-ldcache", *(p for f in folders for p in ("--folder", f))),
            *_hooks(driver, "disable-device-node-modification"),
        )
        if not hooks:
            mounts += _mounted_links(links, mounts)
            notes.append(_no_hook_note(tuple(folders)))
    edits = replace(
        node_edits(control_nodes(driver)),
        env=tuple(env),
        mounts=base.by_depth(mounts),
        hooks=hooks,
    )
    return edits, tuple(notes)


def _library_links(driver: Driver) -> list[Link]:
    """Return all links for the libraries, each path once, by the library's place."""
    expected = [link for file in driver.libraries for link in links_of(file, driver)]
    named = [link for link in driver.links if not link.path.startswith(base.BY_PATH)]
    unique = {link.path: link for link in (*named, *expected)}
    return sorted(unique.values(), key=lambda link: link.path)


def _mounted_links(links: Sequence[Link], mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Return a bind mount of the library for each link that leads to one."""
    by_path = {mount.container_path: mount for mount in mounts}
    targets = {link.path: _absolute(link) for link in links}
    found = []
    for link in links:
        path = targets[link.path]
        for _ in targets:  # a chain is no longer than the number of links
            path = targets.get(path, path)
        if mount := by_path.get(path):
            found.append(replace(mount, container_path=link.path))
    return tuple(found)


def _absolute(link: Link) -> str:
    """Return where a link leads, as a path in the container."""
    if link.target.startswith("/"):
        return link.target
    parts = link.path.split("/")[:-1]
    for part in link.target.split("/"):
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def _note(kind: NoteKind, text: str) -> Note:
    return Note(vendor=Vendor.NVIDIA, kind=kind, text=text)


def _file_notes(driver: Driver) -> tuple[Note, ...]:
    if driver.libraries:
        return ()
    text = (
        "the driver's libraries, programs, firmware and configuration: name them under driver, or "
        "give the driver root of a machine that has them; containers get the device nodes alone"
    )
    return (_note(NoteKind.LEFT_OUT, text),)


def _no_hook_note(folders: Sequence[str]) -> Note:
    text = (
        "hooks, for want of nvidia-cdi-hook (driver.hook): the linker's cache is not updated, so "
        f"only images that search {', '.join(folders)} by themselves find the libraries; there is no "
        "CUDA forward compatibility, and containers may try to make device nodes; links are bind "
        "mounts instead"
    )
    return _note(NoteKind.LEFT_OUT, text)
