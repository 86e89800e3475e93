"""From how a snapshot is mounted to the directories on disk behind it.

Owns reading overlayfs and bind mounts, and finding the node's paths from where this process sees
its file system. Leaves out mounting: nothing is ever mounted.

    >>> mounts = [Mount(type="bind", source="/var/lib/containerd/x/snapshots/1/fs")]
    >>> Host(Path("/")).writable_directory(mounts)
    PosixPath('/var/lib/containerd/x/snapshots/1/fs')
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.errors import IntegrityError, UsageError
from modelpack.runtime.client import Mount

_BIND = "bind"
# fuse-overlayfs gives the same options under its own type.
_OVERLAYS = ("overlay", "fuse3.fuse-overlayfs")
# Linux follows at most 40 links in one path.
_MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class Host:
    """The node's file system, seen below ``root``."""

    root: Path

    def writable_directory(self, mounts: Sequence[Mount]) -> Path:
        """Return the directory that holds what is written through an active snapshot's mounts.

        Raises:
            UsageError: the snapshotter keeps its files elsewhere than in a directory.
        """
        mount = _single(mounts)
        if mount.type == _BIND:
            return self.path(mount.source)
        upper = mount.option("upperdir")
        if upper is None:
            raise UsageError("containerd gave a snapshot that cannot be written to; run again")
        return self.path(upper)

    def layer_directories(self, mounts: Sequence[Mount], layers: int) -> tuple[Path, ...]:
        """Return the directories of a view's layers, lowest first, as many as ``layers``.

        A snapshotter that keeps all layers in one directory gives that one for each.

        Raises:
            UsageError: the snapshotter keeps its files elsewhere than in directories.
            IntegrityError: the view has another number of layers.
        """
        mount = _single(mounts)
        if mount.type == _BIND:
            return (self.path(mount.source),) * layers
        lower = (mount.option("lowerdir") or "").split(":")
        if len(lower) != layers:
            raise IntegrityError(
                f"containerd mounts {len(lower)} directories for an image of {layers} layers"
            )
        return tuple(self.path(text) for text in reversed(lower))

    def path(self, text: str) -> Path:
        """Return where this process finds an absolute path of the node.

        Symbolic links are the node's own, so they are followed below ``root``.

        Raises:
            UsageError: the path is not absolute, or its links run in circles.
        """
        if not text.startswith("/"):
            raise UsageError(f"containerd gave the path {text!r:.200}, which is not absolute")
        if self.root == Path("/"):
            return Path(text)
        pending = text.split("/")[::-1]
        resolved: list[str] = []
        links = 0
        while pending:
            name = pending.pop()
            if name in {"", "."}:
                continue
            if name == "..":
                resolved = resolved[:-1]
                continue
            try:
                target = os.readlink(self.root.joinpath(*resolved, name))
            except OSError:  # no link, or not there at all
                resolved.append(name)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise UsageError(f"{text} below {self.root}: its symbolic links run in circles")
            if target.startswith("/"):
                resolved = []
            pending += target.split("/")[::-1]
        return self.root.joinpath(*resolved)


def _single(mounts: Sequence[Mount]) -> Mount:
    if len(mounts) == 1 and mounts[0].type in (_BIND, *_OVERLAYS):
        return mounts[0]
    kinds = ", ".join(mount.type for mount in mounts) or "nothing"
    raise UsageError(
        f"the snapshotter mounts {kinds}, into which files cannot be moved; use overlayfs, or let "
        "containerd pull the image itself"
    )
