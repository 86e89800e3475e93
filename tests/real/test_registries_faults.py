"""A real registry behind an nginx that caps, drops, refuses or points elsewhere."""

import time
from pathlib import Path

import pytest

from tests.support import nginx
from tests.support.command import Command
from tests.support.models import CHUNK, random_bytes, write_files
from tests.support.registries import docker_config
from tests.support.samplemodel import build_sample, digests_of

pytestmark = [pytest.mark.real("docker-registry", "nginx")]

REPOSITORY = "faults/model"
BLOBS = f"/v2/{REPOSITORY}/blobs/"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The sample, and eight files of one chunk more for faults at random to strike."""
    model = build_sample(tmp_path_factory.mktemp("sample") / "model")
    return write_files(
        model, {f"shard-{number}.bin": random_bytes(CHUNK, number) for number in range(8)}
    )


@pytest.fixture(scope="module")
def published(docker_registry, model, tmp_path_factory):
    """What a push of the model to the plain registry printed."""
    home = tmp_path_factory.mktemp("publisher")
    return Command(home).json("push", model, f"{docker_registry.host}/{REPOSITORY}:v1")


@pytest.fixture
def pull_through(command, model, published, tmp_path):
    """A function that pulls the model through a server and proves that it is exact."""

    def pull(server, *options):
        out = tmp_path / "out"
        pulled = command.json("pull", f"{server.host}/{REPOSITORY}:v1", out, *options)
        assert digests_of(out) == digests_of(model)
        assert pulled["digest"] == published["digest"]
        return pulled

    return pull


def answers(server, status: int, part: str = "/blobs/") -> list[str]:
    """Return the requests below ``part`` that a server answered with a status."""
    return [line for line in server.requests() if line.startswith(f"{status} ") and part in line]


def connections_to(port: int) -> int:
    """Return how many connections to a loopback port are established right now."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(
        remote == f"0100007F:{port:04X}" and state == "01" for _, _, remote, state, *_ in fields
    )


def test_a_cap_on_each_connection_is_met_with_more_of_them(
    docker_registry, start_nginx, command, model, published, tmp_path
):
    cap = 2_000_000
    server = start_nginx(nginx.proxy(docker_registry, nginx.limit_rate(str(cap))))
    began = time.monotonic()
    process = command.start("pull", f"{server.host}/{REPOSITORY}:v1", tmp_path / "out", "--quiet")
    most = 0
    while process.poll() is None:
        most = max(most, connections_to(int(server.host.rpartition(":")[2])))
        time.sleep(0.05)
    seconds = time.monotonic() - began
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert most > 2
    assert seconds < published["bytes"] / cap, "no faster than one connection may be"


def test_connections_dropped_at_random(docker_registry, start_nginx, pull_through):
    server = start_nginx(
        nginx.proxy(docker_registry, nginx.answer(444, when="$bad"), path=BLOBS),
        nginx.proxy(docker_registry),
        http=nginx.some_of("$bad", 40),
    )
    pulled = pull_through(server)
    assert answers(server, 444)
    assert pulled["fetched_bytes"] < pulled["bytes"] + 30_000


def test_a_server_without_ranges_sends_each_layer_once(docker_registry, start_nginx, pull_through):
    server = start_nginx(nginx.proxy(docker_registry, nginx.ignore_ranges()))
    pulled = pull_through(server)
    assert answers(server, 200)
    assert not answers(server, 206)
    assert pulled["fetched_bytes"] < pulled["bytes"] + 30_000


def test_too_many_requests(docker_registry, start_nginx, pull_through):
    server = start_nginx(
        nginx.proxy(docker_registry, nginx.refuse_over("few")),
        http=nginx.rate_zone("few", "4r/s") + nginx.retry_after(1),
    )
    pull_through(server)
    assert answers(server, 429)


@pytest.mark.parametrize("status", [500, 503])
def test_errors_in_bursts(docker_registry, start_nginx, pull_through, status):
    server = start_nginx(
        nginx.proxy(docker_registry, nginx.answer(status, when="$bad")),
        http=nginx.alternate_seconds("$bad"),
    )
    pull_through(server, "--limit-rate=15M")
    assert answers(server, status, "/")


def test_a_push_through_errors_in_bursts(docker_registry, start_nginx, command, model, tmp_path):
    server = start_nginx(
        nginx.proxy(docker_registry, nginx.answer(502, when="$bad")),
        http=nginx.alternate_seconds("$bad"),
    )
    reference = f"{server.host}/faults/bursts:v1"
    command.json("push", model, reference, "--limit-rate=15M")
    assert answers(server, 502, "/")
    command.json("pull", reference.replace(server.host, docker_registry.host), tmp_path / "out")
    assert digests_of(tmp_path / "out") == digests_of(model)


def test_patch_refused(docker_registry, start_nginx, command, tmp_path):
    """As GHCR and Google's registry do it: whole blobs by PUT, and nothing else."""
    model = write_files(tmp_path / "model", {"large.bin": random_bytes(70_000_000)})
    server = start_nginx(nginx.refuse_method("PATCH"), nginx.proxy(docker_registry))
    pushed = command.json("push", model, f"{server.host}/faults/unpatched:v1")
    assert answers(server, 405)
    assert pushed["uploaded_bytes"] > 70_000_000
    command.json("pull", f"{docker_registry.host}/faults/unpatched:v1", tmp_path / "out")
    assert digests_of(tmp_path / "out") == digests_of(model)


def test_blobs_on_another_host_get_no_credentials(
    basic_auth_registry, start_registry, start_nginx, model, tmp_path
):
    """The registry wants a password; what it redirects to must never see it."""
    elsewhere = start_registry()
    Command(tmp_path / "owner").json("push", model, f"{elsewhere.host}/{REPOSITORY}:v1")
    log = "log_format seen '$http_authorization|$http_cookie|$request_method $request_uri';"
    storage = start_nginx(
        nginx.proxy(elsewhere),
        f"access_log {tmp_path}/seen.log seen;",
        http=log,
    )
    front = start_nginx(
        nginx.redirect_blobs(to=f"http://localhost:{storage.host.rpartition(':')[2]}"),
        nginx.proxy(basic_auth_registry),
    )
    config = tmp_path / "docker"
    config.mkdir()
    docker_config(config, front.host)
    docker_config(tmp_path, basic_auth_registry.host)
    command = Command(tmp_path / "home", {"DOCKER_CONFIG": str(tmp_path)})
    command.json("push", model, f"{basic_auth_registry.host}/{REPOSITORY}:v1")
    command = Command(tmp_path / "home2", {"DOCKER_CONFIG": str(config)})
    pulled = command.json("pull", f"{front.host}/{REPOSITORY}:v1", tmp_path / "out")
    assert pulled["verified"] == "chunks"
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert answers(front, 307)
    seen = (tmp_path / "seen.log").read_text().splitlines()
    assert len(seen) > 5
    assert all(line.startswith("-|-|GET /v2/") for line in seen), seen[:3]
