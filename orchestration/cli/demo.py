"""`multitron demo` (`make demo`): raw events to recommendation tables, by the real Dagster jobs and a Triton server.

Repeating the demo changes nothing: raw files, model and deployed version are kept while the settings are the same, and
partitions are replaced by equal rows. After a killed demo, start it again: it continues with what is finished.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import dagster as dg
import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.formats import FORMATS
from multitron_core.events.ingestion import read_event_log
from multitron_core.events.read import read_events
from multitron_core.lake.contracts import LIST_TABLES
from multitron_core.lake.lake import Lake
from multitron_core.report import FILE_NAME
from multitron_core.sessions.prepare import PreparedSessions, format_statistics
from multitron_core.simulator.simulation import simulate
from multitron_core.training.presets import named
from multitron_core.utils.file_lock import file_lock
from orchestration.automation.rerun_commands import ui_command
from orchestration.code_location import build_definitions
from orchestration.runtime.in_process_runs import RUN_TAG, run_job, shared_server
from orchestration.runtime.instance import close_dead_runs, prepare_instance
from orchestration.runtime.partitions import night_key
from orchestration.shop import models
from orchestration.shop.home import DEMO_HOME, HOME_VARIABLE, Shop, file_settings, load_shop
from orchestration.shop.settings import CalendarSettings, NightSettings, Settings, SourceSettings, demo_settings
from orchestration.shop.toml import write_shop

SIMULATED_DAYS = 8

SHOWN_PI = ("0.00", "0.50", "1.00")
SHOWN_SESSIONS, SHOWN_ITEMS = 3, 5
"""Example lists that the demo prints: their preferences, number of sessions, and items per list."""

RANKING_METRICS = ("click_recall_20", "order_recall_20", "order_density")


def run_demo(
    home: Path | None,
    *,
    size: tuple[int, int],
    data: Path | None = None,
    format: str | None = None,
    split_days: int | None = None,
    preset: str | None = None,
) -> Shop:
    """Run every job of a shop once and print a summary.

    Args:
        home: home folder of the shop, created if it is missing; None for $MULTITRON_HOME, or var/demo.
        size: number of sessions and of items of the simulated shop; unused with `data`.
        data: folder of raw files; None simulates a shop.
        format: of `data`.
        split_days: days of the test set; None for the value of shop.toml, or the default.
        preset: training preset; None for the value of shop.toml, or the default.

    Returns:
        The shop.

    Raises:
        MultitronError: an argument is wrong, or a job failed; the hint says what to do.
    """
    home = home or Path(os.environ.get(HOME_VARIABLE) or DEMO_HOME)
    with step("settings"):
        shop = _shop(home, data=data, format=format, split_days=split_days, preset=preset)
    with _exclusive_use(shop.home):
        os.environ.update(prepare_instance(shop))
        if data is None:
            sessions, items = size
            first_day = shop.settings.calendar.first_day
            with step(f"simulated shop: {sessions} sessions, {items} items, {SIMULATED_DAYS} days"):
                simulate(home / "raw", sessions=sessions, items=items, days=SIMULATED_DAYS, first_day=first_day)
        definitions = build_definitions(shop)
        with dg.DagsterInstance.get() as instance:
            close_dead_runs(instance, tag=RUN_TAG, value="demo")
            with shared_server(shop, step):
                _run_jobs(shop, definitions, instance)
        _print_results(shop)
    return shop


def _exclusive_use(home: Path) -> AbstractContextManager[None]:
    """Lock the home against other demos: a demo closes unfinished runs, which would be the runs of the other one."""
    refusal = InputError(
        "another demo is running in this home",
        where=home,
        hint="wait until it ends, or use another home: MULTITRON_HOME=<folder>",
    )
    return file_lock(home / ".demo.lock", refusal=refusal)


def _shop(home: Path, *, data: Path | None, format: str | None, split_days: int | None, preset: str | None) -> Shop:
    """The shop of `home`: the settings of its shop.toml, or default settings, overridden by the arguments.

    Writes shop.toml if the settings differ from it.
    """
    if (data is None) != (format is None):
        raise InputError(
            "a folder of raw files needs a format, and a format needs a folder",
            found={"data": None if data is None else str(data), "format": format},
            hint=f"use --data <folder> --format {'|'.join(FORMATS)}, or make demo DATA=<folder> FORMAT=<format>",
        )
    if split_days is not None and split_days < 1:
        raise InputError(
            "the test set has no day", where="--split-days, SPLIT_DAYS", found=split_days, hint="use 1 or more"
        )
    if preset is not None:
        named(preset)  # an unknown preset must not be written to shop.toml
    exists = (home / "shop.toml").exists()
    settings = file_settings(home) if exists else demo_settings() if data is None else _new_shop(data, format or "")
    if data is not None and exists and (settings.source.path, settings.source.format) != (str(data.resolve()), format):
        raise InputError(
            "this home holds a shop of other raw files",
            where=home / "shop.toml",
            found={"path": settings.source.path, "format": settings.source.format},
            hint="use another home: MULTITRON_HOME=<folder>, or remove this one",
        )
    if split_days is not None:
        settings = settings.model_copy(
            update={"sessions": settings.sessions.model_copy(update={"split_days": split_days})}
        )
    if preset is not None:
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"preset": preset})})
    settings = Settings.model_validate(settings.model_dump())
    if not exists or file_settings(home) != settings:
        write_shop(home, settings)
    return load_shop(home)


def _new_shop(data: Path, format: str) -> Settings:
    """Default settings for a folder of raw files; the calendar spans the days of its events."""
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
        raise InputError("no events", where=data, hint=f"use a folder with {format} files")
    return Settings(
        source=SourceSettings.model_validate({"path": str(data.resolve()), "format": format}),
        calendar=CalendarSettings(first_day=first, last_day=last),
        night=NightSettings(first_night=last_clicks, last_night=last_clicks),  # later days have orders only
    )


def _run_jobs(shop: Shop, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Run the jobs in the order in which the sensor `nights` runs them."""
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
    with step("job training: sessions, model, front, report, deployment", multiline=True):
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
    """The day that a demo scores: the last day with a click. Later days may have orders only.

    Raises:
        InputError: no event is a click.
    """
    clicks = read_event_log(shop.lake(), last=shop.settings.calendar.last_day).filter(event_type="click")
    day = clicks.select(pl.col("ts").max().dt.date()).collect(engine="streaming").item()
    if day is None:
        raise InputError("no clicks", where=shop.source_path, hint="use raw files with clicks")
    return day


@contextmanager
def step(name: str, *, multiline: bool = False) -> Iterator[None]:
    """Print the name of a step, and at its end the seconds that it took, or that it failed.

    Args:
        name: of the step.
        multiline: whether the step itself prints lines in between.
    """
    start = time.monotonic()
    print(f"  {name} ...", end="\n" if multiline else "", flush=True)
    try:
        yield
    except BaseException:
        print("  failed" if multiline else " failed", flush=True)
        raise
    print(f"{'  ...' if multiline else ''} {time.monotonic() - start:.1f} s", flush=True)


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
    print(f"\nRecommendations of {day} per preference (pi: weight on orders), with metrics of the test sessions:")
    print("  pi      rows  click recall@20  order recall@20  order density  click loss  order loss")
    for row in rows.join(metrics, on="pi", how="left").sort("pi").iter_rows():
        pi, count, *values = row
        cells = [_cell(value, width) for value, width in zip(values, (15, 15, 13, 10, 10), strict=True)]
        print(f"  {pi} {count:>9}  " + "  ".join(cells))
    print("Baselines on the same sessions (click recall@20, order recall@20, order density):")
    for baseline in pl.read_parquet(folder / "baselines.parquet").iter_rows(named=True):
        cells = [_cell(baseline[name], width) for name, width in zip(RANKING_METRICS, (6, 15, 13), strict=True)]
        print(f"  {baseline['baseline']:<36}" + "  ".join(cells))
    _print_sessions(lake, day, [pi for pi in SHOWN_PI if pi in grid])
    print(f"\nThe front: {folder / 'front.png'}")
    print(f"The report: {folder / FILE_NAME}   (open it in a browser)")
    print(f"\nNext: {ui_command(shop)}   (the Dagster UI: assets, runs and schedules of this shop)")


def _cell(value: float | None, width: int) -> str:
    """A number with four decimals, right-aligned, or a dash for None."""
    return f"{'-' if value is None else f'{value:.4f}':>{width}}"


def _print_counts(shop: Shop, lake: Lake) -> None:
    """Print how many lines were read, accepted and rejected, and the sessions made from them."""
    counts = pl.scan_delta(lake.open("ingestion")).group_by("what").agg(pl.col("count").sum()).collect()
    total = dict(counts.iter_rows())
    print(
        f"\nLines and events read: {total.get('in', 0):,} = {total.get('accepted', 0):,} accepted "
        f"+ {total.get('duplicate', 0):,} duplicates + {total.get('rejected', 0):,} rejected"
    )
    print("Sessions, training set and test set:")
    print("  " + format_statistics(PreparedSessions.load(shop.training_sessions).statistics).replace("\n", "\n  "))


def _print_sessions(lake: Lake, day: dt.date, shown: list[str]) -> None:
    """Print the top items of a few sessions, one column per preference."""
    if not shown:
        return
    first = lake.read_recommendations(shown[0], day)["session_id"].unique().sort().head(SHOWN_SESSIONS).to_list()
    lists = {
        pi: lake.read_recommendations(pi, day, session_ids=first).filter(pl.col("rank") <= SHOWN_ITEMS) for pi in shown
    }
    for session in first:
        print(f"\nSession {session}, top {SHOWN_ITEMS} items:")
        print("  rank  " + "  ".join(f"pi {pi:<12}" for pi in shown))
        columns = [lists[pi].filter(session_id=session).sort("rank")["item_id"].to_list() for pi in shown]
        for rank, items in enumerate(zip(*columns, strict=True), start=1):
            print(f"  {rank:>4}  " + "  ".join(f"{item!s:<15}" for item in items))


if __name__ == "__main__":
    from orchestration.cli.app import main

    main(["demo", *sys.argv[1:]], prog_name="multitron")
