import json
import struct
import time
import tracemalloc
from array import array
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpack.chunkindex import (
    MAGIC,
    MAX_CHUNKS,
    MAX_HEAD_BYTES,
    ChunkIndex,
    decode_index,
    encode_index,
    source_file,
)
from modelpack.errors import FormatError
from modelpack.layering import place
from tests.support import secondreader
from tests.support.indexes import CHUNK, fake_hash, indexes, make_index


def parts(raw):
    """An encoded index as (magic, head bytes, table)."""
    magic, head_bytes, _ = struct.unpack_from("<8sII", raw)
    return magic, raw[16 : 16 + head_bytes], raw[16 + head_bytes :]


def assemble(head, table, *, magic=MAGIC, head_bytes=None, count=None):
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    return (
        struct.pack(
            "<8sII",
            magic,
            len(raw) if head_bytes is None else head_bytes,
            len(table) // 36 if count is None else count,
        )
        + raw
        + table
    )


SMALL = make_index(
    [("b/a.bin", [CHUNK, 5]), ("b/c.txt", [3]), ("empty", []), ("run", [1, 1])],
    modes={"run": 0o755},
    contents={("run", 0): "same", ("run", 1): "same"},
)


def test_what_an_index_says():
    index = decode_index(encode_index(SMALL))
    assert [file.path for file in index.files] == ["b/a.bin", "b/c.txt", "empty", "run"]
    assert [file.mode for file in index.files] == [0o644, 0o644, 0o644, 0o755]
    assert [file.layer for file in index.files] == [0, 1, 1, 1]
    assert [file.offset for file in index.files] == [1024, 1024, 2048, 2560]
    assert [list(file.chunks) for file in index.files] == [[0, 1], [2], [], [3, 4]]
    assert list(index.lengths) == [CHUNK, 5, 3, 1, 1]
    assert list(index.offsets) == [0, CHUNK, 0, 0, 1]
    assert index.hash_of(1) == fake_hash(("b/a.bin", 1), 5)
    assert index.hash_of(3) == index.hash_of(4) == fake_hash("same", 1)
    assert index.chunk_count == 5
    assert index.total_bytes == CHUNK + 10
    assert index.by_path()["run"] is index.files[3]
    assert [file.path for file in index.files_of_layer(1)] == ["b/c.txt", "empty", "run"]
    assert index.files_of_layer(2) == ()


def test_the_encoded_form():
    raw = encode_index(SMALL)
    magic, head, table = parts(raw)
    assert magic == b"MPKCHNK\x01"
    assert len(raw) == 16 + len(head) + 36 * 5
    assert table[36:72] == (5).to_bytes(4, "little") + fake_hash(("b/a.bin", 1), 5)
    value = json.loads(head)
    assert head == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    assert list(value) == ["layers", "files"]
    assert list(value["files"][0]) == [
        "path",
        "size",
        "mode",
        "blake3",
        "layer",
        "offset",
        "chunks",
    ]


@given(indexes())
@example(make_index([]))
@settings(max_examples=150, deadline=None)
def test_round_trip(index):
    raw = encode_index(index)
    decoded = decode_index(raw)
    assert decoded == index
    assert encode_index(decoded) == raw
    assert decoded.total_bytes == sum(index.lengths)


@given(indexes(min_files=1, max_files=5), st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_index_gives_our_error_or_a_valid_index(index, data):
    """Any byte but those of a hash matters; both readers say the same of every damage."""
    raw = bytearray(encode_index(index))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    try:
        decoded = decode_index(bytes(raw))
    except FormatError as error:
        decoded, said = None, str(error)
        assert said.isprintable()
    try:
        second = secondreader.read_index(bytes(raw))
    except secondreader.RefusedError:
        second = None
    assert (decoded is None) == (second is None)
    if decoded:
        assert_valid(decoded)


@given(st.binary(max_size=200))
@example(b"")
@example(MAGIC)
@example(MAGIC + bytes(8))
@settings(deadline=None)
def test_any_bytes_give_our_error(raw):
    """No 200 bytes are a valid index but the empty one's."""
    with pytest.raises(FormatError):
        decode_index(raw)


@given(st.binary(max_size=60), st.binary(max_size=80))
@settings(deadline=None)
def test_any_head_gives_our_error(head, table):
    with pytest.raises(FormatError):
        decode_index(assemble(head, table))


def assert_valid(index):
    """What decoding promises."""
    assert len(index.hashes) == 32 * index.chunk_count
    for file in index.files:
        assert sum(index.lengths[chunk] for chunk in file.chunks) == file.size
    for number, layer in enumerate(index.layers):
        members = index.files_of_layer(number)
        planned = place([source_file(file) for file in members])
        assert planned.size == layer.size
        assert [item.offset for item in planned.files] == [file.offset for file in members]


_, HEAD, TABLE = parts(encode_index(SMALL))
BROKEN = {
    "no-bytes": (b"", "shorter than its fixed part"),
    "fifteen-bytes": (MAGIC + bytes(7), "shorter than its fixed part"),
    "other-magic": (assemble(HEAD, TABLE, magic=b"MPKCHNX\x01"), "magic number"),
    "version-2": (assemble(HEAD, TABLE, magic=b"MPKCHNK\x02"), "has version 2.* reads 1: update"),
    "version-0": (assemble(HEAD, TABLE, magic=b"MPKCHNK\x00"), "has version 0"),
    "a-byte-more": (assemble(HEAD, TABLE) + b"\0", "wrong length"),
    "a-byte-less": (assemble(HEAD, TABLE)[:-1], "wrong length"),
    "count-more": (assemble(HEAD, TABLE, count=6), "wrong length"),
    "count-less": (assemble(HEAD, TABLE, count=4), "wrong length"),
    "head-longer": (assemble(HEAD, TABLE, head_bytes=len(HEAD) + 36, count=4), "not valid JSON"),
    "head-shorter": (assemble(HEAD, TABLE, head_bytes=len(HEAD) - 36, count=6), "not valid JSON"),
    "head-over-bound": (assemble(b"", b"", head_bytes=MAX_HEAD_BYTES + 1), "larger than any real"),
    "count-over-bound": (assemble(b"", b"", count=MAX_CHUNKS + 1), "larger than any real"),
    "count-2^32-1": (assemble(HEAD, TABLE, count=2**32 - 1), "larger than any real"),
    "chunk-of-no-bytes": (assemble(HEAD, bytes(4) + TABLE[4:]), "empty or longer"),
    "chunk-too-long": (
        assemble(HEAD, struct.pack("<I", CHUNK + 1) + TABLE[4:]),
        "empty or longer than 4194304",
    ),
    "chunk-of-4-GiB": (assemble(HEAD, b"\xff" * 4 + TABLE[4:]), "empty or longer"),
    "chunk-shorter": (
        assemble(HEAD, struct.pack("<I", CHUNK - 1) + TABLE[4:]),
        "the chunks of 'b/a.bin' do not add up",
    ),
    "chunk-missing": (assemble(HEAD, TABLE[36:]), "chunk counts do not add up"),
    "chunks-swapped": (
        assemble(HEAD, TABLE[72:] + TABLE[:72]),
        "the chunks of 'b/a.bin' do not add up",
    ),
    "upper-case-hash": (
        assemble(HEAD.replace(SMALL.files[0].blake3.hex().encode(), b"A" * 64), TABLE),
        r"files\[0\].blake3 is not 32 bytes of hex",
    ),
    "not-utf-8": (assemble(HEAD.replace(b"empty", b"empt\xff"), TABLE), "not valid JSON"),
    "digits-beyond-reason": (
        assemble(HEAD.replace(b'"size":3,', b'"size":' + b"9" * 5000 + b","), TABLE),
        "not valid JSON",
    ),
    "nested": (assemble(b"[" * 200_000, b""), "nested too deeply|not valid JSON"),
}


@pytest.mark.parametrize(("raw", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_named(raw, said):
    with pytest.raises(FormatError, match=said) as caught:
        decode_index(raw)
    assert str(caught.value).isprintable()
    with pytest.raises(secondreader.RefusedError):
        secondreader.read_index(raw)


def test_an_index_of_a_terabyte():
    """A sanity bound with a wide margin, not a benchmark; tracing slows it down."""
    shard = [CHUNK] * 1490
    index = make_index([(f"model-{n:05}-of-00163.safetensors", shard) for n in range(163)])
    assert index.chunk_count > 240_000
    assert index.total_bytes > 10**12
    raw = encode_index(index)
    assert len(raw) < 10e6
    tracemalloc.start()
    started = time.perf_counter()
    decoded = decode_index(raw)
    assert time.perf_counter() - started < 60
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
    assert decoded == index


def test_hostile_heads_are_refused_in_bounded_time_and_memory():
    """JSON that costs the most for its size, at a thirtieth of the bound."""
    size = MAX_HEAD_BYTES // 30
    worst = {
        "lists": b'{"layers":[' + b"[]," * (size // 3) + b'[]],"files":[]}',
        "objects": b'{"layers":[],"files":[' + b"{}," * (size // 3) + b"{}]}",
        "numbers": b'{"layers":[' + b"1," * (size // 2) + b'1],"files":[]}',
    }
    for head in worst.values():
        tracemalloc.start()
        started = time.perf_counter()
        with pytest.raises(FormatError):
            decode_index(assemble(head, b""))
        assert time.perf_counter() - started < 30
        assert tracemalloc.get_traced_memory()[1] < 60 * size
        tracemalloc.stop()


def test_equal_indexes_are_equal_whatever_the_array_type():
    again = replace(SMALL, lengths=array("L", SMALL.lengths))
    assert isinstance(again, ChunkIndex)
    assert encode_index(again) == encode_index(SMALL)
