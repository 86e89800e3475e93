"""containerd mounts what modelpack pushed, through CRI, as an ImageVolume."""

from pathlib import Path

import pytest

import modelpack
from modelpack.layering import MAX_LAYERS
from tests.support.command import Command
from tests.support.models import CHUNK, one_shard, write_files
from tests.support.samplemodel import build_sample, digests_of

pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox"),
    pytest.mark.root,
]

SHARDS = 163


def seen_by_a_container(container, mount: str) -> dict[str, tuple[int, str]]:
    """Return (mode, SHA-256) of every file at a mount, as the container's own shell sees them."""
    listed = container.exec(["find", mount, "-type", "f", "-exec", "sha256sum", "{}", ";"]).stdout
    modes = container.exec(["find", mount, "-type", "f", "-exec", "stat", "-c", "%a %n", "{}", ";"])
    digests = {}
    for line in listed.splitlines():
        digest, path = line.split(maxsplit=1)
        digests[path.removeprefix(f"{mount}/")] = digest
    found = {}
    for line in modes.stdout.splitlines():
        mode, path = line.split(maxsplit=1)
        name = path.removeprefix(f"{mount}/")
        if not name.startswith(".modelpack/"):
            found[name] = (int(mode, 8), digests[name])
    return found


def on_the_machine(node, container, path: str) -> Path:
    """Return where the machine sees a path of a container: through the kernel's links to roots."""
    nsenter = node.pid
    containerd = Path(f"/proc/{nsenter}/task/{nsenter}/children").read_text().split()[0]
    task = next(line for line in node.ctr("tasks", "ls").splitlines() if container.id in line)
    return Path(f"/proc/{containerd}/root/proc/{task.split()[1]}/root{path}")


def snapshots(node) -> set[str]:
    """Return the names of all snapshots that a node has."""
    return {line.split()[0] for line in node.ctr("snapshots", "ls").splitlines()[1:]}


def test_a_mounted_model_has_the_right_bytes_and_is_read_only(
    containerd_node, docker_registry, tmp_path
):
    model = build_sample(tmp_path / "model")
    reference = f"{docker_registry.host}/interop/mounted:v1"
    modelpack.push(model, reference)
    containerd_node.pull_image(reference)
    with containerd_node.container(image_volumes={"/models": reference}) as container:
        assert seen_by_a_container(container, "/models") == digests_of(model)
        refused = container.exec(["touch", "/models/new"], check=False)
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stderr


def test_a_mounted_volume_verifies_itself_offline(containerd_node, docker_registry, tmp_path):
    model = build_sample(tmp_path / "model")
    reference = f"{docker_registry.host}/interop/verified:v1"
    pushed = modelpack.push(model, reference)
    image = containerd_node.pull_image(f"{docker_registry.host}/interop/verified@{pushed.digest}")
    with containerd_node.container(image_volumes={"/models": image}) as container:
        mount = on_the_machine(containerd_node, container, "/models")
        done = Command(tmp_path / "home").json("verify", mount)
        listed = container.exec(["ls", "-a", "/models/.modelpack"]).stdout.split()
    assert done["ok"]
    assert (done["files"], done["bytes"]) == (pushed.files, pushed.bytes)
    assert {"chunks.bin", "model.json"} <= set(listed), listed


def test_a_model_of_163_shards_mounts_in_100_layers(containerd_node, docker_registry, tmp_path):
    model = write_files(
        tmp_path / "model",
        {
            f"model-{number:05}-of-{SHARDS:05}.safetensors": one_shard([number], size=CHUNK + 10)
            for number in range(1, SHARDS + 1)
        }
        | {"config.json": b"{}"},
    )
    reference = f"{docker_registry.host}/interop/shards:v1"
    assert modelpack.push(model, reference).layers == MAX_LAYERS
    containerd_node.pull_image(reference)
    with containerd_node.container(image_volumes={"/models": reference}) as container:
        mount = on_the_machine(containerd_node, container, "/models")
        assert digests_of(mount) == digests_of(model)


def test_versions_share_the_snapshots_of_unchanged_weights(
    containerd_node, docker_registry, tmp_path
):
    model = build_sample(tmp_path / "model", seed=2)
    repository = f"{docker_registry.host}/interop/versions"
    modelpack.push(model, f"{repository}:v1")
    containerd_node.pull_image(f"{repository}:v1")
    before = snapshots(containerd_node)
    write_files(model, {"README.md": b"# Another text\n"})
    modelpack.push(model, f"{repository}:v2")
    containerd_node.pull_image(f"{repository}:v2")
    new = snapshots(containerd_node) - before
    assert len(new) == 2  # the small files and the metadata; the three large files are the same
