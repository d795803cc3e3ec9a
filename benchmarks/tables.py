"""Time writing and reading the recommendation tables.

    python benchmarks/tables.py --sessions 1000000 --k 20 --pi 0.00 0.25 0.50 0.75 1.00 --json tables.json

One process per preference writes a partition. The rows are synthetic (random items, descending scores), in batches of
4,096 lists like those of the scorer. The time to generate them is also measured separately; like scoring in production,
it is part of the writing time. Peak memory is that of the writing process, as the operating system reports it. Reads
are repeated after one read that warms the file cache; the median is printed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# No heavy imports at the top: each writer is a new process, so its peak memory would include them.

NIGHT = date(2026, 1, 31)
BATCH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--k", type=int, default=20, help="items per list")
    parser.add_argument("--items", type=int, default=43_000, help="items of the catalogue")
    parser.add_argument("--pi", nargs="+", default=["0.00", "0.25", "0.50", "0.75", "1.00"])
    parser.add_argument("--reads", type=int, default=20, help="repetitions of each read")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="a few seconds: 20,000 sessions, two preferences")
    options = parser.parse_args()
    if options.small:
        options.sessions, options.pi, options.reads = 20_000, options.pi[:2], 5
    root = Path(tempfile.mkdtemp(prefix="tables-"))
    try:
        figures = measure(root, options)
    finally:
        shutil.rmtree(root)
    print(as_table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures as JSON-compatible data."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        pool.apply(create, (root,))
        writes = [pool.apply(write, (root, pi, options.sessions, options.k, options.items)) for pi in options.pi]
        pool.apply(publish, (root, options.pi[0]))
        reads = pool.apply(read, (root, options.pi[0], options.sessions, options.reads))
    return {"sessions": options.sessions, "k": options.k, "writes": writes, "reads": reads}


def create(root: Path) -> None:
    """Create the empty tables."""
    import polars as pl

    from multitron_core.lake.lake import Lake

    Lake(root).create(pl.Int64)


def write(root: Path, pi: str, sessions: int, k: int, items: int) -> dict[str, Any]:
    """Write one partition and return its figures."""
    import resource

    import numpy as np
    import polars as pl

    from multitron_core.lake.lake import Lake

    making = 0.0

    def batches() -> Iterator[pl.DataFrame]:
        nonlocal making
        random = np.random.default_rng(int(pi.replace(".", "")))
        for first in range(0, sessions, BATCH):
            start = time.perf_counter()
            lists = min(BATCH, sessions - first)
            # Items in arithmetic progression are distinct within a list without any sorting.
            begin, step = random.integers(0, items, (lists, 1)), random.integers(1, items // k, (lists, 1))
            scores = np.sort(random.standard_normal((lists, k), dtype=np.float32), axis=1)[:, ::-1]
            frame = pl.DataFrame(
                {
                    "session_id": pl.Series(np.repeat(np.arange(first, first + lists), k)).cast(pl.String).str.zfill(9),
                    "rank": np.tile(np.arange(1, k + 1, dtype=np.int16), lists),
                    "item_id": ((begin + step * np.arange(k)) % items + 1).ravel(),
                    "score": scores.ravel(),
                }
            )
            making += time.perf_counter() - start
            yield frame

    known = pl.Series(range(1, items + 1), dtype=pl.Int64)
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    commit = Lake(root).replace_partition(NIGHT, pi, batches(), model_version="7", k=k, items=known)
    return {
        "pi": pi,
        "rows": commit.rows,
        "seconds": commit.seconds,
        "seconds_making_rows": making,
        "files": commit.files,
        "megabytes": commit.bytes / 1e6,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "peak_megabytes_before": imported / 1e3,
    }


def publish(root: Path, pi: str) -> None:
    """Publish the partition that is read."""
    from multitron_core.lake.lake import Lake

    Lake(root).publish(NIGHT, pi)


def read(root: Path, pi: str, sessions: int, repetitions: int) -> dict[str, dict[str, float]]:
    """Milliseconds of typical reads: median and slowest."""
    import duckdb
    import polars as pl

    from multitron_core.lake.lake import Lake

    lake = Lake(root)
    table = lake.uri("recommendations")
    wanted = [f"{sessions * n // repetitions:09d}" for n in range(repetitions)]
    partition = pl.scan_delta(table).filter(pl.col("run_date") == NIGHT, pl.col("pi") == pi)
    files = lake.open("recommendations").file_uris(file_pruning_predicate=f"run_date = '{NIGHT}' AND pi = '{pi}'")
    parquet = f"read_parquet({files})"
    calls: dict[str, Callable[[str], Any]] = {
        "one session, Lake": lambda session: lake.read_recommendations(pi, NIGHT, session_ids=[session]),
        "one session, polars": lambda session: partition.filter(pl.col("session_id") == session).collect(),
        "one session, DuckDB": lambda session: duckdb.sql(
            f"SELECT * FROM {parquet} WHERE session_id = '{session}' ORDER BY rank"
        ).fetchall(),
        "100 sessions, Lake": lambda session: lake.read_recommendations(pi, NIGHT, session_ids=wanted * 5),
        "first item of every session, polars": lambda session: partition.filter(pl.col("rank") == 1).collect(),
        "rows per item, polars": lambda session: partition.group_by("item_id").len().collect(engine="streaming"),
        "rows per item, DuckDB": lambda session: duckdb.sql(
            f"SELECT item_id, count(*) FROM {parquet} GROUP BY item_id"
        ).fetchall(),
    }
    return {name: timed(call, wanted) for name, call in calls.items()}


def timed(call: Callable[[str], Any], sessions: list[str]) -> dict[str, float]:
    call(sessions[0])
    milliseconds = []
    for session in sessions:
        start = time.perf_counter()
        assert len(call(session)), "nothing was read"
        milliseconds.append((time.perf_counter() - start) * 1e3)
    return {"median_ms": statistics.median(milliseconds), "slowest_ms": max(milliseconds)}


def as_table(figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['sessions']:,} sessions x {figures['k']}, one process per preference",
        "",
        "| pi | rows | seconds (generating rows) | files | MB | peak MB (after imports) |",
        "|---|---|---|---|---|---|",
    ]
    for row in figures["writes"]:
        lines.append(
            f"| {row['pi']} | {row['rows']:,} | {row['seconds']:.1f} ({row['seconds_making_rows']:.1f}) "
            f"| {row['files']} | {row['megabytes']:.0f} "
            f"| {row['peak_megabytes']:.0f} ({row['peak_megabytes_before']:.0f}) |"
        )
    lines += ["", "| read | median ms | slowest ms |", "|---|---|---|"]
    lines += [f"| {name} | {t['median_ms']:.1f} | {t['slowest_ms']:.1f} |" for name, t in figures["reads"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
