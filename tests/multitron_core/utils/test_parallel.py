"""`map_in_threads`: order of the results, threads of torch and BLAS, exceptions."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info

from multitron_core.utils.parallel import map_in_threads


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_map_in_threads_preserves_the_order(threads: int) -> None:
    first, second = threading.Event(), threading.Event()

    def square(number: int) -> int:
        if threads > 1 and number == 0:
            assert second.wait(10.0), "the second call runs at the same time"
        (first, second)[number % 2].set()
        return number * number

    assert list(map_in_threads(square, 6, threads)) == [0, 1, 4, 9, 16, 25]


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_map_in_threads_uses_one_core_per_call() -> None:
    before = blas_threads()
    found = list(map_in_threads(lambda _: (torch.get_num_threads(), *blas_threads()), 4, 2))
    assert all(set(threads) == {1} for threads in found)
    assert blas_threads() == before
    assert torch.get_num_threads() == 3
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]


def test_map_in_threads_of_one_runs_in_the_caller() -> None:
    found = list(map_in_threads(lambda _: (threading.get_ident(), torch.get_num_threads()), 2, 1))
    assert found == [(threading.get_ident(), 3)] * 2


def test_map_in_threads_drops_calls_after_an_exception() -> None:
    started = []

    def fail(number: int) -> None:
        started.append(number)
        raise ValueError(f"call {number}")

    with pytest.raises(ValueError, match="call 0"):
        list(map_in_threads(fail, 10_000, 2))
    assert len(started) < 10_000
    assert torch.get_num_threads() == 3
