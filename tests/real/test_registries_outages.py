"""Registries that trickle, freeze, or go away and come back, in the middle of a transfer."""

import time

import pytest

import modelpack
from modelpack import download
from modelpack.errors import NetworkError
from modelpack.registry import ranges
from tests.support import nginx
from tests.support.command import Command, finish
from tests.support.models import CHUNK, random_bytes, write_files
from tests.support.registries import DockerRegistry
from tests.support.samplemodel import build_sample, digests_of
from tests.support.servers import wait_until

pytestmark = [pytest.mark.real("docker-registry")]

REPOSITORY = "outages/model"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_sample(tmp_path_factory.mktemp("sample") / "model")


@pytest.fixture(scope="module")
def registry(model, tmp_path_factory):
    """A registry of this file's own, which its tests may stop, that holds the model."""
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as own:
        home = tmp_path_factory.mktemp("publisher")
        Command(home).json("push", model, f"{own.host}/{REPOSITORY}:v1")
        yield own


@pytest.mark.real("nginx")
def test_an_answer_that_trickles_is_replaced(registry, start_nginx, command, model, tmp_path):
    """Each answer sends 5 MiB and then a byte a second: no read ever times out."""
    server = start_nginx(nginx.proxy(registry, nginx.trickle(after="5m")))
    began = time.monotonic()
    pulled = command.json("pull", f"{server.host}/{REPOSITORY}:v1", tmp_path / "out")
    assert time.monotonic() - began < 40
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert any(" sent=524" in line for line in server.requests()), "none was cut off at 5 MiB"
    assert pulled["fetched_bytes"] < pulled["bytes"] + 2 * CHUNK  # less than a chunk for each


def shorten(monkeypatch, kind, **seconds):
    """Set default arguments of a class."""
    defaults = {**kind.__init__.__kwdefaults__, **seconds}
    monkeypatch.setattr(kind.__init__, "__kwdefaults__", defaults)


@pytest.mark.real("nginx")
def test_a_server_that_only_trickles_is_given_up(
    registry, start_nginx, model, tmp_path, monkeypatch
):
    shorten(monkeypatch, ranges.HttpRangeConnection, stall_seconds=0.3)
    shorten(monkeypatch, download.Downloader, give_up_seconds=4)
    server = start_nginx(nginx.proxy(registry, nginx.trickle(after="100k")))
    with pytest.raises(NetworkError, match=r"no data for \d+ seconds"):
        modelpack.pull(f"{server.host}/{REPOSITORY}:v1", tmp_path / "out")
    assert digests_of(tmp_path / "out") == {}
    modelpack.pull(f"{registry.host}/{REPOSITORY}:v1", tmp_path / "out")
    assert digests_of(tmp_path / "out") == digests_of(model)


def test_a_frozen_registry_is_waited_for(registry, command, model, tmp_path):
    """Connections stay open and say nothing, until after 11 seconds all goes on."""
    pull = command.start_slow_pull(f"{registry.host}/{REPOSITORY}:v1", tmp_path / "out")
    registry.pause()
    time.sleep(11)
    registry.resume()
    pulled = finish(pull)
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert pulled["fetched_bytes"] < 1.5 * pulled["bytes"]


def test_a_registry_that_goes_away_during_a_pull(registry, command, model, tmp_path):
    pull = command.start_slow_pull(f"{registry.host}/{REPOSITORY}:v1", tmp_path / "out")
    registry.stop()
    time.sleep(5)
    assert pull.poll() is None
    registry.start()
    pulled = finish(pull)
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert pulled["fetched_bytes"] < 1.5 * pulled["bytes"]


def test_a_registry_that_goes_away_during_a_push(start_registry, command, tmp_path):
    """In the second piece of a blob; its own memory of the upload is lost with its secret."""
    model = write_files(tmp_path / "model", {"large.bin": random_bytes(90_000_000)})
    registry = start_registry()
    reference = f"{registry.host}/{REPOSITORY}:v1"
    push = command.start("push", model, reference, "--json", "--limit-rate=40M")
    wait_until(lambda: any(" PATCH " in line for line in registry.requests()), seconds=20)
    registry.stop()
    time.sleep(2)
    assert push.poll() is None
    registry.start()
    pushed = finish(push)
    assert command.json("pull", reference, tmp_path / "out")["digest"] == pushed["digest"]
    assert digests_of(tmp_path / "out") == digests_of(model)
