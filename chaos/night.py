"""Run a night of the small shop in a process that can be killed: `python -m chaos.night --home <folder>`."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
from pathlib import Path

import dagster as dg
import polars as pl

from chaos.shop import disturbed_day
from multitron_core.lake.contracts import LIST_TABLES
from multitron_core.lake.lake import Lake
from orchestration.automation.run_history import failure_of
from orchestration.code_location import build_definitions
from orchestration.runtime import retries
from orchestration.runtime.instance import close_dead_runs, prepare_instance
from orchestration.runtime.partitions import night_key
from orchestration.shop.home import Shop, load_shop

STARTED_BY = "multitron/started_by"


def run(shop: Shop, instance: dg.DagsterInstance, job: str, partition: str | None) -> str:
    """Run a job to completion; returns the error that an operator sees, empty if it succeeds."""
    result = (
        build_definitions(shop)
        .resolve_job_def(job)
        .execute_in_process(
            instance=instance,
            partition_key=partition,
            tags={STARTED_BY: "chaos"},
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    )
    return "" if result.success else f"{job}: {failure_of(instance, result.run_id).what}"


def whole_night(shop: Shop, instance: dg.DagsterInstance, day: dt.date) -> list[str]:
    """Ingest, prepare and score a day at every preference; returns the errors."""
    jobs = [("ingestion", str(day)), ("session_preparation", str(day))]
    jobs += [("scoring", str(night_key(day, pi))) for pi in shop.settings.preferences]
    return [error for job, partition in jobs if (error := run(shop, instance, job, partition))]


def many_nights(shop: Shop, instance: dg.DagsterInstance, nights: int) -> list[dict[str, float]]:
    """Run complete nights one after another; returns memory (MB), open files, table size (MB) and files after each.

    Files of deleted nights stay on the disk for a week, so the size of a table is the size of its current files.
    """
    measurements = []
    for number in range(nights):
        day = shop.settings.calendar.first_day + dt.timedelta(days=number)
        errors = [*whole_night(shop, instance, day), run(shop, instance, "housekeeping_of_tables", None)]
        if any(errors):
            raise SystemExit(f"night {day}: {[error for error in errors if error]}")
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        lake = shop.lake()
        files = pl.concat([_live_files(lake, table) for table in LIST_TABLES])
        measurements.append(
            {
                "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
                "open_files": len(os.listdir("/proc/self/fd")),
                "lists_mb": int(files["size_bytes"].sum()) / 1e6,
                "files": files.height,
            }
        )
    return measurements


def _live_files(lake: Lake, table: str) -> pl.DataFrame:
    """`size_bytes` of each current file of a table; the other columns of its log differ between tables."""
    return pl.DataFrame(lake.open(table).get_add_actions(flatten=True)).select("size_bytes")


def main() -> int:
    """Command line; the exit status is 1 if a job failed, and standard output has the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", required=True)
    parser.add_argument("--job", choices=["night", "training"], default="night")
    parser.add_argument("--nights", type=int, help="run so many complete nights, and print measurements as JSON")
    parser.add_argument("--first-delay", type=float, default=0.2, help="seconds before the first retry of a step")
    parser.add_argument("--retries", type=int, default=retries.MAX_RETRIES, help="maximum retries of a step")
    parser.add_argument("--after-kill", action="store_true", help="first close the runs of a killed process")
    given = parser.parse_args()
    retries.FIRST_DELAY, retries.MAX_RETRIES = given.first_delay, given.retries
    shop = load_shop(given.home)
    os.environ.update(prepare_instance(shop))
    with dg.DagsterInstance.get() as instance:
        if given.nights:
            print(json.dumps(many_nights(shop, instance, given.nights)))
            return 0
        if given.after_kill:
            close_dead_runs(instance, tag=STARTED_BY, value="chaos")
        if given.job == "night":
            errors = whole_night(shop, instance, disturbed_day(shop))
        else:
            error = run(shop, instance, "training", None)
            errors = [error] if error else []
    print("\n".join(errors), flush=True)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
