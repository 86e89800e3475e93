import hashlib
import os
import threading

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
from modelpack.packing import Cores, pack_layer
from modelpack.scan import scan_directory
from tests.support.models import CHUNK, one_shard, random_bytes, write_files


@pytest.fixture(scope="module")
def cores():
    with Cores(2) as found:
        yield found


def layer_of(directory):
    files = scan_directory(directory).files
    layer = place([SourceFile(path=f.path, size=f.size, mode=f.mode) for f in files])
    return layer, {file.path: file for file in files}


def pack(directory, cores, cache=None, observer=ignore):
    return pack_layer(*layer_of(directory), cache=cache, observer=observer, cores=cores)


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


def test_layers_share_the_cores():
    """One alone has two, each of two has one, and a third waits."""
    data = memoryview(b"")
    done, began, end = threading.Event(), threading.Event(), threading.Event()

    def third():
        with cores.one():
            began.set()
            end.wait(10)

    with Cores(2) as cores, cores.one():
        lent = cores.lend(lambda _: done.wait(10), data)
        assert lent is not None
        assert cores.lend(bytes, data) is None
        done.set()
        assert lent.result()
        with cores.one():
            assert cores.lend(bytes, data) is None
            waiting = threading.Thread(target=third)
            waiting.start()
            assert not began.wait(0.2)
            assert cores.lend(bytes, data) is None
        assert began.wait(10)
        assert cores.lend(bytes, data) is None
        end.set()
        waiting.join()
        assert cores.lend(bytes, data) is not None


def test_an_observer_stops_it(tmp_path, cores):
    model = write_files(tmp_path / "model", {"large": random_bytes(3_000_000, 5)})

    def observer(event):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        pack(model, cores, observer=observer)


def test_hashing_is_told_of_while_it_lasts(tmp_path, cores, monkeypatch):
    monkeypatch.setattr(packing, "_BLOCK_BYTES", 64 * 1024)
    monkeypatch.setattr(packing, "_TELL_BYTES", 256 * 1024)
    model = write_files(tmp_path / "model", {"large": random_bytes(1_000_000, 5)})
    events = []
    packed = pack(model, cores, observer=events.append)
    assert [event.size for event in events][1:5] == [256 * 1024] * 3 + [1_000_000 - 3 * 256 * 1024]
    assert sum(event.size for event in events) == packed.descriptor.size


def test_one_pass_gives_every_hash(tmp_path, cores):
    model = write_files(tmp_path / "model", FILES)
    events = []
    packed = pack(model, cores, observer=events.append)
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


def test_tensors_decide_where_chunks_end(tmp_path, cores):
    model = write_files(tmp_path / "model", {"m.safetensors": FILES["model.safetensors"]})
    packed = pack(model, cores)
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

    def test_unchanged_files_are_not_read(self, model, cache, cores, monkeypatch):
        first = pack(model, cores, cache)
        monkeypatch.setattr(packing, "_hash_file", None)
        events = []
        again = pack(model, cores, cache, events.append)
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
    def test_any_change_is_seen(self, model, cache, cores, change):
        before = pack(model, cores, cache)
        change(model)
        settle(model)
        after = pack(model, cores, cache)
        assert after.descriptor.digest != before.descriptor.digest
        assert after.descriptor == pack(model, cores).descriptor

    def test_a_file_swapped_for_another_of_its_size_and_time_is_seen(self, model, cache, cores):
        pack(model, cores, cache)
        (model / "other").write_bytes(b"x" * 5000)
        settle(model)
        (model / "other").rename(model / "a.bin")
        assert pack(model, cores, cache).descriptor == pack(model, cores).descriptor

    def test_a_file_written_just_now_is_not_believed(self, model, cache, cores):
        """A later write within the clock's grain could leave its times as they are."""
        (model / "a.bin").write_bytes(b"b" * 5000)
        pack(model, cores, cache)
        assert not list((model.parent / "cache").rglob("*"))

    def test_damage_costs_only_time(self, model, cache, cores):
        first = pack(model, cores, cache)
        (entry,) = (model.parent / "cache" / "layers").iterdir()
        entry.write_bytes(entry.read_bytes()[:-3])
        assert pack(model, cores, cache).descriptor == first.descriptor

    def test_other_places_have_entries_of_their_own(self, model, cache, cores, tmp_path):
        first = pack(model, cores, cache)
        copy = write_files(tmp_path / "copy", {"a.bin": b"a" * 5000, "b/c.bin": b"c"})
        settle(copy)
        assert pack(copy, cores, cache).descriptor == first.descriptor
        assert len(list((tmp_path / "cache" / "layers").iterdir())) == 2


class TestChangesMeanwhile:
    def packed_after(self, tmp_path, cores, change):
        model = write_files(tmp_path / "model", {"a.bin": random_bytes(2 * CHUNK)})
        layer, sources = layer_of(model)
        change(model / "a.bin")
        return pack_layer(layer, sources, cache=None, observer=ignore, cores=cores)

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
    def test_between_scan_and_reading(self, tmp_path, cores, change):
        with pytest.raises(IntegrityError, match=r"a\.bin"):
            self.packed_after(tmp_path, cores, change)

    def test_a_touch_without_a_change_is_a_change(self, tmp_path, cores):
        """Better to say so once too often."""
        with pytest.raises(IntegrityError, match="changed while it was being read; try again"):
            self.packed_after(tmp_path, cores, lambda path: os.utime(path, (1, 1)))


@pytest.mark.parametrize("name", ["m.safetensors", "m.gguf", "M.SAFETENSORS"])
def test_a_damaged_tensor_file_is_refused_by_name(tmp_path, cores, name):
    model = write_files(tmp_path / "model", {name: b"\xff" * 100})
    with pytest.raises(FormatError, match=name):
        pack(model, cores)


def test_the_cache_entry_is_read_as_it_was_written(tmp_path, cores):
    packed = pack(write_files(tmp_path / "model", FILES), cores)
    encoded = packing._encode(packed.descriptor.digest, packed.chunks)
    assert packing._decode(encoded, len(FILES)) == (packed.descriptor.digest, packed.chunks)
