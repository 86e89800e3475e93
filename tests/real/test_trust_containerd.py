"""containerd asks the policy before it pulls, and the doctor knows when it would not."""

import hashlib

import grpc
import pytest

from tests.support import node as nodes
from tests.support.command import PROGRAM
from tests.support.models import one_shard, write_files
from tests.support.trust import TrustCommand

pytestmark = [pytest.mark.real("containerd", "runc", "docker-registry"), pytest.mark.root]

IMAGES = "[plugins.'io.containerd.cri.v1.images']\n"
VERIFIERS = "bin_dir = '{directory}/verifiers'\n"


@pytest.fixture
def command(tmp_path):
    return TrustCommand(tmp_path)


@pytest.fixture
def reference(docker_registry, request):
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return f"{docker_registry.host}/verifier/{name}:v1"


def install(node, command, policy):
    """Put the script that the program prints into bin_dir, with the test's own places."""
    script = command.run("containerd-verifier", "--print-script").stdout
    assert script.splitlines()[1].startswith(f"exec {PROGRAM} ")
    own = "".join(
        f"export {name}={command.env[name]}\n"
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "PYTHONPATH")
        if name in command.env
    )
    path = node.verifiers / "modelpack"
    path.write_text(script.replace("exec ", f"{own}export MODELPACK_POLICY={policy}\nexec "))
    path.chmod(0o755)


def refused(node, reference):
    with pytest.raises(grpc.RpcError) as caught:
        node.pull_image(reference)
    return caught.value.details()


def test_a_pull_through_cri_is_refused_and_accepted(
    command, reference, start_node, docker_registry, tmp_path
):
    model = write_files(tmp_path / "model", {"m.safetensors": one_shard([1]), "config.json": b"{}"})
    private, public = command.key_pair("team")
    command.key_pair("other")
    pushed = command.json("push", model, reference)
    policy = command.policy(
        "rules:\n"
        f"  - match: {docker_registry.host}/modelpack-tests/**\n    unsigned: true\n"
        f"  - match: {docker_registry.host}/verifier/**\n    signers: [{{key: {public}}}]\n"
    )
    node = start_node()
    install(node, command, policy)
    message = refused(node, reference)
    assert "refused by" in message
    assert "nothing is signed" in message
    name = reference.rpartition(":")[0]
    command.json("sign", f"{name}@{pushed['digest']}", "--key", tmp_path / "other.key")
    assert "not by" in refused(node, reference)
    assert node.image_status(reference) is None
    command.json("sign", f"{name}@{pushed['digest']}", "--key", private)
    node.pull_image(reference)
    assert node.image_status(reference) is not None
    listed = node.run_with_image_volume(reference, "/model", ["ls", "/model"]).stdout
    assert "m.safetensors" in listed
    # What no rule is about is refused as well; what needs no signature is not.
    elsewhere = f"{docker_registry.host}/elsewhere/{name.rpartition('/')[2]}:v1"
    command.json("copy", reference, elsewhere, "--no-referrers")
    assert "no rule is about" in refused(node, elsewhere)
    node.remove_image(node.busybox)
    node.pull_image(node.busybox)


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        pytest.param(lambda text: text, True, id="as it should be"),
        pytest.param(
            lambda text: text.replace(IMAGES, IMAGES + "use_local_image_pull = true\n"),
            False,
            id="local pulls",
        ),
        pytest.param(
            lambda text: text.replace(IMAGES, IMAGES + "max_concurrent_downloads = 7\n"),
            False,
            id="downloads",
        ),
        pytest.param(
            lambda text: text.replace(IMAGES, IMAGES + "discard_unpacked_layers = true\n"),
            False,
            id="discard",
        ),
        pytest.param(
            lambda text: text.replace(IMAGES, IMAGES + "disable_snapshot_annotations = false\n"),
            False,
            id="snapshot annotations",
        ),
        pytest.param(
            lambda text: text.replace(IMAGES, IMAGES + "stats_collect_period = 20\n"),
            True,
            id="another option",
        ),
        pytest.param(
            lambda text: (
                text.replace("registry.config_path = '{directory}/certs.d'\n", "", 1)
                + "[plugins.'io.containerd.cri.v1.images'.registry.configs.'a.example'.tls]\n"
                "insecure_skip_verify = true\n"
            ),
            False,
            id="registry configs",
        ),
        pytest.param(
            lambda text: text.replace(VERIFIERS, VERIFIERS + "max_verifiers = 0\n"),
            False,
            id="no verifiers",
        ),
        pytest.param(
            lambda text: text.replace("/verifiers'", "/nowhere'"), False, id="no directory"
        ),
    ],
)
def test_the_doctor_says_what_the_real_one_does(
    command, start_node, monkeypatch, tmp_path, change, asked
):
    text = change(nodes._CONFIG)
    monkeypatch.setattr(nodes, "_CONFIG", text)
    node = start_node()
    config = node.directory / "config.toml"
    script = node.verifiers / "modelpack"
    mark = tmp_path / "asked"
    script.write_text(f"#!/bin/sh\n# containerd-verifier\ntouch {mark}\nexit 1\n")
    script.chmod(0o755)
    found = command.run(
        "doctor", "containerd", "--config", config, "--containerd-version", "2.1.9", "--json"
    )
    assert (found.returncode == 0) is asked, found.stdout
    node.remove_image(node.busybox)
    if asked:
        refused(node, node.busybox)
    else:
        node.pull_image(node.busybox)
    assert mark.exists() is asked
