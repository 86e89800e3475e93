import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.plan import (
    BRIDGE_BYTES,
    MAX_RANGE_BYTES,
    MIN_RANGE_BYTES,
    ChunkMap,
    ChunkState,
    FetchRange,
    plan_chunks,
    plan_ranges,
    range_size,
)
from tests.support.indexes import CHUNK, fake_hash, indexes, make_index

HAVE, COPY, TWIN, FETCH = ChunkState.HAVE, ChunkState.COPY, ChunkState.TWIN, ChunkState.FETCH
MIB = 1024 * 1024


def states_of(index, *, files=None, have=(), local=()):
    chosen = range(len(index.files)) if files is None else files
    return plan_chunks(index, files=chosen, have=set(have), local=set(local))


INDEX = make_index(
    [("a.bin", [CHUNK, CHUNK, 10]), ("b.bin", [CHUNK, 7]), ("c.txt", [5])],
    contents={("a.bin", 0): "x", ("a.bin", 1): "y", ("b.bin", 0): "x"},
)
X, Y = fake_hash("x", CHUNK), fake_hash("y", CHUNK)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param({}, [FETCH, FETCH, FETCH, TWIN, FETCH, FETCH], id="nothing-there"),
        pytest.param({"files": [1]}, [0, 0, 0, FETCH, FETCH, 0], id="one-file"),
        pytest.param({"have": [0, 5]}, [HAVE, FETCH, FETCH, TWIN, FETCH, HAVE], id="have"),
        pytest.param({"have": [3]}, [FETCH, FETCH, FETCH, HAVE, FETCH, FETCH], id="have-the-twin"),
        pytest.param({"local": [Y]}, [FETCH, COPY, FETCH, TWIN, FETCH, FETCH], id="local"),
        pytest.param({"local": [X]}, [COPY, FETCH, FETCH, TWIN, FETCH, FETCH], id="local-twin"),
        pytest.param({"files": [], "have": [1]}, [0] * 6, id="no-files"),
    ],
)
def test_what_is_to_be_done(request_, expected):
    plan = states_of(INDEX, **request_)
    assert list(plan.states) == expected
    assert plan.twins == {number: 0 for number, state in enumerate(expected) if state == TWIN}
    lengths = INDEX.lengths
    assert plan.fetch_bytes == sum(lengths[n] for n, state in enumerate(expected) if state == FETCH)
    assert plan.chunks(FETCH) == [n for n, state in enumerate(expected) if state == FETCH]


def test_equal_hashes_of_other_lengths_are_no_twins():
    """Only a forged index has them; each is then held to its own bytes."""
    hashes = INDEX.hashes[:32] * INDEX.chunk_count
    forged = type(INDEX)(
        layers=INDEX.layers, files=INDEX.files, lengths=INDEX.lengths, hashes=hashes
    )
    assert list(states_of(forged).states) == [FETCH, TWIN, FETCH, TWIN, FETCH, FETCH]


@st.composite
def situations(draw):
    index = draw(indexes())
    chunks = st.sets(st.integers(0, max(0, index.chunk_count - 1)))
    files = draw(st.lists(st.integers(0, max(0, len(index.files) - 1)), unique=True))
    if not index.files:
        files = []
    have = draw(chunks) if index.chunk_count else set()
    local = {index.hash_of(n) for n in draw(chunks)} if index.chunk_count else set()
    return index, sorted(files), have, local


@given(situations())
@settings(max_examples=150, deadline=None)
def test_every_wanted_chunk_gets_exactly_one_thing_done(situation):
    index, files, have, local = situation
    plan = plan_chunks(index, files=files, have=have, local=local)
    wanted = {chunk for number in files for chunk in index.files[number].chunks}
    fetch = reuse = 0
    for chunk, state in enumerate(plan.states):
        length = index.lengths[chunk]
        if chunk not in wanted:
            assert state == ChunkState.UNWANTED
            continue
        if state == FETCH:
            fetch += length
        else:
            reuse += length
        if state == TWIN:
            first = plan.twins[chunk]
            assert first < chunk
            assert plan.states[first] in {HAVE, COPY, FETCH}
            assert index.hash_of(first) == index.hash_of(chunk)
            assert index.lengths[first] == length
        assert (state == HAVE) == (chunk in have)
        assert state != COPY or index.hash_of(chunk) in local
        assert state != FETCH or index.hash_of(chunk) not in local
    assert (plan.fetch_bytes, plan.reuse_bytes) == (fetch, reuse)
    assert set(plan.twins) == set(plan.chunks(TWIN))
    fetched = [(index.hash_of(n), index.lengths[n]) for n in plan.chunks(FETCH)]
    assert len(set(fetched)) == len(fetched)  # nothing is fetched twice


@given(indexes(), st.data())
@settings(max_examples=150, deadline=None)
def test_ranges_cover_what_is_to_be_fetched_and_no_more(index, data):
    states = bytearray(
        data.draw(st.lists(st.sampled_from([0, HAVE, FETCH]), min_size=n, max_size=n))
        if (n := index.chunk_count)
        else b""
    )
    limit = data.draw(st.sampled_from([1, 1000, CHUNK, MIN_RANGE_BYTES, MAX_RANGE_BYTES]))
    where = ChunkMap.of(index)
    ranges = plan_ranges(where, states, limit)
    covered = [chunk for item in ranges for chunk in range(item.first, item.last)]
    assert covered == sorted(set(covered))
    wanted = [chunk for chunk, state in enumerate(states) if state == FETCH]
    assert [chunk for chunk in covered if states[chunk] == FETCH] == wanted
    for item in ranges:
        inside = [chunk for chunk in range(item.first, item.last) if states[chunk] == FETCH]
        assert inside[0] == item.first
        assert inside[-1] == item.last - 1
        assert {where.layer(chunk) for chunk in range(item.first, item.last)} == {item.layer}
        for one, next_ in pairwise(inside):
            assert 0 <= where.start(next_) - where.end(one) <= BRIDGE_BYTES
        size = where.end(item.last - 1) - where.start(item.first)
        assert size <= limit or len(inside) == 1
        assert 0 <= where.start(item.first) < where.end(item.last - 1)
        assert where.end(item.last - 1) <= index.layers[item.layer].size


def test_ranges_are_as_few_as_the_bounds_allow():
    index = make_index([(f"{n}.txt", [100]) for n in range(50)] + [("w.bin", [CHUNK] * 40)])
    states = bytearray([FETCH] * index.chunk_count)
    # w.bin comes first: 160 MiB in requests of 64, then all small files in one
    assert plan_ranges(ChunkMap.of(index), states, 64 * MIB) == [
        FetchRange(layer=0, first=0, last=16),
        FetchRange(layer=0, first=16, last=32),
        FetchRange(layer=0, first=32, last=40),
        FetchRange(layer=1, first=40, last=90),
    ]


def test_gaps_are_bridged_only_while_they_are_small():
    index = make_index([("a", [1000, BRIDGE_BYTES, 1000, BRIDGE_BYTES + 1, 1000])])
    states = bytearray([FETCH, HAVE, FETCH, HAVE, FETCH])
    assert plan_ranges(ChunkMap.of(index), states, 64 * MIB) == [
        FetchRange(layer=0, first=0, last=3),
        FetchRange(layer=0, first=4, last=5),
    ]


@given(indexes())
@settings(max_examples=60, deadline=None)
def test_the_map_knows_where_chunks_lie(index):
    where = ChunkMap.of(index)
    assert len(where.file_of) == len(where.layer_offset) == index.chunk_count
    for number, file in enumerate(index.files):
        for chunk in file.chunks:
            assert where.file_of[chunk] == number
            assert where.layer(chunk) == file.layer
            assert where.start(chunk) == file.offset + index.offsets[chunk]
            assert where.end(chunk) == where.start(chunk) + index.lengths[chunk]
        if file.chunk_count:
            assert where.end(file.chunks[-1]) == file.offset + file.size


@pytest.mark.parametrize(
    ("fetch_bytes", "connections", "expected"),
    [
        (0, 8, MIN_RANGE_BYTES),
        (10**6, 8, MIN_RANGE_BYTES),
        (512 * MIB, 8, 16 * MIB),
        (10**12, 8, MAX_RANGE_BYTES),
        (10**12, 0, MAX_RANGE_BYTES),
    ],
)
def test_size_of_a_request(fetch_bytes, connections, expected):
    assert range_size(fetch_bytes, connections) == expected


def test_a_plan_for_a_terabyte():
    """A sanity bound with a wide margin: well under a second on an idle core."""
    shard = [CHUNK] * 1490
    index = make_index([(f"model-{n:05}-of-00163.safetensors", shard) for n in range(163)])
    local = {index.hash_of(chunk) for chunk in range(0, index.chunk_count, 2)}
    started = time.perf_counter()
    where = ChunkMap.of(index)
    plan = plan_chunks(index, files=range(163), have=set(range(1000)), local=local)
    ranges = plan_ranges(where, plan.states, range_size(plan.fetch_bytes, 8))
    assert time.perf_counter() - started < 30
    assert plan.fetch_bytes + plan.reuse_bytes == index.total_bytes
    assert sum(item.last - item.first for item in ranges) >= len(plan.chunks(FETCH)) > 120_000
