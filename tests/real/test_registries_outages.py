"""Registries that trickle, freeze or go away and come back, and pulls that meet in one place."""

import json
import time

import pytest

import modelpack
from modelpack import download
from modelpack.errors import NetworkError
from modelpack.registry import ranges
from tests.support import nginx
from tests.support.command import Command
from tests.support.models import CHUNK, random_bytes, write_files
from tests.support.samplemodel import build_sample, digests_of
from tests.support.servers import wait_until

pytestmark = [pytest.mark.real("docker-registry")]

REPOSITORY = "outages/model"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_sample(tmp_path_factory.mktemp("sample") / "model")


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path / "home")


@pytest.fixture
def registry(start_registry, command, model):
    """A registry of the test's own that holds the model."""
    own = start_registry()
    command.json("push", model, f"{own.host}/{REPOSITORY}:v1")
    return own


def start_slow_pull(command, registry, out):
    """Start a pull of some seconds, and return its process once bytes have arrived."""
    rate = "--limit-rate=4M"
    process = command.start("pull", f"{registry.host}/{REPOSITORY}:v1", out, "--json", rate)
    staging = out / ".modelpack/staging"
    wait_until(lambda: any(staging.glob("*/[0-9]*")), seconds=20)
    return process


def finished(process, model, out):
    """Wait for a pull that must succeed, prove its result, and return what it printed."""
    stdout, stderr = process.communicate(timeout=90)
    assert process.returncode == 0, stderr
    assert digests_of(out) == digests_of(model)
    return json.loads(stdout)


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
    with pytest.raises(NetworkError, match=r"no data for 4 seconds; run again"):
        modelpack.pull(f"{server.host}/{REPOSITORY}:v1", tmp_path / "out")
    assert digests_of(tmp_path / "out") == {}
    modelpack.pull(f"{registry.host}/{REPOSITORY}:v1", tmp_path / "out")
    assert digests_of(tmp_path / "out") == digests_of(model)


def test_a_frozen_registry_is_waited_for(registry, command, model, tmp_path):
    """Connections stay open and say nothing, until after 12 seconds all goes on."""
    pull = start_slow_pull(command, registry, tmp_path / "out")
    registry.pause()
    time.sleep(12)
    registry.resume()
    pulled = finished(pull, model, tmp_path / "out")
    assert pulled["fetched_bytes"] < 1.5 * pulled["bytes"]


def test_a_registry_that_goes_away_during_a_pull(registry, command, model, tmp_path):
    pull = start_slow_pull(command, registry, tmp_path / "out")
    registry.stop()
    time.sleep(5)
    assert pull.poll() is None
    registry.start()
    pulled = finished(pull, model, tmp_path / "out")
    assert pulled["fetched_bytes"] < 1.5 * pulled["bytes"]


def test_a_registry_that_goes_away_during_a_push(start_registry, command, tmp_path):
    """In the second piece of a blob; its own memory of the upload is lost with its secret."""
    model = write_files(tmp_path / "model", {"large.bin": random_bytes(90_000_000)})
    registry = start_registry()
    reference = f"{registry.host}/{REPOSITORY}:v1"
    push = command.start("push", model, reference, "--json", "--limit-rate=40M")
    wait_until(lambda: any(" PATCH " in line for line in registry.requests()), seconds=20)
    registry.stop()
    time.sleep(3)
    assert push.poll() is None
    registry.start()
    stdout, stderr = push.communicate(timeout=60)
    assert push.returncode == 0, stderr
    pulled = command.json("pull", reference, tmp_path / "out")
    assert pulled["digest"] == json.loads(stdout)["digest"]
    assert digests_of(tmp_path / "out") == digests_of(model)


def test_two_pulls_into_one_directory(registry, command, model, tmp_path):
    out = tmp_path / "out"
    first = start_slow_pull(command, registry, out)
    second = command.start("pull", f"{registry.host}/{REPOSITORY}:v1", out, "--json")
    pulled = finished(first, model, out)
    waited = finished(second, model, out)
    assert pulled["fetched_bytes"] > waited["bytes"]
    assert waited["fetched_bytes"] < 30_000
    assert any("waiting" in text for text in waited["warnings"])


def test_two_versions_into_one_directory(registry, command, model, tmp_path):
    """The one that comes second has the last word, and nothing of the first is in its way."""
    other = write_files(tmp_path / "other", {"README.md": b"# Two", "new.bin": random_bytes(CHUNK)})
    command.json("push", other, f"{registry.host}/{REPOSITORY}:v2")
    out = tmp_path / "out"
    first = start_slow_pull(command, registry, out)
    second = command.start("pull", f"{registry.host}/{REPOSITORY}:v2", out, "--json")
    stderr = first.communicate(timeout=90)[1]
    assert first.returncode == 0, stderr
    assert finished(second, other, out)["removed"] > 0


def test_two_pulls_into_two_directories(registry, command, model, tmp_path):
    outs = [tmp_path / "one", tmp_path / "two"]
    pulls = [
        command.start("pull", f"{registry.host}/{REPOSITORY}:v1", out, "--json") for out in outs
    ]
    for pull, out in zip(pulls, outs, strict=True):
        assert finished(pull, model, out)["warnings"] == []
