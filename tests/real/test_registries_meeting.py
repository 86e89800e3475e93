"""Pulls that run at the same time, into one directory and into two."""

import pytest

from tests.support.command import finish
from tests.support.models import CHUNK, random_bytes, write_files
from tests.support.samplemodel import build_sample, digests_of

pytestmark = [pytest.mark.real("docker-registry")]

REPOSITORY = "meeting/model"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_sample(tmp_path_factory.mktemp("sample") / "model")


@pytest.fixture
def repository(docker_registry, command, model):
    """A repository that holds the model as v1."""
    name = f"{docker_registry.host}/{REPOSITORY}"
    command.json("push", model, f"{name}:v1")
    return name


def test_two_pulls_into_one_directory(repository, command, model, tmp_path):
    out = tmp_path / "out"
    first = command.start_slow_pull(f"{repository}:v1", out)
    second = command.start("pull", f"{repository}:v1", out, "--json")
    pulled, waited = finish(first), finish(second)
    assert digests_of(out) == digests_of(model)
    assert pulled["fetched_bytes"] > waited["bytes"]
    assert waited["fetched_bytes"] < 30_000
    assert any("waiting" in text for text in waited["warnings"])


def test_two_versions_into_one_directory(repository, command, model, tmp_path):
    """The one that comes second has the last word, and nothing of the first is in its way."""
    other = write_files(tmp_path / "other", {"README.md": b"# Two", "new.bin": random_bytes(CHUNK)})
    command.json("push", other, f"{repository}:v2")
    out = tmp_path / "out"
    first = command.start_slow_pull(f"{repository}:v1", out)
    second = command.start("pull", f"{repository}:v2", out, "--json")
    finish(first)
    assert finish(second)["removed"] > 0
    assert digests_of(out) == digests_of(other)


def test_two_pulls_into_two_directories(repository, command, model, tmp_path):
    outs = [tmp_path / "one", tmp_path / "two"]
    pulls = [command.start("pull", f"{repository}:v1", out, "--json") for out in outs]
    for pull, out in zip(pulls, outs, strict=True):
        assert finish(pull)["warnings"] == []
        assert digests_of(out) == digests_of(model)
