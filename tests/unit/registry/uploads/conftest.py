import pytest

from tests.support.faultregistry import FaultRegistry
from tests.support.uploads import PIECE, Blob


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("modelpack.registry.retry._FIRST_DELAY", 0.02)


@pytest.fixture
def blob(tmp_path):
    return Blob(tmp_path)


@pytest.fixture
def small(tmp_path):
    return Blob(tmp_path, PIECE // 2)


@pytest.fixture
def registry():
    with FaultRegistry() as started:
        yield started
        assert started.violations == []


@pytest.fixture
def open_repository(open_repository):
    """Likewise, with uploads in pieces so small that a test's blob has several."""

    def make(registry, observer=None, **options):
        made = open_repository(registry, observer=observer, **options)
        made._uploader.piece_bytes = PIECE
        return made

    return make


@pytest.fixture
def push(open_repository, tmp_path):
    """Push a blob and return the counts that its progress told."""

    def run(registry, blob, **options):
        moved = []
        open_repository(registry, **options).push_blob(blob.descriptor, blob.content, moved.append)
        assert registry.blob(blob.descriptor.digest) == blob.data
        assert sum(moved) == blob.descriptor.size
        assert not list((tmp_path / "state").glob("uploads/*")), "nothing is left to remember"
        return moved

    return run
