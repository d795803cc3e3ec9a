"""A night of the small shop in a process that can be killed: `python -m chaos.night --home <folder>`."""

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
    """Run a job to its end; gives what an operator sees of its failure, empty when there is none."""
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
    """Ingest, prepare and score a day at every preference; gives what failed."""
    jobs = [("ingestion", str(day)), ("session_preparation", str(day))]
    jobs += [("scoring", str(night_key(day, pi))) for pi in shop.settings.preferences]
    return [said for job, partition in jobs if (said := run(shop, instance, job, partition))]


def many_nights(shop: Shop, instance: dg.DagsterInstance, nights: int) -> list[dict[str, float]]:
    """Whole nights one after the other; gives memory, open files and the size of the tables after each.

    The files of deleted nights stay on the disk for a week, so the size of a table is that of its live files.
    """
    told = []
    for number in range(nights):
        day = shop.settings.calendar.first_day + dt.timedelta(days=number)
        failed = whole_night(shop, instance, day)
        failed += [said for said in [run(shop, instance, "housekeeping_of_tables", None)] if said]
        if failed:
            raise SystemExit(f"night {day}: {failed}")
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        lake = shop.lake()
        live = pl.concat([_live_files(lake, table) for table in LIST_TABLES])
        told.append(
            {
                "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
                "open_files": len(os.listdir("/proc/self/fd")),
                "lists_mb": int(live["size_bytes"].sum()) / 1e6,
                "files": live.height,
            }
        )
    return told


def _live_files(lake: Lake, table: str) -> pl.DataFrame:
    """`size_bytes` of each file that a table has now; what else the log says of a file differs between tables."""
    return pl.DataFrame(lake.open(table).get_add_actions(flatten=True)).select("size_bytes")


def main() -> int:
    """The command line; the exit status is 1 when something failed, and stdout says what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", required=True)
    parser.add_argument("--job", choices=["night", "training"], default="night")
    parser.add_argument("--nights", type=int, help="so many whole nights, and what they cost, as JSON")
    parser.add_argument("--first-delay", type=float, default=0.2, help="seconds before a step is tried again")
    parser.add_argument("--retries", type=int, default=retries.MAX_RETRIES, help="of a step")
    parser.add_argument("--after-kill", action="store_true", help="close the runs of a killed process first")
    given = parser.parse_args()
    retries.FIRST_DELAY, retries.MAX_RETRIES = (
        given.first_delay,
        given.retries,
    )
    shop = load_shop(given.home)
    os.environ.update(prepare_instance(shop))
    with dg.DagsterInstance.get() as instance:
        if given.nights:
            print(json.dumps(many_nights(shop, instance, given.nights)))
            return 0
        if given.after_kill:
            close_dead_runs(instance, tag=STARTED_BY, value="chaos")
        failed = whole_night(shop, instance, disturbed_day(shop)) if given.job == "night" else _train(shop, instance)
    print("\n".join(failed), flush=True)
    return 1 if failed else 0


def _train(shop: Shop, instance: dg.DagsterInstance) -> list[str]:
    said = run(shop, instance, "training", None)
    return [said] if said else []


if __name__ == "__main__":
    sys.exit(main())
