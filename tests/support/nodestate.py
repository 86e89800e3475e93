"""What lies in a node's containerd, seen from outside the code under test: by ctr and on disk.

before = snapshot_keys(node)
...
assert_nothing_unfinished(node)
"""

import hashlib
import os
from collections import Counter
from pathlib import Path

from tests.support.node import Node
from tests.support.servers import wait_until

CHAIN_ID = "sha256:"


def snapshot_keys(
    node: Node, namespace: str = "k8s.io", snapshotter: str = "overlayfs"
) -> set[str]:
    """Return the keys of all snapshots."""
    return _first_column(
        node.ctr("--namespace", namespace, "snapshots", "--snapshotter", snapshotter, "ls")
    )


def lease_ids(node: Node, namespace: str = "k8s.io") -> set[str]:
    """Return the ids of all leases."""
    return _first_column(node.ctr("--namespace", namespace, "leases", "ls"))


def content_digests(node: Node) -> set[str]:
    """Return the digests of all blobs in the content store."""
    return _first_column(node.ctr("content", "ls"))


def snapshot_directories(node: Node) -> list[Path]:
    """Return the directories of all of overlayfs's snapshots."""
    return sorted(node.root.glob("io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs"))


def disk_use(*directories: Path) -> int:
    """Return the bytes that directories take on disk."""
    seen = set()
    total = 0
    for top in directories:
        for directory, names, files in os.walk(top):
            for name in [".", *names, *files]:
                status = os.lstat(os.path.join(directory, name))
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
    return total


def layer_trees(node: Node) -> Counter:
    """Return what each snapshot's directory holds, with all that unpacking decides."""
    return Counter(tree_of(directory) for directory in snapshot_directories(node))


def tree_of(root: Path) -> tuple:
    """Return type, mode, owner, times, links, content and attributes of all below a directory.

    The directory's own times are those of the last change and left out.
    """
    found = [(".", *_attributes(root)[:3], _xattrs(root))]
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted(names + files):
            path = Path(directory, name)
            content = b""
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
            found.append(
                (
                    path.relative_to(root).as_posix(),
                    *_attributes(path),
                    hashlib.sha256(content).hexdigest(),
                    _xattrs(path),
                )
            )
    return tuple(found)


def assert_nothing_unfinished(node: Node) -> None:
    """Prove that there is no lease, no snapshot that is not an image's, and no staging file."""
    assert lease_ids(node) == set(), node.ctr("leases", "ls")
    # A container of the test before may be on its way out still.
    wait_until(lambda: not _odd_snapshots(node), seconds=30)
    assert [path for path in snapshot_directories(node) if (path / "staging").exists()] == []
    collect_garbage(node)  # what containers have left behind, which containerd takes its time for
    assert len(snapshot_directories(node)) == len(snapshot_keys(node))


def _odd_snapshots(node: Node) -> list[str]:
    return [key for key in snapshot_keys(node) if not key.startswith(CHAIN_ID)]


def collect_garbage(node: Node) -> None:
    """Have containerd collect garbage now."""
    node.ctr("leases", "create", "--id", "collect-now")
    node.ctr("leases", "rm", "--sync", "collect-now")


def _attributes(path: Path) -> tuple:
    status = path.lstat()
    return (
        status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_nlink,
        status.st_size if path.is_file() else 0,
    )  # fmt: skip


def _xattrs(path: Path) -> tuple:
    return tuple(sorted(os.listxattr(path, follow_symlinks=False)))


def _first_column(table: str) -> set[str]:
    return {line.split()[0] for line in table.splitlines()[1:] if line.strip()}
