"""Tokens that live five seconds, during transfers that take five times as long."""

import time

import pytest

from tests.support import nginx
from tests.support.models import CHUNK, random_bytes, write_files
from tests.support.samplemodel import digests_of

pytestmark = [pytest.mark.real("docker-registry", "nginx")]

NAME = "team/model:v1"
FILES = 10


@pytest.fixture
def model(tmp_path):
    return write_files(
        tmp_path / "model",
        {f"part-{number:02}.bin": random_bytes(CHUNK, number) for number in range(FILES)},
    )


def refused(requests) -> list[str]:
    """Return the requests for blobs that a registry answered with 401."""
    return [line for line in requests if line.startswith("401 ") and "/blobs/" in line]


def test_a_slow_pull_gets_new_tokens_before_the_old_ones_end(
    token_registry, token_server, start_nginx, model, command, tmp_path
):
    command.json("push", model, f"{token_registry.host}/{NAME}")
    slow = start_nginx(nginx.proxy(token_registry, nginx.limit_rate("800k")))
    asked = len(token_server.requests)
    began = time.monotonic()
    pulled = command.json("pull", f"{slow.host}/{NAME}", tmp_path / "out", "--max-connections=2")
    seconds = time.monotonic() - began
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert pulled["fetched_bytes"] < pulled["bytes"] + 30_000  # nothing twice
    assert seconds > 20
    renewed = token_server.requests[asked:]
    assert len(renewed) >= 4
    assert all(one.granted and one.scopes == ["repository:team/model:pull"] for one in renewed)
    assert refused(slow.requests()) == [], "a token was used to its end"


def test_a_slow_push_gets_new_tokens_too(
    token_registry, token_server, start_nginx, model, command, tmp_path
):
    watched = start_nginx(nginx.proxy(token_registry))
    began = time.monotonic()
    command.json("push", model, f"{watched.host}/{NAME}", "--limit-rate=3500k")
    assert time.monotonic() - began > 10
    assert len(token_server.requests) >= 3
    command.json("pull", f"{watched.host}/{NAME}", tmp_path / "out")
    assert digests_of(tmp_path / "out") == digests_of(model)
