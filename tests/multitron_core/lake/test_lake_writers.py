"""`Lake` with concurrent writers, killed writers and a reader at the same time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import UnavailableError
from multitron_core.lake.contracts import table_contracts
from multitron_core.lake.lake import Lake, PartitionCommit
from multitron_core.preference.keys import DEFAULT_GRID

NIGHT = date(2026, 1, 31)
K = 2
BATCHES, SESSIONS = 20, 50
PROCESSES = multiprocessing.get_context("spawn")  # a fork would copy the locks of polars' threads


def batches(version: int, each: Callable[[int], object] = lambda number: None) -> Iterator[pl.DataFrame]:
    """BATCHES x SESSIONS lists whose scores all equal `version`; `each` is called before each batch."""
    for number in range(BATCHES):
        each(number)
        yield pl.DataFrame(
            {
                "session_id": [f"s{number * SESSIONS + row // K:06d}" for row in range(SESSIONS * K)],
                "rank": [row % K + 1 for row in range(SESSIONS * K)],
                "item_id": [row % K + 1 for row in range(SESSIONS * K)],
                "score": [float(version)] * (SESSIONS * K),
            }
        )


def write(root: Path | str, pi: str, version: int, each: Callable[[int], object] = lambda number: None) -> None:
    Lake(root).replace_partition(NIGHT, pi, batches(version, each), model_version=str(version), k=K)


def write_in_a_process(root: Path, pi: str, version: int, start: Event) -> None:
    start.wait()
    write(root, pi, version)


def die_in_the_middle(root: Path, pi: str) -> None:
    write(root, pi, 99, lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == BATCHES // 2 else None)


def complete_version(frame: pl.DataFrame) -> int:
    """Check that a partition is complete and of one version; returns this version."""
    assert len(frame) == BATCHES * SESSIONS * K
    assert frame["score"].n_unique() == 1
    assert frame["model_version"].unique().to_list() == [str(int(frame["score"][0]))]
    assert frame.select("session_id", "rank").is_unique().all()
    return int(frame["score"][0])


def current(lake: Lake, pi: str) -> pl.DataFrame:
    """The current rows, published or not."""
    return lake.read_recommendations(pi, unpublished=True)


def run(*calls: tuple[Callable[..., None], tuple[object, ...]]) -> list[int | None]:
    """Run each call in another process until it ends; returns the exit codes."""
    processes = [PROCESSES.Process(target=target, args=arguments) for target, arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


@pytest.mark.slow
def test_replace_partition_while_a_reader_reads(lake: Lake) -> None:
    """The reader sees complete partitions only, while five writers finish and one is killed."""
    for pi in DEFAULT_GRID:
        write(lake.root, pi, 0)
    seen: list[tuple[str, int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for pi in DEFAULT_GRID:
                seen.append((pi, complete_version(current(lake, pi))))

    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            look()
        except BaseException as error:
            failures.append(error)
            raise

    reader = threading.Thread(target=guarded)
    reader.start()
    start = PROCESSES.Event()
    start.set()
    calls = [(write_in_a_process, (lake.root, pi, 1, start)) for pi in DEFAULT_GRID]
    codes = run(*calls, (die_in_the_middle, (lake.root, "0.50")))
    done.set()
    reader.join(60)
    assert not failures
    assert codes == [0, 0, 0, 0, 0, -signal.SIGKILL]
    assert {version for _, version in seen} <= {0, 1}
    assert len(seen) > 10
    assert [complete_version(current(lake, pi)) for pi in DEFAULT_GRID] == [1] * 5


def test_replace_partition_killed_leaves_the_old_rows(lake: Lake) -> None:
    write(lake.root, "0.50", 1)
    assert run((die_in_the_middle, (lake.root, "0.50"))) == [-signal.SIGKILL]
    assert complete_version(current(lake, "0.50")) == 1
    assert lake.version("recommendations") == 1


def concurrent_writes(
    lake: Lake, writers: Mapping[int, tuple[str, Iterable[pl.DataFrame]]]
) -> dict[int, PartitionCommit | UnavailableError]:
    """Write version -> (pi, batches), each in another thread; returns the result or the exception of each."""
    results: dict[int, PartitionCommit | UnavailableError] = {}

    def attempt(version: int, pi: str, frames: Iterable[pl.DataFrame]) -> None:
        try:
            results[version] = lake.replace_partition(NIGHT, pi, frames, model_version=str(version), k=K)
        except UnavailableError as error:
            results[version] = error

    threads = [threading.Thread(target=attempt, args=(version, *job)) for version, job in writers.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def commits(results: Mapping[int, PartitionCommit | UnavailableError]) -> dict[int, PartitionCommit]:
    """The results of writes that all succeeded."""
    return {version: result for version, result in results.items() if isinstance(result, PartitionCommit)}


def both_started(barrier: threading.Barrier) -> Callable[[int], object]:
    """Makes each stream wait, once its table is open, until the table of the other is open too."""
    return lambda number: barrier.wait(30) if number == 0 else None


@pytest.mark.parametrize("written_before", [False, True])
def test_replace_partition_never_mixes_two_writers(lake: Lake, written_before: bool) -> None:
    if written_before:
        write(lake.root, "0.50", 0)
    meet = both_started(threading.Barrier(2))
    results = concurrent_writes(lake, {1: ("0.50", batches(1, meet)), 2: ("0.50", batches(2, meet))})
    lost = [version for version, result in results.items() if isinstance(result, UnavailableError)]
    assert len(lost) == 1
    assert "at the same time" in str(results[lost[0]])
    assert complete_version(current(lake, "0.50")) == 3 - lost[0]


def test_replace_partition_repeats_a_repeatable_stream(lake: Lake) -> None:
    meet = both_started(threading.Barrier(2))

    class Repeatable:
        def __init__(self, version: int) -> None:
            self.version, self.reads = version, 0

        def __iter__(self) -> Iterator[pl.DataFrame]:
            self.reads += 1
            return batches(self.version, meet if self.reads == 1 else lambda number: None)

    streams = {version: Repeatable(version) for version in (1, 2)}
    results = commits(concurrent_writes(lake, {version: ("0.50", stream) for version, stream in streams.items()}))
    assert sorted(result.delta_version for result in results.values()) == [1, 2]
    last = max(results, key=lambda version: results[version].delta_version)
    assert complete_version(current(lake, "0.50")) == last
    assert all(result.rows == BATCHES * SESSIONS * K for result in results.values())


def test_replace_partition_of_two_preferences(lake: Lake) -> None:
    meet = both_started(threading.Barrier(2))
    results = concurrent_writes(lake, {1: ("0.00", batches(1, meet)), 2: ("1.00", batches(2, meet))})
    assert sorted(result.delta_version for result in commits(results).values()) == [1, 2]
    assert [complete_version(current(lake, pi)) for pi in ("0.00", "1.00")] == [1, 2]


def test_replace_partition_of_all_preferences(lake: Lake) -> None:
    results = concurrent_writes(lake, {n: (pi, batches(n)) for n, pi in enumerate(DEFAULT_GRID, start=1)})
    assert sorted(result.delta_version for result in commits(results).values()) == [1, 2, 3, 4, 5]
    assert [complete_version(current(lake, pi)) for pi in DEFAULT_GRID] == [1, 2, 3, 4, 5]


def create_in_a_process(roots: list[Path], start: Barrier) -> None:
    for root in roots:
        start.wait(60)
        Lake(root).create(pl.Int64)


def test_create_from_two_processes(tmp_path: Path) -> None:
    roots = [tmp_path / str(n) for n in range(8)]
    start = PROCESSES.Barrier(2)
    processes = [PROCESSES.Process(target=create_in_a_process, args=(roots, start)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert {Lake(root).version(table) for root in roots for table in table_contracts(pl.Int64)} == {0}
