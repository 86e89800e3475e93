"""Doing one thing to many items in a few threads, with bounded memory.

Unlike ``Executor.map``, items are taken from the iterable only when a thread is free, so a million
of them cost nothing up front, and the first error stops the rest.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def for_each(function: Callable[[T], object], items: Iterable[T], threads: int) -> None:
    """Call ``function`` with every item, in ``threads`` threads.

    Raises:
        BaseException: the first that a call, or the iterable, raised, after all threads have
            stopped.
    """
    source = iter(items)
    end: Any = object()
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        while not errors:
            try:
                with lock:
                    item = next(source, end)
                if item is end:
                    return
                function(item)
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(max(1, threads))]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except BaseException as error:
        errors.append(error)
        for worker in workers:
            worker.join()
        raise
    if errors:
        raise errors[0]
