import pytest

from tests.support.faultregistry import FaultRegistry
from tests.support.onemodel import LAYER_BYTES, MANIFEST, NAME


@pytest.fixture
def registry():
    with FaultRegistry() as started:
        started.add_blob(b"{}")
        started.add_blob(LAYER_BYTES)
        started.put_manifest(NAME, "v1", MANIFEST.raw)
        yield started
        assert started.violations == []


@pytest.fixture
def repository(registry, open_repository):
    return open_repository(registry)
