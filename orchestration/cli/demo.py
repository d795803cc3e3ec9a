"""`make demo`: the whole way, raw events to recommendation tables, with the real Dagster jobs and a real Triton server.

Repeating it changes nothing: raw files, model and deployed version are kept when they are of the same settings, and
partitions are replaced by the same rows. A killed demo is simply started again.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import dagster as dg
import polars as pl

from multitron_core.errors import InputError, MultitronError
from multitron_core.events.formats import FORMATS
from multitron_core.events.ingestion import read_event_log
from multitron_core.events.read import read_events
from multitron_core.lake.contracts import LIST_TABLES
from multitron_core.lake.lake import Lake
from multitron_core.report import FILE_NAME
from multitron_core.sessions.prepare import PreparedSessions, format_statistics
from multitron_core.simulator.simulation import simulate
from multitron_core.training.presets import PRESETS, named
from multitron_core.utils.file_lock import file_lock
from orchestration.automation.rerun_commands import ui_command
from orchestration.code_location import build_definitions
from orchestration.runtime.in_process_runs import RUN_TAG, run_job, shared_server
from orchestration.runtime.instance import close_dead_runs, prepare_instance
from orchestration.runtime.partitions import night_key
from orchestration.shop import models
from orchestration.shop.home import DEMO_HOME, Shop, file_settings, load_shop
from orchestration.shop.settings import CalendarSettings, NightSettings, Settings, SourceSettings, demo_settings
from orchestration.shop.toml import write_shop

SESSIONS, ITEMS = 20_000, 2_000
"""The size of the simulated shop."""

SHOWN_PI = ("0.00", "0.50", "1.00")
SHOWN_SESSIONS, SHOWN_ITEMS = 3, 5
RANKINGS = ("click_recall_20", "order_recall_20", "order_density")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=DEMO_HOME, help="the shop's home folder")
    parser.add_argument("--data", type=Path, help="folder of raw files; without it a shop is simulated")
    parser.add_argument("--format", help=f"{', '.join(FORMATS)}; needed with --data")
    parser.add_argument("--split-days", type=int, help="days of the test set, instead of the format's own")
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="size of the simulated shop")
    parser.add_argument("--items", type=int, default=ITEMS, help="size of its catalogue")
    parser.add_argument("--preset", help=f"training preset: {', '.join(PRESETS)}")
    arguments = parser.parse_args()
    logging.getLogger("serving").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_demo(
            arguments.home,
            data=arguments.data,
            format=arguments.format,
            split_days=arguments.split_days,
            preset=arguments.preset,
            size=(arguments.sessions, arguments.items),
        )
    except MultitronError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; start it again and it goes on where it was", file=sys.stderr)
        return 130
    return 0


def run_demo(
    home: Path,
    *,
    data: Path | None = None,
    format: str | None = None,
    split_days: int | None = None,
    preset: str | None = None,
    size: tuple[int, int] = (SESSIONS, ITEMS),
) -> None:
    """Take a shop the whole way and print what came of it.

    Args:
        home: the shop's home folder; made when it is missing.
        data: raw files; None simulates a shop.
        format: of `data`.
        split_days, preset: instead of what shop.toml, or without one the defaults, say.
        size: sessions and items of the simulated shop.

    Raises:
        MultitronError: whatever stopped it, with the mend.
    """
    with step("settings"):
        shop = _shop(home, data=data, format=format, split_days=split_days, preset=preset)
    with _alone(shop.home):
        os.environ.update(prepare_instance(shop))
        if data is None:
            sessions, items = size
            first_day = shop.settings.calendar.first_day
            with step(f"simulated shop: {sessions} sessions, {items} items, 8 days"):
                simulate(home / "raw", sessions=sessions, items=items, days=8, first_day=first_day)
        definitions = build_definitions(shop)
        with dg.DagsterInstance.get() as instance:
            close_dead_runs(instance, tag=RUN_TAG, value="demo")
            with shared_server(shop, step):
                _run_jobs(shop, definitions, instance)
        _print_results(shop)


def _alone(home: Path) -> AbstractContextManager[None]:
    """Hold the home against other demos: each takes the runs that it finds unfinished for those of a killed one."""
    refusal = InputError(
        "another demo is at work in this home",
        where=home,
        hint="wait until it has ended, or name another home with MULTITRON_HOME=<folder>",
    )
    return file_lock(home / ".demo.lock", refusal=refusal)


def _shop(home: Path, *, data: Path | None, format: str | None, split_days: int | None, preset: str | None) -> Shop:
    """The shop of `home`: as shop.toml has it, with what the command line says otherwise; written back when changed."""
    if (data is None) != (format is None):
        raise InputError(
            "DATA and FORMAT belong together",
            found={"DATA": str(data), "FORMAT": format},
            hint=f"make demo DATA=<folder> FORMAT={'|'.join(FORMATS)}",
        )
    if split_days is not None and split_days < 1:
        raise InputError("no day would be left to test on", where="SPLIT_DAYS", found=split_days, hint="use 1 or more")
    if preset is not None:
        named(preset)  # an unknown one must not get into shop.toml
    there = (home / "shop.toml").exists()
    settings = file_settings(home) if there else demo_settings() if data is None else _new_shop(data, format or "")
    if data is not None and there and (settings.source.path, settings.source.format) != (str(data.resolve()), format):
        raise InputError(
            "this home belongs to other raw files",
            where=home / "shop.toml",
            found={"path": settings.source.path, "format": settings.source.format},
            hint="name another home with MULTITRON_HOME=<folder>, or remove this one",
        )
    if split_days is not None:
        settings = settings.model_copy(
            update={"sessions": settings.sessions.model_copy(update={"split_days": split_days})}
        )
    if preset is not None:
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"preset": preset})})
    settings = Settings.model_validate(settings.model_dump())
    if not there or file_settings(home) != settings:
        write_shop(home, settings)
    return load_shop(home)


def _new_shop(data: Path, format: str) -> Settings:
    """Settings for raw files that hold many days: the calendar is theirs."""
    log = read_events(data, format)
    day = pl.col("ts").dt.date()
    first, last, last_clicks = (
        log.events.select(
            day.min().alias("first"),
            day.max().alias("last"),
            day.filter(pl.col("event_type") == "click").max().alias("last_clicks"),
        )
        .collect(engine="streaming")
        .row(0)
    )
    if first is None:
        raise InputError("there are no events", where=data, hint=f"name a folder with {format} files")
    return Settings(
        source=SourceSettings.model_validate({"path": str(data.resolve()), "format": format}),
        calendar=CalendarSettings(first_day=first, last_day=last),
        night=NightSettings(first_night=last_clicks, last_night=last_clicks),  # orders may come later
    )


def _run_jobs(shop: Shop, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """The jobs in the order in which the schedules run them."""
    calendar, grid = shop.settings.calendar, shop.settings.preferences
    last = calendar.last_day or dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    with step(f"job ingestion: {calendar.first_day} to {last}"):
        run_job(
            definitions,
            instance,
            "ingestion",
            started_by="demo",
            tags={
                "dagster/asset_partition_range_start": str(calendar.first_day),
                "dagster/asset_partition_range_end": str(last),
            },
        )
    with step("job training: sessions, model, front, report, deployment", own_lines=True):
        run_job(
            definitions,
            instance,
            "training",
            started_by="demo",
            on_step=lambda name, seconds: print(f"    {name} ... {seconds:.1f} s", flush=True),
        )
    day = run_date(shop)
    with step(f"job session_preparation: {day}"):
        run_job(definitions, instance, "session_preparation", started_by="demo", partition_key=str(day))
    for pi in grid:
        with step(f"job scoring: {day}, pi {pi}"):
            run_job(definitions, instance, "scoring", started_by="demo", partition_key=night_key(day, pi))
    with step(f"job night_completion: {day}"):
        run_job(definitions, instance, "night_completion", started_by="demo", partition_key=str(day))


def run_date(shop: Shop) -> dt.date:
    """The day that a demo scores: the last one with a click. Orders can come later."""
    clicks = read_event_log(shop.lake(), last=shop.settings.calendar.last_day).filter(event_type="click")
    day = clicks.select(pl.col("ts").max().dt.date()).collect(engine="streaming").item()
    if day is None:
        raise InputError("there are no clicks", where=shop.source_path, hint="name raw files that have clicks")
    return day


@contextmanager
def step(what: str, *, own_lines: bool = False) -> Iterator[None]:
    """Say on the screen what is being done, and how long it took."""
    start = time.monotonic()
    print(f"  {what} ...", end="\n" if own_lines else "", flush=True)
    try:
        yield
    except BaseException:
        print("  failed" if own_lines else " failed", flush=True)
        raise
    print(f"{'  ...' if own_lines else ''} {time.monotonic() - start:.1f} s", flush=True)


def _print_results(shop: Shop) -> None:
    lake, day, grid = shop.lake(), run_date(shop), shop.settings.preferences
    folder = models.newest(shop)
    print("\nTables (Delta Lake):")
    for table in ("events", "rejects", *LIST_TABLES, "published", "channels", "fronts"):
        print(f"  {table:<24} {lake.uri(table)}")
    _print_counts(shop, lake)
    metrics = pl.read_parquet(folder / "grid.parquet").select(
        pi=pl.col("pi_order").map_elements(lambda value: f"{value:.2f}", return_dtype=pl.String),
        click_recall="click_recall_20",
        order_recall="order_recall_20",
        order_density="order_density",
        click_loss="click_loss",
        order_loss="order_loss",
    )
    rows = lake.publications("recommendations").filter(run_date=day).select("pi", "rows")
    print(f"\nRecommendations of {day} by preference (pi = weight on orders), metrics on the test sessions:")
    print("  pi      rows  click recall@20  order recall@20  order density  click loss  order loss")
    for row in rows.join(metrics, on="pi", how="left").sort("pi").iter_rows():
        pi, count, *values = row
        cells = [_cell(value, width) for value, width in zip(values, (15, 15, 13, 10, 10), strict=True)]
        print(f"  {pi} {count:>9}  " + "  ".join(cells))
    print("What tables of counts reach there (click recall@20, order recall@20, order density):")
    for baseline in pl.read_parquet(folder / "baselines.parquet").iter_rows(named=True):
        cells = [_cell(baseline[name], width) for name, width in zip(RANKINGS, (6, 15, 13), strict=True)]
        print(f"  {baseline['baseline']:<36}" + "  ".join(cells))
    _print_sessions(lake, day, [pi for pi in SHOWN_PI if pi in grid])
    print(f"\nThe front: {folder / 'front.png'}")
    print(f"The report: {folder / FILE_NAME}   (one HTML file, for any browser)")
    print(f"\nNext: {ui_command(shop)}   (the Dagster UI: how these tables came to be)")


def _cell(value: float | None, width: int) -> str:
    """A figure, or a dash where there is none."""
    return f"{'-' if value is None else f'{value:.4f}':>{width}}"


def _print_counts(shop: Shop, lake: Lake) -> None:
    """What came in and what became of it: nothing is lost without a reason."""
    counted = pl.scan_delta(lake.open("ingestion")).group_by("what").agg(pl.col("count").sum()).collect()
    total = dict(counted.iter_rows())
    print(
        f"\nLines and events in: {total.get('in', 0):,} = {total.get('accepted', 0):,} accepted "
        f"+ {total.get('duplicate', 0):,} duplicates + {total.get('rejected', 0):,} rejected"
    )
    print("Sessions of training, and of the test that follows them:")
    print("  " + format_statistics(PreparedSessions.load(shop.training_sessions).statistics).replace("\n", "\n  "))


def _print_sessions(lake: Lake, day: dt.date, shown: list[str]) -> None:
    """The best items of a few sessions, a column a preference."""
    if not shown:
        return
    first = lake.read_recommendations(shown[0], day)["session_id"].unique().sort().head(SHOWN_SESSIONS).to_list()
    lists = {
        pi: lake.read_recommendations(pi, day, session_ids=first).filter(pl.col("rank") <= SHOWN_ITEMS) for pi in shown
    }
    for session in first:
        print(f"\nSession {session}, best {SHOWN_ITEMS} items:")
        print("  rank  " + "  ".join(f"pi {pi:<12}" for pi in shown))
        columns = [lists[pi].filter(session_id=session).sort("rank")["item_id"].to_list() for pi in shown]
        for rank, items in enumerate(zip(*columns, strict=True), start=1):
            print(f"  {rank:>4}  " + "  ".join(f"{item!s:<15}" for item in items))


if __name__ == "__main__":
    sys.exit(main())
