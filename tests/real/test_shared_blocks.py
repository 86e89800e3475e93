"""What two versions have in common is on the disk once, where the file system can share blocks.

On such file systems in a file: on those of the machines that run the tests nothing may be shared.
"""

import os
import subprocess

import pytest

import modelpack
from modelpack.runtime.containerd import import_model
from tests.support.importing import MIB, assert_mounts, build_shards, options, reference_for
from tests.support.models import copy_tree, read_tree

pytestmark = [
    pytest.mark.real("mkfs.xfs", "mkfs.btrfs", "docker-registry"),
    pytest.mark.root,
]

IMAGE_BYTES = 1024 * MIB
MODEL_BYTES = 30 * MIB
# Two tensors of each shard, and what metadata takes besides the weights.
SLACK = 10 * MIB


@pytest.fixture(params=["xfs", "btrfs"])
def disk(request, tmp_path):
    image, directory = tmp_path / "disk.img", tmp_path / "x"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run([f"mkfs.{request.param}", "-q", image], check=True)
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


def test_a_seed_directory_shares_its_blocks(disk, versions):
    old, new, _, second = versions
    modelpack.pull(old, disk / "old")
    before = used(disk)
    assert before > MODEL_BYTES
    result = modelpack.pull(new, disk / "new", seeds=[disk / "old"])
    assert used(disk) - before < SLACK
    assert result.reused_bytes > MODEL_BYTES * 0.75
    assert read_tree(disk / "new") == read_tree(second)
    # They are two files all the same.
    with (disk / "old" / "w0.safetensors").open("r+b") as file:
        file.seek(10 * MIB)
        file.write(bytes(MIB))
    assert (disk / "new" / "w0.safetensors").read_bytes() == (
        second / "w0.safetensors"
    ).read_bytes()
    assert modelpack.verify(disk / "new").ok


def test_an_upgrade_in_place_writes_what_changed(disk, versions):
    old, new, _, second = versions
    modelpack.pull(old, disk / "model")
    before = used(disk)
    modelpack.pull(new, disk / "model")
    assert used(disk) - before < SLACK
    assert read_tree(disk / "model") == read_tree(second)


def test_shared_blocks_are_hashed(disk, versions):
    old, new, _, second = versions
    modelpack.pull(old, disk / "old")
    with (disk / "old" / "w1.safetensors").open("r+b") as file:
        file.seek(12 * MIB)
        file.write(b"not what it was")
    modelpack.pull(new, disk / "new", seeds=[disk / "old"])
    assert read_tree(disk / "new") == read_tree(second)


@pytest.mark.real("containerd", "runc", "busybox", "skopeo")
def test_snapshots_of_two_versions_share_their_blocks(disk, versions, start_node):
    old, new, first, second = versions
    (disk / "n").mkdir()
    node = start_node(disk / "n")
    import_model(old, options(node))
    before = used(disk)
    import_model(new, options(node, verify="full"))
    assert used(disk) - before < SLACK
    assert_mounts(node, new, second)
    node.remove_image(new)
    assert_mounts(node, old, first)
