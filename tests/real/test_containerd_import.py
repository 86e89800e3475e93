"""``pull --into containerd``: a kubelet cannot tell the image from one that it pulled itself."""

import json

import pytest

import modelpack
from modelpack.runtime.containerd import import_model
from tests.support.importing import assert_mounts, blob_requests, options
from tests.support.nodestate import (
    assert_nothing_unfinished,
    content_digests,
    disk_use,
    layer_trees,
    lease_ids,
    snapshot_directories,
    snapshot_keys,
)
from tests.support.samplemodel import build_sample, digests_of

GROUP = "import"


pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
]


@pytest.fixture
def model(tmp_path):
    return build_sample(tmp_path / "model")


# --- the same as a stock pull -----------------------------------------------------------------------


def test_a_kubelet_cannot_tell_it_from_its_own_pull(node, model, reference):
    modelpack.push(model, reference)
    empty = layer_trees(node)
    node.pull_image(reference)
    stock, stock_status, stock_keys = (
        layer_trees(node),
        node.image_status(reference),
        snapshot_keys(node),
    )
    stock_labels = node.ctr("snapshots", "info", max(stock_keys))
    node.remove_image(reference)
    assert layer_trees(node) == empty
    import_model(reference, options(node, pin=False))
    assert layer_trees(node) == stock
    assert snapshot_keys(node) == stock_keys
    assert node.image_status(reference) == stock_status
    labels = json.loads(node.ctr("snapshots", "info", max(stock_keys)))["Labels"]
    assert labels == json.loads(stock_labels)["Labels"]
    assert_nothing_unfinished(node)


@pytest.mark.parametrize("by", ["tag", "id", "digest"])
def test_every_file_is_mounted(by, node, model, reference):
    pushed = modelpack.push(model, reference)
    result = import_model(reference, options(node))
    name = {
        "tag": reference,
        "id": result.image_id,
        "digest": f"{reference.rpartition(':')[0]}@{pushed.digest}",
    }[by]
    assert_mounts(node, name, model)


def test_the_kubelets_own_pull_then_fetches_no_layer(node, model, reference, docker_registry):
    modelpack.push(model, reference)
    result = import_model(reference, options(node))
    before = len(blob_requests(docker_registry))
    assert node.pull_image(reference) == result.image_id
    assert blob_requests(docker_registry)[before:] == []
    assert_mounts(node, reference, model)


def test_no_layer_is_stored_twice(node, model, reference):
    pushed = modelpack.push(model, reference)
    before = content_digests(node), disk_use(node.root)
    node.pull_image(reference)
    stock = disk_use(node.root) - before[1]
    node.remove_image(reference)
    result = import_model(reference, options(node))
    assert content_digests(node) - before[0] == {pushed.digest, result.image_id}
    assert disk_use(node.root) - before[1] < 0.55 * stock


def test_a_removed_image_is_collected_and_comes_back(node, model, reference):
    modelpack.push(model, reference)
    before = snapshot_keys(node), len(snapshot_directories(node)), content_digests(node)
    for _ in range(2):
        import_model(reference, options(node))
        assert_mounts(node, reference, model)
        node.remove_image(reference)
        assert node.image_status(reference) is None
        after = snapshot_keys(node), len(snapshot_directories(node)), content_digests(node)
        assert after == before


def test_pulling_again_does_nothing(node, model, reference):
    modelpack.push(model, reference)
    first = import_model(reference, options(node))
    again = import_model(reference, options(node))
    assert again.image_id == first.image_id
    assert (again.imported_bytes, again.pull.reused_bytes) == (0, first.pull.bytes)
    assert again.pull.fetched_bytes < 50_000


def test_what_a_stock_pull_left_is_kept(node, model, reference):
    modelpack.push(model, reference)
    node.pull_image(reference)
    before = layer_trees(node)
    result = import_model(reference, options(node))
    assert (result.imported_bytes, result.pull.reused_bytes) == (0, result.pull.bytes)
    assert node.image_status(reference).pinned
    assert layer_trees(node) == before


def test_pinning_keeps_the_kubelet_from_collecting(node, model, reference):
    modelpack.push(model, reference)
    import_model(reference, options(node, pin=False))
    assert not node.image_status(reference).pinned
    import_model(reference, options(node))
    assert node.image_status(reference).pinned
    node.restart()
    assert node.image_status(reference).pinned


@pytest.mark.parametrize(
    "setting",
    ["use_local_image_pull = true", "use_local_image_pull = true\ndiscard_unpacked_layers = true"],
    ids=["local-pull", "discarded-layers"],
)
def test_the_other_ways_of_containerd_to_pull(
    setting, start_node, model, reference, docker_registry
):
    node = start_node()
    section = "[plugins.'io.containerd.cri.v1.images']\n"
    config = node.directory / "config.toml"
    config.write_text(config.read_text().replace(section, section + setting + "\n"))
    node.restart()
    modelpack.push(model, reference)
    before = len(blob_requests(docker_registry))
    result = import_model(reference, options(node))
    fetched = sum(int(line.rpartition("=")[2]) for line in blob_requests(docker_registry)[before:])
    assert fetched < result.pull.bytes + 100_000
    assert_mounts(node, reference, model)
    assert_nothing_unfinished(node)


# --- the command line -------------------------------------------------------------------------------


def test_the_command_reports_what_it_did(node, model, reference, command):
    pushed = modelpack.push(model, reference)
    options = ("--into", "containerd", "--address", node.socket)
    result = command.json("pull", reference, *options)
    status = node.image_status(reference)
    assert result.pop("seconds") > 0
    assert result.pop("fetched_bytes") >= pushed.bytes
    assert result == {
        "reference": reference, "digest": pushed.digest, "files": pushed.files,
        "bytes": pushed.bytes, "reused_bytes": 0, "removed": 0, "verified": "chunks",
        "warnings": [], "image_id": status.id, "snapshots": pushed.layers,
        "imported_bytes": pushed.bytes,
    }  # fmt: skip
    said = command.run("pull", reference, *options, "--verify", "full")
    assert said.returncode == 0, said.stderr
    assert f"image {status.id}" in said.stdout
    assert f"verified (full) in {pushed.layers} layers, 0 B of them new" in said.stdout


def test_the_nodes_file_system_may_lie_elsewhere(node, model, reference, command):
    modelpack.push(model, reference)
    result = command.json(
        "pull", reference, "--into", "containerd", "--address", node.socket,
        "--host-root", "/proc/self/root",
    )  # fmt: skip
    assert result["imported_bytes"] == result["bytes"]
    assert_mounts(node, reference, model)


def test_a_file_system_that_cannot_be_seen(node, model, reference, command, tmp_path):
    modelpack.push(model, reference)
    said = command.fails(
        2, "pull", reference, "--into", "containerd", "--address", node.socket,
        "--host-root", tmp_path,
    )  # fmt: skip
    assert "--host-root" in said
    assert_nothing_unfinished(node)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--address", "/nowhere.sock"), 7, "cannot reach containerd at /nowhere.sock"),
        (("--snapshotter", "zfs"), 2, "no snapshotter 'zfs'"),
        (("--snapshotter", "native"), 2, "name it with --snapshotter"),
        (("--verify", "not-much"), 2, "chunks or full"),
        (("--include", "*.json"), 2, "--into takes whole models"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_options_that_cannot_be_met(options, code, said, node, model, reference, command):
    modelpack.push(model, reference)
    usual = () if "--address" in options else ("--address", node.socket)
    assert said in command.fails(code, "pull", reference, "--into", "containerd", *usual, *options)


# --- other namespaces and snapshotters --------------------------------------------------------------


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_another_namespace_than_the_kubelets(snapshotter, node, model, reference):
    modelpack.push(model, reference)
    namespace = f"other-{snapshotter}"
    for _ in range(2):
        result = import_model(
            reference, options(node, namespace=namespace, snapshotter=snapshotter)
        )
    assert node.image_status(reference) is None
    assert reference in node.ctr("--namespace", namespace, "images", "ls", "-q")
    keys = snapshot_keys(node, namespace, snapshotter)
    assert len(keys) == result.snapshots
    assert lease_ids(node, namespace) == set()
    found = [
        digests_of(directory.parent)
        for directory in node.root.glob(f"*.{snapshotter}/snapshots/*/**/.modelpack")
    ]
    if snapshotter == "native":
        assert digests_of(model) in found
    for name in node.ctr("--namespace", namespace, "images", "ls", "-q").split():
        node.ctr("--namespace", namespace, "images", "rm", "--sync", name)
    assert snapshot_keys(node, namespace, snapshotter) == set()
