"""File systems that are too small, or fill up on the way: exit status 8, and nothing lost."""

import contextlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.command import Command, complaint
from tests.support.extents import written_bytes
from tests.support.registries import DockerRegistry
from tests.support.samplemodel import build_sample, digests_of
from tests.support.servers import wait_until

pytestmark = [pytest.mark.real("docker-registry"), pytest.mark.root]

REPOSITORY = "space/model"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The sample, of 15.4 MB."""
    return build_sample(tmp_path_factory.mktemp("sample") / "model")


@pytest.fixture
def registry(start_registry, command, model):
    """A registry of the test's own that holds the model."""
    own = start_registry()
    command.json("push", model, f"{own.host}/{REPOSITORY}:v1")
    return own


def fill(directory: Path) -> Path:
    """Take all the space that a file system has left; return the file that did."""
    filler = directory / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(64 * 1024))
    return filler


def grow(mount: Path, size: str):
    subprocess.run(["mount", "-o", f"remount,size={size}", mount], check=True)


def test_a_pull_that_cannot_fit_fetches_nothing(
    small_filesystem, registry, command, model, tmp_path
):
    mount = small_filesystem("12m")
    out = mount / "out"
    seen = len(registry.requests())
    line = command.fails(8, "pull", f"{registry.host}/{REPOSITORY}:v1", out)
    assert "are free; free some space" in line
    fetched = [line for line in registry.requests()[seen:] if "GET" in line and "/blobs/" in line]
    assert len(fetched) == 1, "more than the metadata was fetched"
    assert digests_of(out) == {}
    assert {path.name for path in out.iterdir()} == {".modelpack"}
    grow(mount, "24m")
    command.json("pull", f"{registry.host}/{REPOSITORY}:v1", out)
    assert digests_of(out) == digests_of(model)


def test_a_disk_that_fills_up_during_a_pull(small_filesystem, registry, command, model):
    mount = small_filesystem("24m")
    out = mount / "out"
    reference = f"{registry.host}/{REPOSITORY}:v1"
    slowly = ("--limit-rate=4M", "--max-connections=1")
    pull = command.start("pull", reference, out, "--quiet", *slowly)
    # One connection: by then the first of the files is complete.
    wait_until(lambda: _used(out / ".modelpack/staging") > 7_000_000, seconds=30)
    filler = fill(mount)
    stdout, stderr = pull.communicate(timeout=60)
    assert pull.returncode == 8, stderr
    assert "free some space" in complaint(
        subprocess.CompletedProcess([], pull.returncode, stdout, stderr)
    )
    assert digests_of(out) == {}, "a file that is not complete has its name"
    filler.unlink()
    again = command.json("pull", reference, out)
    assert digests_of(out) == digests_of(model)
    assert again["fetched_bytes"] < again["bytes"], "what was verified was fetched again"
    assert command.json("verify", out)["ok"]


def _used(directory: Path) -> int:
    return written_bytes(directory.glob("*/*"))


def test_an_upgrade_that_cannot_fit_leaves_the_old_version(
    small_filesystem, registry, command, model, tmp_path
):
    other = build_sample(tmp_path / "other", seed=5)
    command.json("push", other, f"{registry.host}/{REPOSITORY}:v2")
    out = small_filesystem("24m") / "out"
    command.json("pull", f"{registry.host}/{REPOSITORY}:v1", out)
    command.fails(8, "pull", f"{registry.host}/{REPOSITORY}:v2", out)
    assert digests_of(out) == digests_of(model)
    assert command.json("verify", out)["ok"]


def test_a_plain_pull_that_cannot_fit(small_filesystem, registry, command, model):
    mount = small_filesystem("12m")
    companion = f"{registry.host}/{REPOSITORY}:v1-modelpack"
    assert "free some space" in command.fails(8, "pull", companion, mount / "out")
    assert digests_of(mount / "out") == {}
    grow(mount, "40m")
    command.json("pull", companion, mount / "out")
    assert digests_of(mount / "out") == digests_of(model)


def test_a_push_into_a_layout_that_cannot_hold_it(small_filesystem, command, model, tmp_path):
    mount = small_filesystem("8m")
    reference = f"oci:{mount}/store:v1"
    assert "free some space" in command.fails(8, "push", model, reference)
    index = mount / "store/index.json"
    assert not index.exists() or json.loads(index.read_bytes())["manifests"] == []
    grow(mount, "40m")
    command.json("push", model, reference)
    command.json("pull", reference, tmp_path / "out")
    assert digests_of(tmp_path / "out") == digests_of(model)


def test_a_registry_without_space(small_filesystem, command, model):
    with DockerRegistry(small_filesystem("8m")) as full:
        line = command.fails(8, "push", model, f"{full.host}/{REPOSITORY}:v1")
        assert full.host in line
        command.fails(3, "pull", f"{full.host}/{REPOSITORY}:v1", command.home / "out")


def test_a_cache_without_space_is_done_without(small_filesystem, docker_registry, model, tmp_path):
    mount = small_filesystem("1m")
    fill(mount)
    command = Command(tmp_path / "home", {"XDG_CACHE_HOME": str(mount / "cache")})
    command.json("push", model, f"{docker_registry.host}/{REPOSITORY}:v1")
    command.json("pull", f"{docker_registry.host}/{REPOSITORY}:v1", tmp_path / "out")
    assert digests_of(tmp_path / "out") == digests_of(model)
