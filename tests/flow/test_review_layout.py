"""A layout keeps nothing of killed writers, waits for nobody's FIFO, and is durable to its root."""

import fcntl
import os

import pytest

from modelpack.content import BlobContent
from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.errors import FormatError, IntegrityError, ModelpackError
from modelpack.reference import LayoutReference
from modelpack.stores import layout as layout_module
from modelpack.stores.layout import LayoutRepository


def stored(store: LayoutRepository, data: bytes) -> Descriptor:
    descriptor = Descriptor.of(data, media_type=OCI_LAYER_TAR)
    store.push_blob(descriptor, BlobContent((data,)))
    return descriptor


@pytest.fixture
def root(tmp_path):
    return tmp_path / "deep" / "store"


def open_store(root):
    return LayoutRepository(LayoutReference(str(root)))


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(root):
    stored(open_store(root), b"one")
    blobs = root / "blobs" / "sha256"
    (blobs / f".{'a' * 64}.00112233").write_bytes(bytes(1000))
    busy = blobs / f".{'b' * 64}.44556677"
    with busy.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        stored(open_store(root), b"two")
        assert [path.name for path in blobs.glob(".*")] == [busy.name]


def test_a_fifo_in_the_place_of_a_blob_is_not_waited_for(root):
    store = open_store(root)
    descriptor = stored(store, b"one")
    store.blob_path(descriptor.digest).unlink()
    os.mkfifo(store.blob_path(descriptor.digest))
    with pytest.raises(IntegrityError, match="0 bytes"):
        store.fetch_blob(descriptor, max_bytes=100)


def test_names_are_durable_up_to_the_root(root, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(fd):
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    stored(open_store(root), b"one")
    places = [root.parent.parent, root.parent, root, root / "blobs", root / "blobs" / "sha256"]
    assert {str(place) for place in places} <= set(synced)


def test_a_bad_disk_is_one_line(root, monkeypatch):
    store = open_store(root)
    descriptor = stored(store, b"one")

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(layout_module.os, "preadv", broken)
    with pytest.raises(ModelpackError, match=r"cannot read .*: Input/output error"):
        store.fetch_blob(descriptor, max_bytes=100)


def test_a_file_is_no_layout(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FormatError, match="no OCI layout"):
        stored(open_store(tmp_path / "file"), b"one")
