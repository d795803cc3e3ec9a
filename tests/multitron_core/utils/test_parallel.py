"""Pieces of work side by side."""

import threading

import pytest
import torch
from threadpoolctl import threadpool_info

from multitron_core.utils.parallel import map_in_threads


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_whoever_is_done_first(threads: int) -> None:
    first, second = threading.Event(), threading.Event()

    def work(piece: int) -> int:
        if threads > 1 and piece == 0:
            assert second.wait(10.0), "the second piece runs beside the first"
        (first, second)[piece % 2].set()
        return piece * piece

    assert list(map_in_threads(work, 6, threads)) == [0, 1, 4, 9, 16, 25]


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_a_piece_has_one_thread_for_its_arithmetic_and_afterwards_all_is_as_before() -> None:
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


def test_one_thread_is_the_callers_own() -> None:
    found = list(map_in_threads(lambda _: (threading.get_ident(), torch.get_num_threads()), 2, 1))
    assert found == [(threading.get_ident(), 3)] * 2


def test_a_failure_is_raised_and_what_had_not_begun_is_left_out() -> None:
    begun = []

    def work(piece: int) -> None:
        begun.append(piece)
        raise ValueError(f"piece {piece}")

    with pytest.raises(ValueError, match="piece 0"):
        list(map_in_threads(work, 10_000, 2))
    assert len(begun) < 10_000
    assert torch.get_num_threads() == 3
