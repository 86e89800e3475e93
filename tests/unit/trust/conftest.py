"""Registries with and without the referrers API, a model, and a home of its own for every test."""

import pytest

from tests.support.faultregistry import FaultRegistry, Features
from tests.support.models import one_shard, write_files


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.fixture(params=["api", "tag"])
def registry(request):
    """With the referrers API, and with the tag that stands in for it."""
    with FaultRegistry(features=Features(referrers=request.param == "api")) as running:
        yield running
        assert running.violations == []


@pytest.fixture
def model(tmp_path):
    return write_files(
        tmp_path / "model",
        {"model.safetensors": one_shard(range(4), size=300_000), "config.json": b"{}"},
    )


@pytest.fixture
def tag_registry():
    with FaultRegistry(features=Features(referrers=False)) as running:
        yield running
