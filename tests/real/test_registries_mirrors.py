"""Mirrors that this project did not write: a pull-through cache, and nginx before a registry."""

import pytest

import modelpack
from modelpack.registry.options import ConnectionOptions
from tests.support.importing import blob_requests, build_shards
from tests.support.nginx import answer, proxy, some_of, trickle
from tests.support.samplemodel import digests_of

pytestmark = pytest.mark.real("docker-registry")


@pytest.fixture
def model(tmp_path):
    return build_shards(tmp_path / "model")


def mirrored(registry, mirror):
    return ConnectionOptions(mirrors={registry.host: (mirror.url,)})


def test_a_pull_through_cache(start_registry, model, tmp_path):
    """It sends whole blobs while it fetches them, and ranges once it has them."""
    origin = start_registry()
    cache = start_registry(remote=origin.url)
    reference = f"{origin.host}/team/model:v1"
    modelpack.push(model, reference)
    modelpack.pull(reference, tmp_path / "one", connection=mirrored(origin, cache))
    assert digests_of(tmp_path / "one") == digests_of(model)
    assert blob_requests(cache)
    before = len(blob_requests(origin))
    for name in ("two", "three"):
        modelpack.pull(reference, tmp_path / name, connection=mirrored(origin, cache))
        assert digests_of(tmp_path / name) == digests_of(model)
    assert len(blob_requests(origin)) - before <= before


@pytest.mark.real("nginx")
@pytest.mark.parametrize("how", ["works", "errors", "stalls"])
def test_nginx_before_a_registry(how, start_nginx, docker_registry, model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "modelpack.registry.ranges.HttpRangeConnection.__init__.__kwdefaults__",
        {"stall_seconds": 1.0},
    )
    pieces = {
        "works": (), "errors": (answer(502, when="$bad"),), "stalls": (trickle(after="100k"),)
    }[how]  # fmt: skip
    mirror = start_nginx(proxy(docker_registry, *pieces), http=some_of("$bad", 60))
    reference = f"{docker_registry.host}/mirrors/{how}:v1"
    modelpack.push(model, reference)
    before = len(blob_requests(docker_registry))
    modelpack.pull(reference, tmp_path / "out", connection=mirrored(docker_registry, mirror))
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert len(blob_requests(docker_registry)) > before
