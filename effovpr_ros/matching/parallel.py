"""Work in other threads: a function of many items, and one beside what the caller does."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_threads(function: Callable[[Sequence[_Item]], list[_Result]], items: Sequence[_Item]) -> list[_Result]:
    """Apply a function to items, in as many threads as torch uses here.

    Torch's own threads would wait for each other after each of many short operations; NumPy would use one thread.

    Args:
        function: from some of the items to one result each; releases the interpreter's lock most of the time.
        items: in any order.

    Returns:
        Results in the order of the items.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads <= 1:
        return function(items)
    # Neighbours in rank cost about the same, so the threads take turns.
    shares = _workers(threads).map(function, [items[first::threads] for first in range(threads)])
    results: list[_Result] = [None] * len(items)  # type: ignore[list-item]
    for first, share in enumerate(shares):
        results[first::threads] = share
    return results


def beside(function: Callable[[], _Result]) -> Callable[[], _Result]:
    """Begin a computation beside what the calling thread does next, where torch may use several threads here.

    Computations of one calling thread follow each other, in their order.

    Args:
        function: releases the interpreter's lock most of the time.

    Returns:
        Waits for the result and gives it, or raises what the function raised.
    """
    return function if torch.get_num_threads() <= 1 else _own.helper.submit(function).result


class _Own(threading.local):
    """What each thread has for itself."""

    @functools.cached_property
    def helper(self) -> ThreadPoolExecutor:
        return _pool(1)


_own = _Own()


@functools.cache
def _workers(count: int) -> ThreadPoolExecutor:
    return _pool(count)


def _pool(count: int) -> ThreadPoolExecutor:
    """A pool of threads; in each of them torch uses that one thread."""
    before = torch.get_num_threads()
    ready = threading.Barrier(count + 1)

    def start() -> None:
        # A thread takes torch's default when it first asks, and would do so after the setting if it had not asked yet.
        torch.get_num_threads()
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(count, "share", start)
    for _ in range(count):
        pool.submit(lambda: None)
    ready.wait()
    # What one thread sets is what threads started later begin with.
    torch.set_num_threads(before)
    return pool
