import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.plan import ChunkMap, ChunkState, FetchRange, plan_ranges
from modelpack.schedule import (
    MAX_CONNECTIONS,
    MIN_SPLIT_BYTES,
    SLOW_AFTER_SECONDS,
    START_CONNECTIONS,
    ConnectionGovernor,
    RangeQueue,
)
from tests.support.indexes import CHUNK, indexes, make_index

MIB = 1024 * 1024
FETCH, HAVE = ChunkState.FETCH, ChunkState.HAVE


def queue_of(index, range_bytes=16 * MIB):
    where = ChunkMap.of(index)
    states = bytearray([FETCH] * index.chunk_count)
    return RangeQueue.of(where, plan_ranges(where, states, range_bytes))


ONE_LAYER = make_index([("w.bin", [CHUNK] * 16)])
TWO_LAYERS = make_index([("a.bin", [CHUNK] * 8), ("b.bin", [CHUNK] * 8)])


def test_ranges_are_handed_out_in_order_and_done_when_finished():
    queue = queue_of(TWO_LAYERS, 16 * MIB)
    taken = [queue.take(0.0) for _ in range(4)]
    assert [(item.layer, item.cursor, item.last) for item in taken] == [
        (0, 0, 4),
        (0, 4, 8),
        (1, 8, 12),
        (1, 12, 16),
    ]
    assert not queue.is_done
    for item in taken:
        queue.finish(item)
    assert queue.is_done
    assert queue.take(0.0) is None


def test_an_idle_worker_takes_half_of_the_largest_rest():
    queue = queue_of(ONE_LAYER, 64 * MIB)
    first = queue.take(0.0)
    second = queue.take(0.0)
    assert (first.cursor, first.last) == (0, 8)
    assert (second.cursor, second.last) == (8, 16)
    first.cursor = 4
    third = queue.take(0.0)
    assert (second.cursor, second.last) == (8, 12)
    assert (third.cursor, third.last) == (12, 16)


def test_what_is_left_is_not_split_below_what_a_request_is_worth():
    queue = queue_of(ONE_LAYER, 64 * MIB)
    (first,) = (queue.take(0.0),)
    first.cursor = 16 - 2 * MIN_SPLIT_BYTES // CHUNK + 1
    assert queue.take(0.0) is None
    first.cursor -= 1
    assert queue.take(0.0) is not None


def test_the_chunk_being_read_is_never_taken_away():
    queue = queue_of(ONE_LAYER, 64 * MIB)
    first = queue.take(0.0)
    while queue.take(0.0):
        assert first.last > first.cursor


def test_a_failed_range_is_taken_next_from_where_it_stood():
    queue = queue_of(TWO_LAYERS, 16 * MIB)
    first = queue.take(0.0)
    first.cursor = 3
    queue.give_back(first)
    again = queue.take(0.0)
    assert (again.layer, again.cursor, again.last) == (0, 3, 4)
    again.cursor = 4
    queue.give_back(again)
    assert queue.take(0.0).cursor == 4


def test_one_stream_takes_the_layer_over():
    queue = queue_of(TWO_LAYERS, 8 * MIB)
    first, second = queue.take(0.0), queue.take(0.0)
    assert queue.stream_layer(first, 0, 8)
    assert not queue.stream_layer(second, 0, 8)
    assert (first.cursor, first.last, first.whole_layer) == (0, 8, True)
    queue.give_back(second)  # the stream brings its chunks
    assert queue.take(0.0).layer == 1


def test_a_broken_stream_gives_its_layer_back():
    queue = queue_of(make_index([("w.bin", [CHUNK] * 8)]), 8 * MIB)
    first = queue.take(0.0)
    queue.stream_layer(first, 0, 8)
    first.cursor = 5
    queue.give_back(first)
    again = queue.take(0.0)
    assert (again.cursor, again.last) == (5, 8)
    assert queue.stream_layer(again, 5, 8)


def test_a_stream_is_not_split():
    queue = queue_of(make_index([("w.bin", [CHUNK] * 64)]), 8 * MIB)
    queue.stream_layer(queue.take(0.0), 0, 64)
    assert queue.take(0.0) is None
    assert not queue.is_done


class Workers:
    """What the download engine's threads do with a queue, one step at a time."""

    def __init__(self, index, range_bytes, *, server_ignores_ranges=()):
        self.where = ChunkMap.of(index)
        self.states = bytearray([FETCH] * index.chunk_count)
        self.queue = RangeQueue.of(self.where, plan_ranges(self.where, self.states, range_bytes))
        self.fetched = [0] * index.chunk_count
        self.active = []
        self.ignores = set(server_ignores_ranges)
        self.now = 0.0

    def take(self):
        self.now += 1
        item = self.queue.take(self.now)
        if item is not None:
            assert item not in self.active
            assert item.cursor < item.last
            self.active.append(item)
        return item

    def open(self, item):
        """The first answer to a request: a range, or the whole layer."""
        if item.layer not in self.ignores or item.whole_layer:
            return
        left = [
            chunk
            for chunk, state in enumerate(self.states)
            if state == FETCH and self.where.layer(chunk) == item.layer
        ]
        if not left or not self.queue.stream_layer(item, left[0], left[-1] + 1):
            item.cursor = item.last

    def read(self, item, chunks=1):
        for _ in range(chunks):
            if item.cursor >= item.last:
                break
            assert self.where.layer(item.cursor) == item.layer
            if self.states[item.cursor] == FETCH:
                self.states[item.cursor] = HAVE
                self.fetched[item.cursor] += 1
            item.cursor += 1
        if item.cursor >= item.last:
            self.active.remove(item)
            self.queue.finish(item)

    def fail(self, item):
        self.active.remove(item)
        self.queue.give_back(item)

    def drain(self):
        for _ in range(20 * len(self.fetched) + 20):
            if self.queue.is_done:
                return
            self.take()
            for item in list(self.active):
                self.open(item)
                self.read(item, 3)
        pytest.fail("the queue never ends")


@given(
    indexes(min_files=1, max_files=6),
    st.sampled_from([1, CHUNK, 8 * MIB, 64 * MIB]),
    st.booleans(),
    st.randoms(use_true_random=False),
    st.integers(0, 60),
)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_every_chunk_is_fetched_once(index, range_bytes, ignores, chance, steps):
    layers = range(len(index.layers)) if ignores else ()
    workers = Workers(
        index, range_bytes, server_ignores_ranges=[n for n in layers if chance.random() < 0.6]
    )
    for _ in range(steps):
        action = chance.choice(["take", "take", "read", "open", "fail"])
        if action == "take":
            workers.take()
        elif workers.active:
            item = chance.choice(workers.active)
            if action == "read":
                workers.read(item, chance.randint(1, 4))
            elif action == "open":
                workers.open(item)
            else:
                workers.fail(item)
    workers.drain()
    assert workers.fetched == [1] * index.chunk_count


def test_many_workers_with_splits_and_failures():
    index = make_index([(f"{n}.bin", [CHUNK] * 40) for n in range(3)])
    for seed in range(30):
        chance = random.Random(seed)
        workers = Workers(index, 64 * MIB)
        while not workers.queue.is_done:
            while len(workers.active) < 12 and workers.take():
                continue
            item = chance.choice(workers.active)
            if chance.random() < 0.1:
                workers.fail(item)
            else:
                workers.read(item)
        assert workers.fetched == [1] * index.chunk_count


def four_at_work(received):
    """A queue with four ranges in progress, which brought this much in the first five seconds."""
    queue = queue_of(TWO_LAYERS, 8 * MIB)
    items = [queue.take(0.0) for _ in received]
    for item, mib in zip(items, received, strict=True):
        item.received = int(mib * MIB)
    return queue, items


@pytest.mark.parametrize(
    ("received", "slow"),
    [
        ([100, 100, 100, 24], [3]),
        ([100, 100, 100, 26], []),
        ([100, 100, 100, 0], [3]),
        ([4, 2, 1, 0.3], [3]),
        ([20, 100, 100], [0]),
        ([0, 100], []),  # two say nothing of each other
        ([0, 0, 0, 0], []),
    ],
)
def test_who_is_slow(received, slow):
    queue, items = four_at_work(received)
    assert queue.slow(SLOW_AFTER_SECONDS - 0.1) == []
    assert queue.slow(SLOW_AFTER_SECONDS) == [items[number] for number in slow]


def test_a_stream_over_a_whole_layer_is_not_replaced_for_being_slow():
    queue, items = four_at_work([100, 100, 100, 10])
    queue.stream_layer(items[3], 8, 16)
    assert queue.slow(SLOW_AFTER_SECONDS) == []


def test_bytes_left():
    queue = queue_of(ONE_LAYER, 64 * MIB)
    item = queue.take(0.0)
    assert queue.bytes_left(item) == 16 * CHUNK
    item.cursor = 15
    assert queue.bytes_left(item) == CHUNK
    item.cursor = 16
    assert queue.bytes_left(item) == 0
    queue.waiting.append(FetchRange(layer=0, first=0, last=1))
    assert queue.take(0.0).last == 1


# --- how many connections -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "start", "target", "highest"),
    [
        (None, START_CONNECTIONS, START_CONNECTIONS, MAX_CONNECTIONS),
        (None, 4, 4, MAX_CONNECTIONS),
        (3, 8, 3, 3),
        (1, 8, 1, 1),
        (1000, 8, 8, MAX_CONNECTIONS),
    ],
)
def test_where_it_starts(limit, start, target, highest):
    governor = ConnectionGovernor.starting(limit, start)
    assert (governor.target, governor.limit) == (target, highest)


def test_it_grows_by_a_quarter_while_that_gains_a_twentieth():
    governor = ConnectionGovernor.starting(None)
    seen = []
    rate = 100.0
    while not governor.settled:
        governor.measured(rate, governor.target)
        seen.append(governor.target)
        rate *= 1.06
    assert seen == [10, 13, 17, 22, 28, 35, 44, 55, 64, 64]


def test_it_stops_where_nothing_is_gained():
    governor = ConnectionGovernor.starting(None)
    governor.measured(100.0, 8)
    assert governor.target == 10
    governor.measured(104.0, 10)
    assert (governor.target, governor.settled) == (10, True)
    governor.measured(1000.0, 10)
    assert governor.target == 10


def test_it_waits_until_all_are_at_work_and_bytes_flow():
    governor = ConnectionGovernor.starting(None)
    governor.measured(100.0, 7)
    governor.measured(0.0, 8)
    assert (governor.target, governor.settled) == (8, False)


def test_it_backs_off_when_told_to():
    governor = ConnectionGovernor.starting(None)
    targets = []
    for _ in range(8):
        governor.throttled()
        targets.append(governor.target)
    assert targets == [5, 3, 2, 1, 1, 1, 1, 1]
    governor.measured(1e9, 1)
    assert governor.target == 1


@given(
    st.none() | st.integers(1, 200),
    st.lists(st.none() | st.floats(0, 1e12), max_size=60),
)
@settings(deadline=None)
def test_it_stays_within_its_bounds(limit, events):
    governor = ConnectionGovernor.starting(limit)
    for rate in events:
        if rate is None:
            governor.throttled()
        else:
            governor.measured(rate, governor.target)
        assert 1 <= governor.target <= min(limit or MAX_CONNECTIONS, MAX_CONNECTIONS)
