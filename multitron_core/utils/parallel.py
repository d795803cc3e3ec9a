"""Pieces of work side by side, each on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Result = TypeVar("Result")


def map_in_threads(work: Callable[[int], Result], pieces: int, threads: int) -> Iterator[Result]:
    """work(0), work(1), ... in this order, so many at a time, each by a thread that shares its arithmetic with none.

    Pieces of some size take all cores this way. Where all cores share each operation instead, they wait for each other
    after every one, and those of torch wait beside those of numpy.

    Args:
        work: what to do for a piece; it holds no lock of the interpreter for most of its time.
        pieces: how many.
        threads: how many at a time; one does them in the caller's thread, as it is set up.

    Raises:
        What the first piece to fail raised; those that had not begun are left out.
    """
    if threads == 1:
        yield from map(work, range(pieces))
        return
    shared = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "piece", initializer=torch.set_num_threads, initargs=(1,))
    try:
        with threadpool_limits(1, user_api="blas"):
            yield from pool.map(work, range(pieces))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(shared)  # a thread's own number is also that of threads to come
