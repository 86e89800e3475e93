import pytest

from modelpack.reference import parse_reference
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.repository import RegistryRepository
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
def open_repository(tmp_path):
    opened = []

    def make(registry, name=NAME, **options):
        defaults = {
            "auth_file": tmp_path / "none.json",
            "state_directory": tmp_path / "state",
            "patience": 5.0,
        }
        reference = parse_reference(f"{registry.host}/{name}:v1")
        made = RegistryRepository(reference, ConnectionOptions(**{**defaults, **options}))
        opened.append(made)
        return made

    yield make
    for made in opened:
        made.close()


@pytest.fixture
def repository(registry, open_repository):
    return open_repository(registry)
