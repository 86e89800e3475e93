"""What every flow test needs: a cache and home of its own, and a model at a registry."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import modelpack
from modelpack.connect import open_repository
from modelpack.manifest import Manifest
from tests.support.faultregistry import FaultRegistry
from tests.support.models import one_shard, write_files


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class Published:
    """A model on disk and at a registry."""

    registry: FaultRegistry
    model: Path
    reference: str
    manifest: Manifest

    @property
    def weights(self) -> str:
        """The digest of the layer with the weights."""
        return str(self.manifest.layers[0].digest)

    @property
    def metadata(self) -> str:
        """The digest of the metadata layer."""
        return str(self.manifest.layers[-1].digest)


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    with FaultRegistry() as running:
        yield running


@pytest.fixture
def published(registry, tmp_path) -> Published:
    """A 24 MB model: one shard of 40 layers, two small files."""
    model = write_files(
        tmp_path / "model",
        {
            "model.safetensors": one_shard(range(40), size=600_000),
            "config.json": b'{"model_type":"llama"}',
            "sub/tokenizer.json": b"{}",
        },
    )
    reference = f"{registry.host}/team/model:v1"
    modelpack.push(model, reference)
    with open_repository(reference) as repository:
        manifest = repository.fetch_manifest("v1")
    assert isinstance(manifest, Manifest)
    registry.clear_records()
    return Published(registry, model, reference, manifest)
