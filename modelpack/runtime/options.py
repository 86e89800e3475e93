"""What an import into a container runtime is told, and what it tells.

Owns the values, and nothing that talks to anything.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack.errors import ModelpackError
from modelpack.pulling import PullResult
from modelpack.reference import RegistryReference
from modelpack.registry.credentials import Credentials

SOCKET = "/run/containerd/containerd.sock"
"""Where containerd listens unless it is told otherwise."""
SNAPSHOTTER = "overlayfs"
"""The snapshotter that containerd uses unless it is told otherwise."""
NAMESPACE = "k8s.io"
"""The containerd namespace of everything that comes through CRI."""


class NothingHereError(ModelpackError):
    """The runtime lacks a snapshot of an image that was only to be recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """Into which containerd, and how."""

    address: Path | None = None
    """The socket as this process sees it; None is the usual one, below ``host_root``."""
    namespace: str = NAMESPACE
    """Of containerd. Any other than CRI's is not seen by a kubelet."""
    snapshotter: str = SNAPSHOTTER
    host_root: Path = Path("/")
    """Where the node's file system is seen from this process."""
    name: RegistryReference | None = None
    """What to call the image; None is the reference it is pulled from, which a mirror's is not."""
    credentials: Credentials | None = None
    """For containerd, which asks the registry for the manifest once more; None is the stored
    login."""
    pin: bool = True
    """Keep the kubelet's garbage collection away from it."""
    unpin_superseded: bool = True
    """Leave what the tag named before to that collection."""
    fetch: bool = True
    """False only records an image whose snapshots are there, and leaves nothing if that fails."""
    seeds: tuple[Path, ...] = ()
    """Directories whose files may hold some of the chunks."""
    verify: str = "chunks"
    """``chunks``: BLAKE3 of all that arrives. ``full``: also the SHA-256 of every layer, new or
    there already, from its files."""
    page_cache: bool | None = None
    """Whether files are written through it; None is as long as there is free memory for them, so
    that what running Pods have in it stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportResult:
    """What an import did."""

    pull: PullResult
    image_id: str
    """As CRI knows the image: the digest of its config."""
    snapshots: int
    """How many the image has, one for each layer."""
    imported_bytes: int
    """Of the files that went into snapshots made by this run."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object: a pull's members, and these."""
        return {
            **self.pull.to_json(),
            "image_id": self.image_id,
            "snapshots": self.snapshots,
            "imported_bytes": self.imported_bytes,
        }
