"""Layouts on disk: everything stored is verified and durable, and writers do not lose each other's."""

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelpack.content import BlobContent
from modelpack.descriptor import EMPTY_CONFIG, OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST, Descriptor
from modelpack.digest import Digest
from modelpack.errors import FormatError, IntegrityError, ModelpackError, NotFoundError
from modelpack.manifest import Index, Manifest
from modelpack.reference import LayoutReference, RegistryReference
from modelpack.stores import layout as module
from modelpack.stores.layout import LayoutRepository
from tests.support.models import random_bytes

DATA = random_bytes(100_000)
BLOB = Descriptor.of(DATA, media_type=OCI_LAYER_TAR)
CONFIG = Descriptor.of(b"{}", media_type=EMPTY_CONFIG)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(root):
    return LayoutRepository(LayoutReference(str(root), "v1"))


def manifest_of(*annotations, subject=None, artifact_type=None):
    return Manifest.build(
        config=CONFIG,
        layers=[BLOB],
        annotations={"n": "".join(map(str, annotations))},
        subject=subject,
        artifact_type=artifact_type,
    )


def listed(root):
    """index.json as (digest, tag) pairs."""
    value = json.loads((root / "index.json").read_text())
    assert value["schemaVersion"] == 2
    assert value["mediaType"] == OCI_INDEX
    name = "org.opencontainers.image.ref.name"
    return [(e["digest"], e.get("annotations", {}).get(name)) for e in value["manifests"]]


def read_stream(stream, size=1000):
    out, buffer = b"", memoryview(bytearray(size))
    while count := stream.readinto(buffer):
        out += buffer[:count]
    return out


def test_a_new_layout_has_its_fixed_files(store, root):
    store.push_blob(BLOB, BlobContent((DATA,)))
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert listed(root) == []
    assert (root / "blobs" / "sha256" / BLOB.digest.hex).read_bytes() == DATA


class TestBlobs:
    def test_stored_and_read(self, store):
        assert not store.has_blob(BLOB)
        seen = []
        store.push_blob(BLOB, BlobContent((DATA[:70_000], DATA[70_000:])), seen.append)
        assert store.has_blob(BLOB)
        assert sum(seen) == len(DATA)
        assert store.fetch_blob(BLOB, max_bytes=len(DATA)) == DATA
        with store.open_blob(BLOB) as stream:
            assert read_stream(stream) == DATA
        with store.open_blob(BLOB, 10) as stream:
            assert read_stream(stream) == DATA[10:]
        with store.range_connection().open_range(BLOB, 10, 2500) as stream:
            assert read_stream(stream) == DATA[10:2510]

    def test_content_of_another_digest_leaves_nothing(self, store, root):
        for content in (DATA[:-1], DATA + b"x", DATA[:-1] + b"x"):
            with pytest.raises(IntegrityError, match="changed while it was being written"):
                store.push_blob(BLOB, BlobContent((content,)))
        assert not store.has_blob(BLOB)
        assert list((root / "blobs" / "sha256").iterdir()) == []

    def test_a_source_that_fails_leaves_nothing(self, store, root):
        class Broken:
            size = len(DATA)

            def pieces(self, start=0):
                yield memoryview(DATA[:1000])
                raise RuntimeError("gone")

        with pytest.raises(RuntimeError, match="gone"):
            store.push_blob(BLOB, Broken())
        assert list((root / "blobs" / "sha256").iterdir()) == []

    def test_a_damaged_blob_is_found_when_it_is_read(self, store):
        store.push_blob(BLOB, BlobContent((DATA,)))
        path = store.blob_path(BLOB.digest)
        path.write_bytes(bytes(len(DATA)))
        with pytest.raises(IntegrityError, match="has other bytes"):
            store.fetch_blob(BLOB, max_bytes=len(DATA))
        os.truncate(path, 5)
        assert not store.has_blob(BLOB)
        with pytest.raises(IntegrityError, match="has 5 bytes, not 100000"):
            store.fetch_blob(BLOB, max_bytes=len(DATA))

    def test_bounds(self, store):
        store.push_blob(BLOB, BlobContent((DATA,)))
        with pytest.raises(IntegrityError, match="over the bound of 10"):
            store.fetch_blob(BLOB, max_bytes=10)

    def test_a_missing_blob(self, store):
        with pytest.raises(NotFoundError, match=f"blob {BLOB.digest} is missing"):
            store.fetch_blob(BLOB, max_bytes=10**6)

    def test_taken_from_another_layout(self, store, tmp_path):
        other = LayoutReference(str(tmp_path / "other"))
        assert not store.mount_blob(BLOB, other)
        LayoutRepository(other).push_blob(BLOB, BlobContent((DATA,)))
        assert store.mount_blob(BLOB, other)
        assert store.mount_blob(BLOB, other)  # again
        assert store.fetch_blob(BLOB, max_bytes=10**6) == DATA
        assert not store.mount_blob(BLOB, RegistryReference("localhost", "x"))

    def test_damage_is_not_taken_along(self, store, tmp_path):
        other = LayoutReference(str(tmp_path / "other"))
        LayoutRepository(other).push_blob(BLOB, BlobContent((DATA,)))
        LayoutRepository(other).blob_path(BLOB.digest).write_bytes(bytes(len(DATA)))
        with pytest.raises(IntegrityError):
            store.mount_blob(BLOB, other)
        assert not store.has_blob(BLOB)


class TestManifests:
    def test_by_tag_and_digest(self, store, root):
        one = manifest_of(1)
        store.push_manifest(one, "v1")
        assert store.fetch_manifest("v1") == one
        assert store.fetch_manifest(one.digest) == one
        assert store.resolve("v1").size == len(one.raw)
        assert store.tags() == ["v1"]
        assert listed(root) == [(str(one.digest), "v1")]

    def test_a_tag_moves_and_what_it_leaves_stays(self, store, root):
        one, two = manifest_of(1), manifest_of(2)
        store.push_manifest(one, "v1")
        store.push_manifest(two, "v1")
        assert store.fetch_manifest("v1") == two
        assert store.fetch_manifest(one.digest) == one
        assert sorted(listed(root), key=str) == sorted(
            [(str(one.digest), None), (str(two.digest), "v1")], key=str
        )

    def test_pushing_again_changes_nothing(self, store, root):
        store.push_manifest(manifest_of(1), "v1")
        before = listed(root)
        store.push_manifest(manifest_of(1), "v1")
        store.push_manifest(manifest_of(1))
        assert listed(root) == before

    def test_several_tags_of_one_manifest(self, store):
        for tag in ("b", "a", "c"):
            store.push_manifest(manifest_of(1), tag)
        assert store.tags() == ["a", "b", "c"]
        store.push_manifest(manifest_of(2), "b")
        assert store.tags() == ["a", "b", "c"]
        assert store.fetch_manifest("a") == store.fetch_manifest("c") == manifest_of(1)

    def test_what_other_tools_wrote_in_the_index_stays(self, store, root):
        store.push_manifest(manifest_of(1), "v1")
        value = json.loads((root / "index.json").read_text())
        extra = {"platform": {"os": "linux", "architecture": "s390x"}, "annotations": {"a": "b"}}
        value["manifests"].append({**manifest_of(2).descriptor().to_json(), **extra})
        (root / "index.json").write_text(json.dumps(value))
        store.push_manifest(manifest_of(3), "v3")
        kept = json.loads((root / "index.json").read_text())["manifests"]
        assert value["manifests"][1] in kept

    def test_an_index_as_a_manifest(self, store):
        index = Index.build([manifest_of(1).descriptor()])
        store.push_manifest(manifest_of(1))
        store.push_manifest(index, "multi")
        assert store.fetch_manifest("multi") == index

    def test_a_manifest_that_only_another_names(self, store, root):
        inner = manifest_of(1)
        store.push_manifest(inner, "v1")
        (root / "index.json").write_bytes(Index.build(()).raw)
        assert store.fetch_manifest(inner.digest) == inner
        with pytest.raises(NotFoundError):
            store.fetch_manifest(Digest.of(b"none"))

    def test_a_changed_manifest_is_found(self, store):
        one = manifest_of(1)
        store.push_manifest(one, "v1")
        store.blob_path(one.digest).write_bytes(one.raw.replace(b'"1"', b'"2"'))
        for name in ("v1", one.digest):
            with pytest.raises(IntegrityError):
                store.fetch_manifest(name)

    def test_a_tag_that_is_not_there_names_those_that_are(self, store):
        store.push_manifest(manifest_of(1), "v1")
        with pytest.raises(NotFoundError, match=r"does not exist \(there is: v1\)"):
            store.resolve("v2")

    def test_referrers(self, store):
        subject = manifest_of(1)
        store.push_manifest(subject, "v1")
        one = manifest_of(2, subject=subject.descriptor(), artifact_type="application/a")
        two = manifest_of(3, subject=subject.descriptor())
        other = manifest_of(4, subject=one.descriptor(), artifact_type="application/a")
        for manifest in (one, two, other):
            store.push_manifest(manifest)
        found = store.referrers(subject.digest)
        assert [(entry.digest, entry.artifact_type) for entry in found] == [
            (one.digest, "application/a"),
            (two.digest, EMPTY_CONFIG),
        ]
        assert found[0].annotations == {"n": "2"}
        assert [e.digest for e in store.referrers(subject.digest, "application/a")] == [one.digest]
        assert [entry.digest for entry in store.referrers(one.digest)] == [other.digest]
        assert store.referrers(two.digest) == []


BAD_INDEXES = {
    "empty": b"",
    "text": b"no json",
    "list": b"[]",
    "no-manifests": b'{"schemaVersion":2}',
    "manifests-object": b'{"schemaVersion":2,"manifests":{}}',
    "entry-null": b'{"schemaVersion":2,"manifests":[null]}',
    "digest-a-path": json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                {"mediaType": OCI_MANIFEST, "size": 1, "digest": "sha256:../../../etc/passwd"}
            ],
        }
    ).encode(),
    "nested": b"[" * 100_000,
}


class TestOtherDirectories:
    @pytest.mark.parametrize("raw", BAD_INDEXES.values(), ids=BAD_INDEXES)
    def test_a_bad_index(self, store, root, raw):
        store.push_blob(BLOB, BlobContent((DATA,)))
        (root / "index.json").write_bytes(raw)
        for use in (store.tags, lambda: store.resolve("v1"), lambda: store.resolve(BLOB.digest)):
            with pytest.raises(FormatError):
                use()
        with pytest.raises(FormatError):
            store.push_manifest(manifest_of(1), "v1")
        assert (root / "index.json").read_bytes() == raw

    def test_a_directory_of_something_else_is_left_alone(self, store, root):
        root.mkdir()
        (root / "thesis.txt").write_text("mine")
        for use in (
            lambda: store.push_blob(BLOB, BlobContent((DATA,))),
            lambda: store.push_manifest(manifest_of(1), "v1"),
            store.tags,
        ):
            with pytest.raises(FormatError, match="no OCI layout"):
                use()
        assert [path.name for path in root.iterdir()] == ["thesis.txt"]

    def test_a_file(self, store, root):
        root.write_text("mine")
        with pytest.raises(ModelpackError):
            store.push_manifest(manifest_of(1), "v1")
        with pytest.raises(ModelpackError):
            store.tags()

    def test_nothing_there(self, store, root):
        with pytest.raises(NotFoundError):
            store.resolve("v1")
        assert not store.has_blob(BLOB)
        assert not root.exists()


WRITER = """
import sys
from modelpack.content import BlobContent
from modelpack.descriptor import OCI_LAYER_TAR, EMPTY_CONFIG, Descriptor
from modelpack.manifest import Manifest
from modelpack.reference import LayoutReference
from modelpack.stores.layout import LayoutRepository
root, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.read(1)  # all at once
for number in range(count):
    store = LayoutRepository(LayoutReference(root))
    data = f"{name} {number}".encode()
    layer = Descriptor.of(data, media_type=OCI_LAYER_TAR)
    store.push_blob(layer, BlobContent((data,)))
    store.push_blob(Descriptor.of(b"{}", media_type=EMPTY_CONFIG), BlobContent((b"{}",)))
    manifest = Manifest.build(
        config=Descriptor.of(b"{}", media_type=EMPTY_CONFIG), layers=[layer], artifact_type="a/b"
    )
    store.push_manifest(manifest, f"{name}-{number}")
    store.push_manifest(manifest, "latest")
    assert f"{name}-{number}" in store.tags()
"""


def test_writers_in_several_processes_lose_no_tag(root, store):
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, root, f"w{n}", "12"],
                    stdin=subprocess.PIPE,
                    cwd=Path(__file__).parents[2],
                )
            )
            for n in range(4)
        ]
        for writer in writers:
            writer.stdin.write(b"g")
            writer.stdin.flush()
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0]
    tags = {f"w{n}-{number}" for n in range(4) for number in range(12)}
    assert set(store.tags()) == tags | {"latest"}
    assert len(listed(root)) == len(tags) + 1
    for tag in tags:
        for layer in store.fetch_manifest(tag).layers:
            assert store.fetch_blob(layer, max_bytes=100).decode() == tag.replace("-", " ")
    leftover = [path for path in root.rglob(".*") if path.name != ".lock"]
    assert leftover == []


def test_two_makers_of_one_layout_lose_no_tag(root, monkeypatch):
    """One finds no index.json, stalls, and must not write an empty one over the other's."""
    stalled, go_on = threading.Event(), threading.Event()
    real = module.write_atomically

    def slow(path, data, **options):
        making = path.name == "index.json" and b"ref.name" not in data
        if making and threading.current_thread().name == "slow":
            stalled.set()
            go_on.wait(1)
        real(path, data, **options)

    monkeypatch.setattr(module, "write_atomically", slow)

    def push(tag):
        LayoutRepository(LayoutReference(str(root))).push_manifest(manifest_of(tag), tag)

    first = threading.Thread(target=push, args=("first",), name="slow")
    second = threading.Thread(target=push, args=("second",))
    first.start()
    assert stalled.wait(10)
    second.start()
    second.join(0.3)
    go_on.set()
    first.join(10)
    second.join(10)
    assert LayoutRepository(LayoutReference(str(root))).tags() == ["first", "second"]


def test_a_reader_never_sees_half_an_index(root, store):
    store.push_manifest(manifest_of(0), "v0")
    stop = threading.Event()
    wrong = []

    def read():
        while not stop.is_set():
            try:
                assert "v0" in store.tags()
            except Exception as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        store.push_manifest(manifest_of(number), f"v{number}")
    stop.set()
    reader.join(10)
    assert wrong == []
