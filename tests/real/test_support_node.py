"""The node is a real one: containerd pulls, mounts image volumes and injects CDI devices."""

import hashlib
import json
import signal

import grpc
import pytest

from tests.support import images

pytestmark = [pytest.mark.real("docker-registry", "containerd", "runc", "skopeo"), pytest.mark.root]

WEIGHTS = bytes(range(256)) * 4096
GPU_SPEC = {
    "cdiVersion": "0.6.0",
    "kind": "example.com/gpu",
    "devices": [
        {
            "name": "0",
            "containerEdits": {
                "env": ["GPU_ENV=from the spec"],
                "deviceNodes": [{"path": "/dev/gpu0", "type": "c", "major": 1, "minor": 3}],
            },
        }
    ],
}


@pytest.fixture(scope="module")
def model(docker_registry, tmp_path_factory):
    """The reference of a stock image of one layer."""
    layout = images.write_image(
        tmp_path_factory.mktemp("model") / "layout", [{"weights/model.bin": WEIGHTS}]
    )
    reference = f"{docker_registry.host}/support/node:v1"
    images.push_image(layout, reference)
    return reference


def test_an_image_is_pulled_and_removed(containerd_node, model):
    image_id = containerd_node.pull_image(model)
    status = containerd_node.image_status(model)
    assert (status.id, list(status.repo_tags)) == (image_id, [model])
    assert status.size > len(WEIGHTS)
    containerd_node.remove_image(model)
    assert containerd_node.image_status(model) is None


def test_an_image_that_is_not_there_is_an_error(containerd_node, docker_registry):
    with pytest.raises(grpc.RpcError) as caught:
        containerd_node.pull_image(f"{docker_registry.host}/support/none:v1")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_image_volume_is_read(containerd_node, model):
    containerd_node.pull_image(model)
    done = containerd_node.run_with_image_volume(
        model, "/models", ["sha256sum", "/models/weights/model.bin"]
    )
    assert done.stdout.split()[0] == hashlib.sha256(WEIGHTS).hexdigest()


def test_an_image_volume_is_read_only(containerd_node, model):
    containerd_node.pull_image(model)
    done = containerd_node.run_with_image_volume(
        model, "/models", ["touch", "/models/new"], check=False
    )
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


def test_cdi_edits_arrive_in_the_container(containerd_node):
    (containerd_node.etc_cdi / "gpu.json").write_text(json.dumps(GPU_SPEC))
    look = ["sh", "-c", "echo $GPU_ENV; stat -c '%F %t %T' /dev/gpu0"]
    done = containerd_node.run_with_cdi(["example.com/gpu=0"], look)
    assert done.stdout.splitlines() == ["from the spec", "character special file 1 3"]


def test_an_unknown_cdi_device_is_an_error(containerd_node):
    with (
        pytest.raises(grpc.RpcError) as caught,
        containerd_node.container(devices=["example.com/gpu=none"]),
    ):
        pass
    assert "unresolvable CDI devices example.com/gpu=none" in caught.value.details()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_containers_outlive_a_restart_of_containerd(containerd_node, model, how):
    containerd_node.pull_image(model)
    with containerd_node.container(image_volumes={"/models": model}) as container:
        before = containerd_node.pid
        containerd_node.restart(how)
        assert containerd_node.pid != before
        assert container.exec(["ls", "/models/weights"]).stdout.split() == ["model.bin"]


def test_snapshots_lie_where_the_test_sees_them(containerd_node, model):
    containerd_node.pull_image(model)
    found = list(containerd_node.root.glob("*overlayfs/snapshots/*/fs/weights/model.bin"))
    assert [file.read_bytes() == WEIGHTS for file in found] == [True]
    assert model in containerd_node.ctr("images", "list", "--quiet")


def test_credentials_are_passed_on(containerd_node, basic_auth_registry, tmp_path):
    from tests.support import registries

    config = registries.docker_config(tmp_path, basic_auth_registry.host)
    layout = images.write_image(tmp_path / "layout", [{"file": b"content"}])
    reference = f"{basic_auth_registry.host}/private/model:v1"
    images.push_image(layout, reference, f"--authfile={config}")
    with pytest.raises(grpc.RpcError) as caught:
        containerd_node.pull_image(reference)
    assert "authorization failed" in caught.value.details()
    containerd_node.pull_image(
        reference, username=registries.USERNAME, password=registries.PASSWORD
    )


def test_a_verifier_decides_what_is_pulled(containerd_node, docker_registry, tmp_path):
    layout = images.write_image(tmp_path / "layout", [{"file": b"content"}])
    reference = f"{docker_registry.host}/support/refused:v1"
    images.push_image(layout, reference)
    verifier = containerd_node.verifiers / "refuse"
    verifier.write_text(
        '#!/bin/sh\ncase "$*" in *support/refused*) echo not this one; exit 1; esac\n'
    )
    verifier.chmod(0o755)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            containerd_node.pull_image(reference)
    finally:
        verifier.unlink()
    assert "not this one" in caught.value.details()


def test_a_node_of_its_own_on_a_small_disk_runs_full(start_node, small_filesystem, model, tmp_path):
    node = start_node(small_filesystem("8m"))
    layout = images.write_image(tmp_path / "layout", [{"big": bytes(16 << 20)}])
    reference = f"{model.rsplit(':', 1)[0]}-big:v1"
    images.push_image(layout, reference)
    with pytest.raises(grpc.RpcError) as caught:
        node.pull_image(reference)
    assert "no space left on device" in caught.value.details()
