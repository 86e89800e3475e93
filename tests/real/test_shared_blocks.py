"""What two versions have in common is on the disk once, where the file system can share blocks.

On XFS in a file: on the file systems of the machines that run the tests nothing is shared.
"""

import os
import subprocess

import pytest

import modelpack
from modelpack.runtime.containerd import import_model
from tests.support.importing import MIB, assert_mounts, build_shards, options, reference_for
from tests.support.models import copy_tree, read_tree

pytestmark = [
    pytest.mark.real("mkfs.xfs", "docker-registry"),
    pytest.mark.root,
]

IMAGE_BYTES = 1024 * MIB
MODEL_BYTES = 30 * MIB
# Two tensors of each shard, and what metadata takes besides the weights.
SLACK = 10 * MIB


@pytest.fixture
def xfs(tmp_path):
    image, directory = tmp_path / "xfs.img", tmp_path / "x"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    directory.mkdir()
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)
    yield directory
    # Lazily, because what a test started may still sit in it.
    subprocess.run(["umount", "--lazy", directory], check=True)


def used(directory):
    os.sync()
    status = os.statvfs(directory)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.fixture
def versions(tmp_path, docker_registry, request):
    """Two versions, of which the second has one other MiB in each of its three shards."""
    first = build_shards(tmp_path / "first")
    second = copy_tree(first, tmp_path / "second")
    for path in second.glob("w*.safetensors"):
        with path.open("r+b") as file:
            file.seek(5 * MIB)
            file.write(os.urandom(MIB))
    old = reference_for(docker_registry, "shared-blocks", request.node.name)
    new = old.replace(":v1", ":v2")
    modelpack.push(first, old)
    modelpack.push(second, new)
    return old, new, first, second


def test_a_seed_directory_shares_its_blocks(xfs, versions):
    old, new, _, second = versions
    modelpack.pull(old, xfs / "old")
    before = used(xfs)
    assert before > MODEL_BYTES
    result = modelpack.pull(new, xfs / "new", seeds=[xfs / "old"])
    assert used(xfs) - before < SLACK
    assert result.reused_bytes > MODEL_BYTES * 0.75
    assert read_tree(xfs / "new") == read_tree(second)
    # They are two files all the same.
    with (xfs / "old" / "w0.safetensors").open("r+b") as file:
        file.seek(10 * MIB)
        file.write(bytes(MIB))
    assert (xfs / "new" / "w0.safetensors").read_bytes() == (second / "w0.safetensors").read_bytes()
    assert modelpack.verify(xfs / "new").ok


def test_an_upgrade_in_place_writes_what_changed(xfs, versions):
    old, new, _, second = versions
    modelpack.pull(old, xfs / "model")
    before = used(xfs)
    modelpack.pull(new, xfs / "model")
    assert used(xfs) - before < SLACK
    assert read_tree(xfs / "model") == read_tree(second)


def test_shared_blocks_are_hashed(xfs, versions):
    old, new, _, second = versions
    modelpack.pull(old, xfs / "old")
    with (xfs / "old" / "w1.safetensors").open("r+b") as file:
        file.seek(12 * MIB)
        file.write(b"not what it was")
    modelpack.pull(new, xfs / "new", seeds=[xfs / "old"])
    assert read_tree(xfs / "new") == read_tree(second)


@pytest.mark.real("containerd", "runc", "busybox", "skopeo")
def test_snapshots_of_two_versions_share_their_blocks(xfs, versions, start_node):
    old, new, first, second = versions
    (xfs / "n").mkdir()
    node = start_node(xfs / "n")
    import_model(old, options(node))
    before = used(xfs)
    import_model(new, options(node, verify="full"))
    assert used(xfs) - before < SLACK
    assert_mounts(node, new, second)
    node.remove_image(new)
    assert_mounts(node, old, first)
