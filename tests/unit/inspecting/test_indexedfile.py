from array import array
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.chunkindex import ChunkIndex, FileChunks, IndexedFile, build_index
from modelpack.chunking import CHUNK_BYTES
from modelpack.digest import ChunkHash, Digest, chunk_hash
from modelpack.errors import IntegrityError
from modelpack.inspecting import IndexedFileReader, indexedfile
from modelpack.inspecting.headers import may_hold_tensors
from modelpack.layering import SourceFile, plan_layers


def indexed(data: bytes, lengths: list[int]) -> tuple[ChunkIndex, IndexedFile]:
    """An index with a file of another size before the one that holds ``data``."""
    plan = plan_layers(
        [
            SourceFile(path="a", size=5, mode=0o644),
            SourceFile(path="b", size=len(data), mode=0o644),
        ]
    )
    ends = list(accumulate(lengths))
    chunks = [data[end - length : end] for length, end in zip(lengths, ends, strict=True)]
    index = build_index(
        plan,
        [Digest.of(b"layer")],
        [
            FileChunks(
                blake3=chunk_hash(b"hello"), lengths=array("I", [5]), hashes=chunk_hash(b"hello")
            ),
            FileChunks(
                blake3=ChunkHash(bytes(32)),
                lengths=array("I", lengths),
                hashes=b"".join(chunk_hash(chunk) for chunk in chunks),
            ),
        ],
    )
    return index, index.by_path()["b"]


def reader_of(index, file, data, log=None):
    def read_chunk(asked, chunk):
        assert asked is file
        if log is not None:
            log.append(chunk)
        start = index.offsets[chunk]
        return data[start : start + index.lengths[chunk]]

    return IndexedFileReader(index, file, read_chunk, where="here")


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    reads=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)), max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_reads_what_a_slice_gives(lengths, reads):
    data = bytes(range(sum(lengths)))
    index, file = indexed(data, lengths)
    reader = reader_of(index, file, data)
    assert reader.size == len(data)
    for offset, length in reads:
        assert reader.read(offset, length) == data[offset : offset + length]


def test_keeps_the_last_chunks_and_no_more():
    lengths = [10] * 8
    data = bytes(range(80))
    index, file = indexed(data, lengths)
    log = []
    reader = reader_of(index, file, data, log)
    for offset in (0, 5, 12, 0, 22, 32):
        reader.read(offset, 1)
    first = file.first_chunk
    assert log == [first, first + 1, first + 2, first + 3]
    reader.read(42, 1)  # a fifth chunk: the one unused for longest goes
    reader.read(2, 1)
    assert log[4:] == [first + 4]
    reader.read(12, 1)
    assert log[5:] == [first + 1]
    assert reader.fetched_bytes == 60
    assert indexedfile.KEPT_CHUNKS == 4


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"X" + d[1:]])
def test_refuses_a_chunk_with_other_bytes(damage):
    data = bytes(range(30))
    index, file = indexed(data, [10, 10, 10])
    reader = IndexedFileReader(
        index, file, lambda _, chunk: damage(data[10:20]), where="host/model:v1"
    )
    with pytest.raises(IntegrityError, match=r"host/model:v1: 'b' has other bytes at offset 10"):
        reader.read(15, 1)


@pytest.mark.parametrize(
    ("path", "lengths", "expected"),
    [
        ("model.safetensors", [7], True),
        ("MODEL.GGUF", [7], True),
        ("model.safetensors", [], False),
        ("tokenizer.json", [7], False),
        ("blob", [CHUNK_BYTES, CHUNK_BYTES, 3], False),
        ("blob", [100, CHUNK_BYTES, 3], True),
    ],
)
def test_only_names_and_chunks_of_tensor_files_are_looked_into(path, lengths, expected):
    index = ChunkIndex(layers=(), files=(), lengths=array("I", lengths), hashes=b"")
    file = IndexedFile(
        path=path,
        size=sum(lengths),
        mode=0o644,
        blake3=ChunkHash(bytes(32)),
        layer=0,
        offset=512,
        first_chunk=0,
        chunk_count=len(lengths),
    )
    assert may_hold_tensors(index, file) is expected
