"""Doing one thing to many items in a few threads, with bounded memory.

Unlike ``Executor.map``, items are taken from the iterable only when a thread is free, so a million
of them cost nothing up front, and the first error stops the rest.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def for_each(
    function: Callable[[T], object],
    items: Iterable[T],
    threads: int,
    *,
    stop: threading.Event | None = None,
) -> None:
    """Call ``function`` with every item, in ``threads`` threads.

    ``stop`` is set as soon as one call has failed or the caller is interrupted, so that calls
    which take long can look at it and give up.

    Raises:
        BaseException: the first that a call, or the iterable, raised, after all threads have
            stopped.
    """
    source = iter(items)
    stopped = stop or threading.Event()
    left = threading.Semaphore(0)
    end: Any = object()
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not errors:
                with lock:
                    item = next(source, end)
                if item is end:
                    return
                function(item)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)
            stopped.set()
        finally:
            left.release()

    workers = [threading.Thread(target=work, daemon=True) for _ in range(max(1, threads))]
    for worker in workers:
        worker.start()
    # Not Thread.join: before Python 3.13 one that was interrupted takes the thread for ended.
    ended = 0
    try:
        while ended < len(workers):
            left.acquire()
            ended += 1
    except BaseException as error:
        errors.append(error)
        stopped.set()
        while ended < len(workers):
            left.acquire()
            ended += 1
        raise
    if errors:
        raise errors[0]
