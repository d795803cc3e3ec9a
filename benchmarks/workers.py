"""Compare one Celery worker with two: five preferences of one night at once, on a cluster on this machine.

    python benchmarks/workers.py --json workers.json

Starts a Redis, a Postgres and the workers, and stops them at the end; only the number of workers differs between
measurements. The shop is simulated and its model has random weights. Each step uses one core (OMP_NUM_THREADS=1), as if
each worker were a small machine. Prints the seconds from the start of the first step to the end of the last one, the
summed seconds of the steps, and the share of the workers' time spent in steps. Every table is compared with that of a
local run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import torch

from multitron_core.lake.contracts import LIST_TABLES
from multitron_core.lake.lake import Lake
from multitron_core.model.config import ModelConfig
from multitron_core.model.folder import write_untrained_model
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.simulator.simulation import simulate
from orchestration.code_location import build_definitions
from orchestration.runtime.in_process_runs import run_job
from orchestration.runtime.partitions import night_key
from orchestration.shop import models
from orchestration.shop.home import Shop, load_shop
from orchestration.shop.settings import Settings, demo_settings
from orchestration.shop.toml import write_shop
from serving.deployment import deploy
from serving.in_process import InProcessServer

sys.path.append(str(Path(__file__).resolve().parents[1]))
from deploy.celery.on_this_machine import MissingPartError, celery_cluster, check_parts, run_at_once, workers_of

FIVE = ("0.00", "0.25", "0.50", "0.75", "1.00")
DAYS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=60_000, help="sessions of the simulated shop in two days")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="a minute or two: 2,000 sessions, 500 items")
    options = parser.parse_args()
    if options.small:
        options.sessions, options.items = 2_000, 500
    try:
        check_parts()
    except MissingPartError as part:
        print(f"not measured: {part}")
        return 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "shop"
        day = make_shop(home, sessions=options.sessions, items=options.items)
        lists = score_locally(shutil.copytree(home, Path(temporary) / "local"), day)
        rows = [measure(home, day, workers, Path(temporary) / f"with-{workers}", lists) for workers in options.workers]
    print(as_markdown(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0


def make_shop(home: Path, *, sessions: int, items: int) -> dt.date:
    """Simulate a shop up to the point where its last day can be scored; returns that day."""
    first = dt.date(2026, 1, 1)
    day = first + dt.timedelta(days=DAYS - 1)
    settings = demo_settings().model_dump()
    changed = {
        "calendar": {**settings["calendar"], "first_day": first, "last_day": day},
        "scoring": {**settings["scoring"], "pi": FIVE},
        "triton": {"scorer": "in_process"},
    }
    write_shop(home, Settings.model_validate({**settings, **changed}))
    shop = load_shop(home)
    simulate(home / "raw", sessions=sessions, items=items, days=DAYS, first_day=first)
    _deploy_random_model(shop, pl.read_parquet(home / "raw" / "truth" / "items.parquet")["item_id"])
    span = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(day)}
    with dg.DagsterInstance.ephemeral() as instance:
        definitions = build_definitions(shop)
        run_job(definitions, instance, "ingestion", started_by="benchmark", tags=span)
        run_job(definitions, instance, "session_preparation", started_by="benchmark", partition_key=str(day))
    return day


def _deploy_random_model(shop: Shop, item_ids: pl.Series) -> None:
    folder = shop.models / "untrained"
    write_untrained_model(folder, ModelConfig(items=len(item_ids)), Vocabulary(item_ids))
    models.set_newest(shop, folder)
    with InProcessServer(shop.triton_repository) as server:
        deploy(folder, server, golden_pi=FIVE[:1])


def score_locally(home: Path, day: dt.date) -> dict[tuple[str, str], pl.DataFrame]:
    """Lists of a local run by (table, pi)."""
    shop = load_shop(home)
    with dg.DagsterInstance.ephemeral() as instance:
        definitions = build_definitions(shop)
        for pi in FIVE:
            run_job(definitions, instance, "scoring", started_by="benchmark", partition_key=night_key(day, pi))
    return lists_of(shop, day)


def lists_of(shop: Shop, day: dt.date) -> dict[tuple[str, str], pl.DataFrame]:
    """All lists of a night as readers get them, by (table, pi)."""
    lake = Lake(shop.lake)
    return {(table, pi): lake.read_recommendations(pi, day, table=table) for table in LIST_TABLES for pi in FIVE}


def measure(
    home: Path, day: dt.date, workers: int, folder: Path, expected: dict[tuple[str, str], pl.DataFrame]
) -> dict[str, Any]:
    """Score the five preferences of a night at once with the given number of workers.

    Raises:
        RuntimeError: A run failed, or a table differs from that of the local run.
    """
    folder.mkdir()
    copy = shutil.copytree(home, folder / "shop")
    logs = folder / "logs"
    logs.mkdir()
    with celery_cluster(copy, [f"worker{number}" for number in range(workers)], logs):
        runs = run_at_once("scoring", [night_key(day, pi) for pi in FIVE], logs)
        failed = [run.run_id for run in runs if run.status != dg.DagsterRunStatus.SUCCESS]
        if failed:
            log_ends = "\n".join(log.read_text()[-2000:] for log in sorted(logs.glob("*.log")))
            raise RuntimeError(f"runs failed: {failed}\n{log_ends}")
        with dg.DagsterInstance.get() as instance:
            steps = [step for run in runs for step in instance.get_run_step_stats(run.run_id)]
        by_worker = {name for run in runs for name in workers_of(run).values()}
    found = lists_of(load_shop(copy), day)
    if not all(found[key].equals(lists) for key, lists in expected.items()):
        raise RuntimeError("a table differs from that of the local run")
    times = [(step.start_time, step.end_time) for step in steps if step.start_time and step.end_time]
    wall = max(end for _, end in times) - min(start for start, _ in times)
    busy = sum(end - start for start, end in times)
    return {
        "workers": workers,
        "seconds": wall,
        "step_seconds": busy,
        "busy_share": busy / (wall * workers),
        "steps": len(times),
        "workers_that_took_part": len(by_worker),
        "rows": sum(lists.height for lists in found.values()),
    }


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Markdown table with one row per number of workers; the others are compared with the first."""
    lines = [
        f"{rows[0]['rows']:,} rows of five preferences, {rows[0]['steps']} steps; all tables equal the local run's",
        "",
        "| workers | seconds | speed-up over the first row | sum of step seconds | share of worker time in steps |",
        "|---|---|---|---|---|",
    ]
    return "\n".join(
        lines
        + [
            f"| {row['workers']} | {row['seconds']:.0f} | {rows[0]['seconds'] / row['seconds']:.2f} | "
            f"{row['step_seconds']:.0f} | {row['busy_share']:.0%} |"
            for row in rows
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
