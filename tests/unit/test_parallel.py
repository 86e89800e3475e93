import threading
import time

import pytest

from modelpack.parallel import for_each


@pytest.mark.parametrize("threads", [0, 1, 3, 20])
def test_every_item_once(threads):
    seen = []
    for_each(seen.append, range(100), threads)
    assert sorted(seen) == list(range(100))


def test_nothing_to_do():
    for_each(pytest.fail, [], 4)


def test_several_at_once():
    together = threading.Barrier(3, timeout=10)
    for_each(lambda _: together.wait(), range(3), 3)


def test_no_more_at_once_than_threads():
    lock = threading.Lock()
    running = most = 0

    def work(_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    for_each(work, range(40), 4)
    assert 1 < most <= 4


def test_items_are_taken_only_when_a_thread_is_free():
    taken = 0

    def items():
        nonlocal taken
        for number in range(1_000_000):
            taken += 1
            yield number

    def work(number):
        assert taken <= number + 1
        if number == 50:
            raise StopAsyncIteration

    with pytest.raises(StopAsyncIteration):
        for_each(work, items(), 1)
    assert taken == 51


def test_the_first_error_stops_the_rest():
    done = []
    entered = threading.Event()

    def work(number):
        if number == 0:
            entered.wait(10)
            raise KeyError(number)
        entered.set()
        time.sleep(0.01)
        done.append(number)

    with pytest.raises(KeyError):
        for_each(work, range(10_000), 2)
    assert len(done) < 100


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_any_kind_of_error_comes_through(error):
    def work(_):
        raise error

    with pytest.raises(error):
        for_each(work, range(5), 3)


def test_an_error_of_the_items_themselves():
    """A broken generator is not taken for an exhausted one."""

    def items():
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        for_each(lambda _: None, items(), 2)


def test_no_thread_is_left():
    before = threading.active_count()
    for_each(lambda _: None, range(10), 8)
    with pytest.raises(ZeroDivisionError):
        for_each(lambda n: 1 / n, range(10), 8)
    assert threading.active_count() == before
