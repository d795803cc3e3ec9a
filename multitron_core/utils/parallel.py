"""Run a function in several threads, each limited to one core for its arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Result = TypeVar("Result")


def map_in_threads(function: Callable[[int], Result], calls: int, threads: int) -> Iterator[Result]:
    """Yield function(0), ..., function(calls - 1) in this order, computed by several threads.

    Each thread uses a single core inside torch and BLAS. For calls that take milliseconds or more this is faster than
    parallelism inside each operation: there all cores wait for each other after every operation, and the thread pools
    of torch and BLAS compete.

    Args:
        function: Called with the number of the call. It should release the interpreter lock for most of its time.
        calls: Number of calls.
        threads: Number of calls at a time. With 1, the caller's thread makes all calls, with its own settings.

    Raises:
        Exception: Of the first call that failed, in the order of the calls; calls that had not started are dropped.
    """
    if threads == 1:
        yield from map(function, range(calls))
        return
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "map", initializer=torch.set_num_threads, initargs=(1,))
    try:
        with threadpool_limits(1, user_api="blas"):
            yield from pool.map(function, range(calls))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # the initializer changes the default of later threads too
