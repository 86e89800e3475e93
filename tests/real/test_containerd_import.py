"""``pull --into containerd``: a kubelet cannot tell the image from one that it pulled itself."""

import json
import re

import pytest

import modelpack
from modelpack.errors import IntegrityError, PolicyError, UsageError
from modelpack.reference import parse_reference
from modelpack.runtime.containerd import import_model
from modelpack.runtime.options import ImportOptions
from tests.support import images, programs, registries
from tests.support.command import Command
from tests.support.models import copy_tree, one_shard, write_files
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

pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path / "home")


@pytest.fixture
def model(tmp_path):
    return build_sample(tmp_path / "model")


@pytest.fixture
def reference(docker_registry, request):
    """A reference that no other test uses."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    return f"{docker_registry.host}/into/{name}:v1"


@pytest.fixture
def node(containerd_node, reference):
    """The node, without the test's image and whatever belongs to it at the end."""
    yield containerd_node
    repository = reference.rpartition(":")[0]
    for image in containerd_node.cri.images("ListImages").images:
        if any(name.startswith(repository) for name in [*image.repo_tags, *image.repo_digests]):
            containerd_node.remove_image(image.id)
    assert_nothing_unfinished(containerd_node)


def into(node, **options) -> ImportOptions:
    return ImportOptions(address=node.socket, **options)


def files_at(container, mount: str) -> dict[str, str]:
    """Return the SHA-256 of every file at a mount, as the container's own shell sees them."""
    listed = container.exec(["find", mount, "-type", "f", "-exec", "sha256sum", "{}", ";"]).stdout
    found = {}
    for line in listed.splitlines():
        digest, path = line.split(maxsplit=1)
        name = path.removeprefix(f"{mount}/")
        if not name.startswith(".modelpack/"):
            found[name] = digest
    return found


def assert_mounts(node, image, model):
    with node.container(image_volumes={"/models": image}) as container:
        seen = files_at(container, "/models")
    assert seen == {path: digest for path, (_, digest) in digests_of(model).items()}


def blob_requests(registry) -> list[str]:
    return [line for line in registry.requests() if " GET " in line and "/blobs/" in line]


# --- the same as a stock pull --------------------------------------------------------------------


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
    import_model(reference, into(node, pin=False))
    assert layer_trees(node) == stock
    assert snapshot_keys(node) == stock_keys
    assert node.image_status(reference) == stock_status
    labels = json.loads(node.ctr("snapshots", "info", max(stock_keys)))["Labels"]
    assert labels == json.loads(stock_labels)["Labels"]
    assert_nothing_unfinished(node)


@pytest.mark.parametrize("by", ["tag", "id", "digest"])
def test_every_file_is_mounted(by, node, model, reference):
    pushed = modelpack.push(model, reference)
    result = import_model(reference, into(node))
    name = {
        "tag": reference,
        "id": result.image_id,
        "digest": f"{reference.rpartition(':')[0]}@{pushed.digest}",
    }[by]
    assert_mounts(node, name, model)


def test_the_kubelets_own_pull_then_fetches_no_layer(node, model, reference, docker_registry):
    modelpack.push(model, reference)
    result = import_model(reference, into(node))
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
    result = import_model(reference, into(node))
    assert content_digests(node) - before[0] == {pushed.digest, result.image_id}
    assert disk_use(node.root) - before[1] < 0.55 * stock


def test_a_removed_image_is_collected_and_comes_back(node, model, reference):
    modelpack.push(model, reference)
    before = snapshot_keys(node), len(snapshot_directories(node)), content_digests(node)
    for _ in range(2):
        import_model(reference, into(node))
        assert_mounts(node, reference, model)
        node.remove_image(reference)
        assert node.image_status(reference) is None
        after = snapshot_keys(node), len(snapshot_directories(node)), content_digests(node)
        assert after == before


def test_pulling_again_does_nothing(node, model, reference):
    modelpack.push(model, reference)
    first = import_model(reference, into(node))
    again = import_model(reference, into(node))
    assert again.image_id == first.image_id
    assert (again.imported_bytes, again.pull.reused_bytes) == (0, first.pull.bytes)
    assert again.pull.fetched_bytes < 50_000


def test_what_a_stock_pull_left_is_kept(node, model, reference):
    modelpack.push(model, reference)
    node.pull_image(reference)
    before = layer_trees(node)
    result = import_model(reference, into(node))
    assert (result.imported_bytes, result.pull.reused_bytes) == (0, result.pull.bytes)
    assert node.image_status(reference).pinned
    assert layer_trees(node) == before


def test_pinning_keeps_the_kubelet_from_collecting(node, model, reference):
    modelpack.push(model, reference)
    import_model(reference, into(node, pin=False))
    assert not node.image_status(reference).pinned
    import_model(reference, into(node))
    assert node.image_status(reference).pinned
    node.restart()
    assert node.image_status(reference).pinned


# --- the command line ----------------------------------------------------------------------------


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


# --- other namespaces and snapshotters -----------------------------------------------------------


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_another_namespace_than_the_kubelets(snapshotter, node, model, reference):
    modelpack.push(model, reference)
    namespace = f"other-{snapshotter}"
    options = into(node, namespace=namespace, snapshotter=snapshotter)
    for _ in range(2):
        result = import_model(reference, options)
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


# --- full verification ---------------------------------------------------------------------------


def test_full_verification_finds_a_changed_snapshot(node, model, reference):
    modelpack.push(model, reference)
    import_model(reference, into(node))
    assert import_model(reference, into(node, verify="full")).pull.verified == "full"
    weights = next(
        directory / "model-00001-of-00002.safetensors"
        for directory in snapshot_directories(node)
        if (directory / "model-00001-of-00002.safetensors").exists()
    )
    with weights.open("r+b") as file:
        file.seek(100_000)
        file.write(b"\0\1\2\3")
    with pytest.raises(IntegrityError, match=r"is damaged; remove the image \(crictl rmi\)"):
        import_model(reference, into(node, verify="full"))
    assert_nothing_unfinished(node)
    node.remove_image(reference)
    import_model(reference, into(node, verify="full"))
    assert_mounts(node, reference, model)


def test_full_verification_of_the_metadata(node, model, reference):
    modelpack.push(model, reference)
    import_model(reference, into(node, verify="full"))
    facts = [path / ".modelpack/model.json" for path in snapshot_directories(node)]
    next(path for path in facts if path.exists()).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="metadata files"):
        import_model(reference, into(node, verify="full"))


# --- reuse ---------------------------------------------------------------------------------------


@pytest.fixture
def versions(tmp_path, reference):
    """Two versions: the first shard has another tensor, so no layer's chain is the same."""
    old = write_files(
        tmp_path / "old",
        {
            f"w{number}.safetensors": one_shard([number, number + 10], size=5_000_000)
            for number in range(3)
        }
        | {"config.json": b"{}"},
    )
    new = copy_tree(old, tmp_path / "new")
    write_files(new, {"w0.safetensors": one_shard([0, 99], size=5_000_000)})
    second = reference.replace(":v1", ":v2")
    modelpack.push(old, reference)
    modelpack.push(new, second)
    return reference, second, new


@pytest.mark.parametrize("first_by", ["import", "stock"])
def test_an_upgrade_fetches_what_changed(first_by, node, versions):
    first, second, new = versions
    if first_by == "import":
        import_model(first, into(node))
    else:
        node.pull_image(first)
    result = import_model(second, into(node))
    assert result.pull.fetched_bytes < 5_000_000 + 100_000
    assert result.imported_bytes == result.pull.bytes
    assert_mounts(node, second, new)
    assert_mounts(node, first, new.parent / "old")
    assert_nothing_unfinished(node)


def test_reused_chunks_are_hashed(node, versions):
    first, second, new = versions
    import_model(first, into(node))
    for directory in snapshot_directories(node):
        for path in directory.glob("w*.safetensors"):
            with path.open("r+b") as file:
                file.seek(2_000_000)
                file.write(bytes(1000))
    result = import_model(second, into(node, verify="full"))
    assert result.pull.fetched_bytes > 10_000_000
    assert_mounts(node, second, new)


def test_chunks_of_a_seed_directory_are_reused(node, model, reference):
    modelpack.push(model, reference)
    result = import_model(reference, into(node, seeds=(model,)))
    assert result.pull.fetched_bytes < 50_000
    assert result.imported_bytes == result.pull.bytes
    assert_mounts(node, reference, model)


# --- names ---------------------------------------------------------------------------------------


def test_a_tag_that_moves_meanwhile_leads_to_what_was_verified(node, model, reference, tmp_path):
    pushed = modelpack.push(model, reference)
    other = write_files(tmp_path / "other", {"config.json": b"{}"})

    def move(*_):
        modelpack.push(other, reference)

    result = import_model(reference, into(node), gate=move)
    assert result.pull.digest == pushed.digest
    assert node.image_status(reference).id == result.image_id
    assert_mounts(node, reference, model)


def test_a_superseded_version_is_left_to_the_kubelet(node, versions):
    first, second, _ = versions
    repository = first.rpartition(":")[0]
    moving = f"{repository}:latest"
    modelpack.copy(first, moving)
    old = import_model(moving, into(node))
    modelpack.copy(second, moving)
    new = import_model(moving, into(node))
    assert node.image_status(new.image_id).pinned
    assert not node.image_status(old.image_id).pinned
    kept = import_model(first, into(node))  # another tag names it again
    assert kept.image_id == old.image_id
    assert node.image_status(old.image_id).pinned


def test_a_reference_by_digest_gets_no_tag(node, model, reference):
    pushed = modelpack.push(model, reference)
    import_model(f"{reference}@{pushed.digest}", into(node))
    assert node.image_status(reference) is None
    assert_mounts(node, f"{reference.rpartition(':')[0]}@{pushed.digest}", model)


def test_an_image_may_be_recorded_under_another_name(node, model, reference, start_registry):
    mirror = start_registry()
    modelpack.push(model, reference)
    mirrored = f"{mirror.host}/mirrored/model:v1"
    modelpack.copy(reference, mirrored)
    name = parse_reference(reference)
    result = import_model(mirrored, into(node, name=name))
    assert node.image_status(reference).id == result.image_id
    assert node.image_status(mirrored) is None


# --- what containerd and the registry insist on --------------------------------------------------


def test_credentials_reach_containerd_too(node, model, basic_auth_registry, tmp_path):
    config = registries.docker_config(tmp_path, basic_auth_registry.host)
    command = Command(tmp_path / "home", {"DOCKER_CONFIG": str(config.parent)})
    reference = f"{basic_auth_registry.host}/private/model:v1"
    assert command.run("push", model, reference).returncode == 0
    command.json("pull", reference, "--into", "containerd", "--address", node.socket)
    assert_mounts(node, reference, model)
    node.remove_image(reference)


def test_containerds_own_verifier_is_heeded(node, model, reference):
    modelpack.push(model, reference)
    verifier = node.verifiers / "refuse"
    verifier.write_text("#!/bin/sh\necho not this one; exit 1\n")
    verifier.chmod(0o755)
    try:
        with pytest.raises(PolicyError, match="not this one"):
            import_model(reference, into(node))
        assert node.image_status(reference) is None
    finally:
        verifier.unlink()
    import_model(reference, into(node))


def test_the_gate_is_asked_before_anything_is_fetched(node, model, reference, docker_registry):
    modelpack.push(model, reference)
    before = len(blob_requests(docker_registry))

    def refuse(*_):
        raise PolicyError("unsigned")

    with pytest.raises(PolicyError, match="unsigned"):
        import_model(reference, into(node), gate=refuse)
    assert blob_requests(docker_registry)[before:] == []
    assert_nothing_unfinished(node)


@pytest.mark.parametrize("make", ["foreign", "recompressed", "platform", "layout"])
def test_images_that_cannot_be_imported(make, node, model, reference, tmp_path):
    name = reference
    if make == "foreign":
        images.push_image(images.write_image(tmp_path / "l", [{"a": b"b"}]), reference)
        said = "was not packed by modelpack; let the container runtime pull it itself"
    elif make == "recompressed":
        modelpack.push(model, f"{reference}-plain")
        programs.run(
            "skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false",
            "--dest-compress-format=gzip", "--dest-force-compress-format",
            f"docker://{reference}-plain", f"docker://{reference}",
        )  # fmt: skip
        said = "recompressed"
    elif make == "platform":
        modelpack.push(model, reference, platform="linux/s390x")
        said = "is for linux/s390x and this node is linux/.*push it with --platform linux/"
    else:
        name = f"oci:{tmp_path / 'store'}:v1"
        modelpack.push(model, name)
        said = "has no registry"
    with pytest.raises(UsageError, match=said):
        import_model(name, into(node))
    assert_nothing_unfinished(node)
