import pytest

from modelpack.reference import parse_reference
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.repository import RegistryRepository


@pytest.fixture
def open_repository(tmp_path):
    """Open a registry's repository, as often as a test wants; all are closed at the end."""
    opened = []

    def make(registry, name="team/model", observer=None, **options):
        defaults = {
            "auth_file": tmp_path / "none.json",
            "state_directory": tmp_path / "state",
            "patience": 5.0,
        }
        reference = parse_reference(f"{registry.host}/{name}:v1")
        made = RegistryRepository(reference, ConnectionOptions(**{**defaults, **options}), observer)
        opened.append(made)
        return made

    yield make
    for made in opened:
        made.close()
