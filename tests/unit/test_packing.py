import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack import packing
from modelpack.cache import Cache
from modelpack.chunking import chunk_lengths
from modelpack.errors import FormatError, IntegrityError
from modelpack.events import ignore
from modelpack.layering import SourceFile, place
from modelpack.packing import pack_layer
from modelpack.scan import scan_directory
from tests.support.models import CHUNK, one_shard, random_bytes, write_files


@pytest.fixture(scope="module")
def helpers():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def layer_of(directory):
    files = scan_directory(directory).files
    layer = place([SourceFile(path=f.path, size=f.size, mode=f.mode) for f in files])
    return layer, {file.path: file for file in files}


def pack(directory, helpers, cache=None, observer=ignore):
    return pack_layer(*layer_of(directory), cache=cache, observer=observer, helpers=helpers)


def settle(directory):
    """Give all files one time, as copying tools do."""
    for path in directory.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))


FILES = {
    "empty": b"",
    "one": b"1",
    "chunk-1": random_bytes(CHUNK - 1, 1),
    "chunk": random_bytes(CHUNK, 2),
    "chunk+1": random_bytes(CHUNK + 1, 3),
    "model.safetensors": one_shard(range(6), size=700_000),
    "hand-over": random_bytes(256 * 1024, 4),
}


def test_hashing_is_told_of_while_it_lasts(tmp_path, helpers, monkeypatch):
    monkeypatch.setattr(packing, "_BLOCK_BYTES", 64 * 1024)
    monkeypatch.setattr(packing, "_TELL_BYTES", 256 * 1024)
    model = write_files(tmp_path / "model", {"large": random_bytes(1_000_000, 5)})
    events = []
    packed = pack(model, helpers, observer=events.append)
    assert [event.size for event in events][1:5] == [256 * 1024] * 3 + [1_000_000 - 3 * 256 * 1024]
    assert sum(event.size for event in events) == packed.descriptor.size


def test_one_pass_gives_every_hash(tmp_path, helpers):
    model = write_files(tmp_path / "model", FILES)
    events = []
    packed = pack(model, helpers, observer=events.append)
    tar = b"".join(bytes(piece) for piece in packed.content.pieces())
    assert packed.descriptor.digest.hex == hashlib.sha256(tar).hexdigest()
    assert packed.descriptor.size == packed.content.size == len(tar)
    assert packed.title == "7 files"
    assert sum(event.size for event in events) == len(tar)
    for path, found in zip(sorted(FILES), packed.chunks, strict=True):
        data = FILES[path]
        assert found.blake3 == blake3(data).digest()
        if not path.endswith(".safetensors"):
            assert list(found.lengths) == chunk_lengths(len(data), None)
        assert sum(found.lengths) == len(data)
        at = 0
        hashes = b""
        for length in found.lengths:
            hashes += blake3(data[at : at + length]).digest()
            at += length
        assert found.hashes == hashes


def test_tensors_decide_where_chunks_end(tmp_path, helpers):
    model = write_files(tmp_path / "model", {"m.safetensors": FILES["model.safetensors"]})
    packed = pack(model, helpers)
    assert packed.title == "m.safetensors"
    # the header, then a large and a small tensor for each of six layers
    assert list(packed.chunks[0].lengths[1:]) == [700_000, 512] * 6


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=20),
    st.lists(st.integers(1, 4000), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_blocks_and_chunks_need_not_meet(lengths, blocks):
    data = random_bytes(sum(lengths), len(lengths))
    marker = packing._ChunkMarker(lengths)
    at, turn = 0, 0
    while at < len(data):
        size = blocks[turn % len(blocks)]
        marker.update(memoryview(data)[at : at + size])
        at += size
        turn += 1
    at, expected = 0, b""
    for length in lengths:
        expected += blake3(data[at : at + length]).digest()
        at += length
    assert bytes(marker.hashes) == expected


class TestCache:
    @pytest.fixture
    def model(self, tmp_path):
        model = write_files(tmp_path / "model", {"a.bin": b"a" * 5000, "b/c.bin": b"c"})
        settle(model)
        return model

    @pytest.fixture
    def cache(self, tmp_path, request, monkeypatch):
        if "just_now" not in request.node.name:
            monkeypatch.setattr(packing, "_TIMESTAMP_GRAIN_NS", -(10**12))
        return Cache("layers", home=tmp_path / "cache")

    def test_unchanged_files_are_not_read(self, model, cache, helpers, monkeypatch):
        first = pack(model, helpers, cache)
        monkeypatch.setattr(packing, "_hash_file", None)
        events = []
        again = pack(model, helpers, cache, events.append)
        assert (again.descriptor, again.chunks) == (first.descriptor, first.chunks)
        assert sum(event.size for event in events) == first.descriptor.size

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: (m / "a.bin").write_bytes(b"b" * 5000),
            lambda m: (m / "a.bin").rename(m / "d.bin"),
            lambda m: (m / "a.bin").chmod(0o755),
            lambda m: (m / "new").write_bytes(b""),
            lambda m: (m / "b/c.bin").unlink(),
        ],
        ids=["bytes", "name", "mode", "more", "less"],
    )
    def test_any_change_is_seen(self, model, cache, helpers, change):
        before = pack(model, helpers, cache)
        change(model)
        settle(model)
        after = pack(model, helpers, cache)
        assert after.descriptor.digest != before.descriptor.digest
        assert after.descriptor == pack(model, helpers).descriptor

    def test_a_file_swapped_for_another_of_its_size_and_time_is_seen(self, model, cache, helpers):
        pack(model, helpers, cache)
        (model / "other").write_bytes(b"x" * 5000)
        settle(model)
        (model / "other").rename(model / "a.bin")
        assert pack(model, helpers, cache).descriptor == pack(model, helpers).descriptor

    def test_a_file_written_just_now_is_not_believed(self, model, cache, helpers):
        """A later write within the clock's grain could leave its times as they are."""
        (model / "a.bin").write_bytes(b"b" * 5000)
        pack(model, helpers, cache)
        assert not list((model.parent / "cache").rglob("*"))

    def test_damage_costs_only_time(self, model, cache, helpers):
        first = pack(model, helpers, cache)
        (entry,) = (model.parent / "cache" / "layers").iterdir()
        entry.write_bytes(entry.read_bytes()[:-3])
        assert pack(model, helpers, cache).descriptor == first.descriptor

    def test_other_places_have_entries_of_their_own(self, model, cache, helpers, tmp_path):
        first = pack(model, helpers, cache)
        copy = write_files(tmp_path / "copy", {"a.bin": b"a" * 5000, "b/c.bin": b"c"})
        settle(copy)
        assert pack(copy, helpers, cache).descriptor == first.descriptor
        assert len(list((tmp_path / "cache" / "layers").iterdir())) == 2


class TestChangesMeanwhile:
    def packed_after(self, tmp_path, helpers, change):
        model = write_files(tmp_path / "model", {"a.bin": random_bytes(2 * CHUNK)})
        layer, sources = layer_of(model)
        change(model / "a.bin")
        return pack_layer(layer, sources, cache=None, observer=ignore, helpers=helpers)

    @pytest.mark.parametrize(
        "change",
        [
            lambda path: os.truncate(path, CHUNK),
            lambda path: path.write_bytes(bytes(2 * CHUNK)),
            lambda path: path.unlink(),
            lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
        ],
        ids=["shorter", "other-bytes", "gone", "a-link"],
    )
    def test_between_scan_and_reading(self, tmp_path, helpers, change):
        with pytest.raises(IntegrityError, match=r"a\.bin"):
            self.packed_after(tmp_path, helpers, change)

    def test_a_touch_without_a_change_is_a_change(self, tmp_path, helpers):
        """Better to say so once too often."""
        with pytest.raises(IntegrityError, match="changed while it was being read; try again"):
            self.packed_after(tmp_path, helpers, lambda path: os.utime(path, (1, 1)))


@pytest.mark.parametrize("name", ["m.safetensors", "m.gguf", "M.SAFETENSORS"])
def test_a_damaged_tensor_file_is_refused_by_name(tmp_path, helpers, name):
    model = write_files(tmp_path / "model", {name: b"\xff" * 100})
    with pytest.raises(FormatError, match=name):
        pack(model, helpers)


def test_the_cache_entry_is_read_as_it_was_written(tmp_path, helpers):
    packed = pack(write_files(tmp_path / "model", FILES), helpers)
    encoded = packing._encode(packed.descriptor.digest, packed.chunks)
    assert packing._decode(encoded, len(FILES)) == (packed.descriptor.digest, packed.chunks)
