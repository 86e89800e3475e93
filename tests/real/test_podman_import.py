"""``pull --into podman``: built by the engine of every pull, taken in by Podman's own import."""

import hashlib
import os
import shlex
import signal

import pytest

import modelpack
from tests.support import programs
from tests.support.command import Command
from tests.support.extents import written_bytes
from tests.support.importing import build_shards, reference_for
from tests.support.samplemodel import build_sample, digests_of
from tests.support.servers import wait_until

pytestmark = [pytest.mark.real("docker-registry", "podman"), pytest.mark.root]

MIB = 1024 * 1024


@pytest.fixture
def command(podman, tmp_path):
    """The command, with the test's own Podman as the one on its PATH."""
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    argv = programs.command("podman", *podman._options)
    path = f"{programs.TREE_PATH}:/sbin:/bin"
    program.write_text(f'#!/bin/sh\nPATH={path} exec {shlex.join(argv)} "$@"\n')
    program.chmod(0o755)
    return Command(tmp_path / "home", {"PATH": f"{program.parent}:{os.environ['PATH']}"})


@pytest.fixture
def reference(docker_registry, request):
    return reference_for(docker_registry, "podman", request.node.name)


def layouts(command) -> list[str]:
    home = command.home / "cache/modelpack/podman"
    return sorted(path.name for path in home.iterdir()) if home.exists() else []


def test_podman_mounts_every_file_under_the_reference(podman, command, reference, tmp_path):
    model = build_sample(tmp_path / "model")
    pushed = modelpack.push(model, reference)
    done = command.json("pull", reference, "--into", "podman")
    assert (done["digest"], done["imported_bytes"]) == (pushed.digest, pushed.bytes)
    assert (done["snapshots"], done["verified"]) == (pushed.layers, "full")
    script = "find . -type f -not -path './.modelpack/*' -exec sha256sum {} +"
    seen = {}
    for line in podman.in_mounted_image(reference, script).splitlines():
        digest, path = line.split(maxsplit=1)
        seen[path.removeprefix("./")] = digest
    assert seen == {path: digest for path, (_, digest) in digests_of(model).items()}
    digests = podman.run("image", "inspect", reference, "--format", "{{.Digest}} {{.Id}}").stdout
    assert digests.split() == [pushed.digest, done["image_id"].removeprefix("sha256:")]
    assert layouts(command) == ["lock"]


def test_what_podman_has_is_not_fetched_again(command, reference, tmp_path):
    pushed = modelpack.push(build_sample(tmp_path / "model"), reference)
    command.json("pull", reference, "--into", "podman")
    again = command.json("pull", reference, "--into", "podman")
    assert (again["imported_bytes"], again["reused_bytes"]) == (0, pushed.bytes)
    assert again["fetched_bytes"] < 50_000


def test_a_seed_directory_saves_fetching(command, reference, tmp_path):
    model = build_sample(tmp_path / "model")
    modelpack.push(model, reference)
    done = command.json("pull", reference, "--into", "podman", "--seed", model)
    assert done["fetched_bytes"] < 50_000
    assert done["imported_bytes"] == done["bytes"]


def test_a_killed_import_goes_on(command, reference, tmp_path):
    pushed = modelpack.push(build_shards(tmp_path / "model"), reference)
    home = command.home / "cache/modelpack/podman"
    process = command.start("pull", reference, "--into", "podman", "--limit-rate", "15M", "-q")

    def staged() -> int:
        return written_bytes(home.glob("*/staging/*"))

    wait_until(lambda: staged() > 12 * MIB, seconds=30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = command.json("pull", reference, "--into", "podman")
    assert done["fetched_bytes"] < pushed.bytes - 5 * MIB
    assert layouts(command) == ["lock"]


def test_a_damaged_layout_is_not_taken(podman, command, reference, tmp_path, docker_registry):
    """Podman checks what it takes in, so that a blob changed between two runs is found."""
    modelpack.push(build_shards(tmp_path / "model", shards=1), reference)
    with modelpack.connect.open_repository(reference) as repository:
        manifest = repository.fetch_manifest("v1")
    home = command.home / "cache/modelpack/podman" / manifest.digest.hex[:32]
    blob = home / "blobs/sha256" / manifest.layers[0].digest.hex
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(manifest.layers[0].size))
    assert hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name
    assert "did not match" in command.fails(5, "pull", reference, "--into", "podman")
    assert podman.run("images", "--quiet").stdout == ""
    assert layouts(command) == ["lock"]
    command.json("pull", reference, "--into", "podman")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--into", "docker"), "--into takes containerd or podman, not 'docker'"),
        (("--into", "podman", "--namespace", "x"), "--namespace is containerd's"),
        (("--into", "podman", "--host-root", "/host"), "--host-root is containerd's"),
        (("--into", "podman", "--no-page-cache"), "--no-page-cache does not go with podman"),
    ],
)
def test_options_that_do_not_go_together(arguments, said, command, reference):
    assert said in command.fails(2, "pull", reference, *arguments)


def test_without_podman(reference, tmp_path):
    modelpack.push(build_sample(tmp_path / "model"), reference)
    command = Command(tmp_path / "home", {"PATH": "/nowhere"})
    assert "podman is not installed" in command.fails(2, "pull", reference, "--into", "podman")


def test_a_layout_needs_no_pull(command, tmp_path):
    said = command.fails(2, "pull", f"oci:{tmp_path}:v1", "--into", "podman")
    assert f"podman pull oci:{tmp_path}:v1" in said
