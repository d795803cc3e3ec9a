"""Simulation of a shop: raw files in the formats of real shops, and the ground truth they were drawn from.

`ground_truth` defines the behaviour of shoppers. This module draws their sessions and writes them day by day and block
by block, so that ten million sessions need no more memory than ten thousand. Each block has a random generator seeded
with (seed, day, block), so that the same arguments give the same bytes.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.simulator.formats import DAY_MS, FORMATS
from multitron_core.simulator.ground_truth import Habits, Truth, make_items
from multitron_core.utils.atomic_folder import atomic_plain_folder
from multitron_core.utils.event_types import EVENT_TYPES

__all__ = ["Simulation", "draw_events", "draw_sessions", "simulate"]

BLOCK = 50_000
"""Number of sessions per block. Another number gives other sessions for the same seed."""

HOURS = (3, 2, 1, 1, 1, 1, 2, 4, 6, 7, 8, 8, 8, 8, 8, 8, 8, 9, 11, 13, 14, 12, 8, 5)
"""Relative number of sessions that start in each hour of a day (UTC)."""


class Simulation(NamedTuple):
    """A simulation on disk.

    Args:
        folder: Folder of the simulation.
        files: The raw files, sorted by name.
        counts: Numbers of `sessions`, `clicks`, `carts` and `orders` in the raw files.
    """

    folder: Path
    files: tuple[Path, ...]
    counts: dict[str, int]


def simulate(
    folder: Path | str,
    *,
    sessions: int = 20_000,
    items: int = 2_000,
    days: int = 8,
    first_day: date = date(2026, 1, 1),
    format: str = "table",
    seed: int = 1,
    habits: Habits | None = None,
    replace: bool = False,
) -> Simulation:
    """Write the raw files of a simulated shop, and the ground truth in the subfolder `truth`.

    `multitron_core.events.read_events(folder, format)` reads the files of every format:

    - `table`: `events-2026-01-01.csv.gz`, one file per day, with the header `session_id,item_id,ts,event_type`. A file
      contains the events of its day (UTC), so the events of a session that crosses midnight are in two files. Events
      after the end of the last day are in no file, as in exports of real shops.
    - `diginetica`: `train-item-views.csv`, `train-purchases.csv`; `yoochoose`: `yoochoose-clicks.dat`,
      `yoochoose-buys.dat`. Neither format has carts.
    - `otto`: `otto-recsys-test.jsonl` with the sessions that start on the last day, and `otto-recsys-train.jsonl` with
      the other sessions.

    `Truth.load(folder)` reads the ground truth from `truth/items.parquet` and `truth/parameters.json`.

    Args:
        folder: Folder of the simulation. It is created, and appears only when it is complete. An existing simulation
            with the same arguments is kept.
        sessions: Number of sessions, spread evenly over the days.
        items: Number of items in the catalogue.
        days: Number of days.
        first_day: The first day.
        format: `table`, `diginetica`, `yoochoose` or `otto`.
        seed: Seed; the same arguments and seed give the same bytes.
        habits: Behaviour of shoppers; the defaults of `Habits` if None.
        replace: Whether to replace a simulation with other arguments in `folder`.

    Returns:
        The files and their counts.

    Raises:
        InputError: An argument is out of range, the format is unknown, or `folder` contains something else.
    """
    folder = Path(folder).absolute()
    habits = habits or Habits()
    if format not in FORMATS:
        raise InputError("unknown format", where="format", found=format, hint=f"use one of {', '.join(FORMATS)}")
    min_days = 2 if format == "otto" else 1  # the last day is OTTO's test set
    for name, value, minimum in (("days", days, min_days), ("sessions", sessions, days), ("seed", seed, 0)):
        if value < minimum:
            raise InputError("an argument is out of range", where=name, found=value, hint=f"use {minimum} or more")
    arguments: dict[str, object] = {
        "version": 1,
        "sessions": sessions,
        "items": items,
        "days": days,
        "first_day": first_day.isoformat(),
        "format": format,
        "seed": seed,
        "habits": dataclasses.asdict(habits),
    }
    if _keeps(folder, arguments, replace=replace):
        return _open(folder)

    truth = Truth(make_items(items, habits, seed=seed), habits)
    with atomic_plain_folder(folder) as partial:  # replaces a simulation or an empty folder: `_keeps` refused the rest
        (partial / "truth").mkdir()
        truth.items.write_parquet(partial / "truth" / "items.parquet")
        (partial / "truth" / "parameters.json").write_text(json.dumps(arguments, indent=2) + "\n")
        counts = _write(partial, truth, format, sessions=sessions, days=days, first_day=first_day, seed=seed)
        (partial / "truth" / "counts.json").write_text(json.dumps(counts) + "\n")
    return _open(folder)


def _keeps(folder: Path, arguments: dict[str, object], *, replace: bool) -> bool:
    """Whether `folder` already contains the simulation; raises an InputError if it must not be overwritten."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    parameters = folder / "truth" / "parameters.json"
    if not parameters.is_file():
        raise InputError(
            "the folder contains something other than a simulation",
            where=folder,
            hint="choose another folder, or empty this one",
        )
    found = json.loads(parameters.read_text())
    if found == arguments:
        return True
    if not replace:
        raise InputError(
            "the folder contains a simulation with other arguments",
            where=folder,
            found={name: found.get(name) for name in arguments if found.get(name) != arguments[name]},
            hint="use these arguments, choose another folder, or replace the simulation (replace=True)",
        )
    return False


def _open(folder: Path) -> Simulation:
    counts = json.loads((folder / "truth" / "counts.json").read_text())
    return Simulation(folder, tuple(sorted(path for path in folder.iterdir() if path.is_file())), counts)


# Drawing -------------------------------------------------------------------------------------------------------------


def draw_sessions(truth: Truth, sessions: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the clicks of sessions.

    Args:
        truth: The shop.
        sessions: Number of sessions.
        rng: Random generator.

    Returns:
        int64 [sessions, longest session], clicked rows of `truth.items`, 0 beyond the end of a session; and int64
        [sessions], clicks per session.
    """
    habits = truth.habits
    lengths = np.minimum(rng.geometric(1.0 / habits.mean_clicks, sessions), habits.max_clicks)
    starts, walk = _cumulative(truth)
    slots = truth.walk.shape[2]
    clicks = np.zeros((sessions, int(lengths.max())), dtype=np.int64)
    clicks[:, 0] = np.searchsorted(starts, rng.random(sessions), side="right")
    direction = rng.integers(0, 2, sessions)
    for step in range(1, clicks.shape[1]):
        active = np.flatnonzero(lengths > step)
        last = clicks[active, step - 1]
        kind, draw = rng.random((2, len(active)))
        table = last * 2 + direction[active]
        position = np.searchsorted(walk, table + np.minimum(draw, 1.0 - 1e-9), side="right")  # stays in its table
        following = truth.first[last] + position - table * slots
        returns = kind < habits.return_share
        following[returns] = clicks[active[returns], (draw[returns] * step).astype(np.int64)]
        switches = kind > 1.0 - habits.switch_share
        following[switches] = np.searchsorted(starts, draw[switches], side="right")
        clicks[active, step] = following
    return clicks, lengths


def _cumulative(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative start probabilities [items], and those of all walks in one sorted array [items * 2 * slots].

    Table r of the walks is in the range [r, r + 1], so one binary search draws from many tables at once.
    """
    starts = np.cumsum(truth.attraction)
    walk = np.cumsum(truth.walk, axis=2)
    walk /= walk[:, :, -1:]  # exactly 1 at the end, so that no draw leaves its table
    tables = walk.reshape(-1, walk.shape[2])
    return starts / starts[-1], (tables + np.arange(len(tables))[:, None]).ravel()


def draw_events(truth: Truth, first_id: int, midnight: int, sessions: int, rng: np.random.Generator) -> pl.DataFrame:
    """Draw the events of sessions that start on one day.

    Args:
        truth: The shop.
        first_id: Number of the first session; the other numbers follow in the order of session starts.
        midnight: Start of the day, in milliseconds since 1970, UTC.
        sessions: Number of sessions.
        rng: Random generator.

    Returns:
        `session` Int64, `item` Int64 (row of `truth.items`), `ts` Int64 (milliseconds since 1970, UTC), `kind` Int8
        (index in `EVENT_TYPES`), sorted by session and time. Carts and orders follow the last click on their item.
    """
    habits = truth.habits
    clicks, lengths = draw_sessions(truth, sessions, rng)
    hours = np.concatenate([[0.0], np.cumsum(HOURS)]) / sum(HOURS)
    start = np.sort(np.interp(rng.random(sessions), hours, np.arange(25)) * 3_600_000).astype(np.int64)
    gaps = 1_000 + rng.exponential(45_000, clicks.shape).astype(np.int64)
    gaps[:, 0] = 0
    times = midnight + start[:, None] + np.cumsum(gaps, axis=1)  # [sessions, longest]
    inside = np.arange(clicks.shape[1]) < lengths[:, None]
    row = np.repeat(np.arange(sessions), lengths)
    item, ts = clicks[inside], times[inside]

    # The last click on each item of each session is the first one in reversed order.
    _, reversed_index = np.unique((row * len(truth.items) + item)[::-1], return_index=True)
    last = len(item) - 1 - reversed_index
    chance = rng.random((3, len(last)))
    ordered = chance[0] < truth.order_propensity[item[last]]
    carted = np.where(ordered, chance[1] < 0.9, chance[1] < habits.cart_rate)
    end = times[row[last], lengths[row[last]] - 1]
    order_ts = ts[last] + (chance[2] * (end - ts[last])).astype(np.int64) + rng.integers(10_000, 60_000, len(last))
    cart_ts = ts[last] + np.minimum(5_000, (order_ts - ts[last]) // 2)

    parts = [(np.arange(len(item)), ts, 0), (last[carted], cart_ts[carted], 1), (last[ordered], order_ts[ordered], 2)]
    return pl.DataFrame(
        {
            "session": np.concatenate([first_id + row[click] for click, _, _ in parts]),
            "item": np.concatenate([item[click] for click, _, _ in parts]),
            "ts": np.concatenate([time for _, time, _ in parts]),
            "kind": np.concatenate([np.full(len(click), kind, dtype=np.int8) for click, _, kind in parts]),
        }
    ).sort("session", "ts", "kind")


# Writing -------------------------------------------------------------------------------------------------------------


def _write(
    folder: Path, truth: Truth, format: str, *, sessions: int, days: int, first_day: date, seed: int
) -> dict[str, int]:
    """Draw and write all days.

    Returns:
        Numbers of sessions, clicks, carts and orders in the raw files.
    """
    kinds = np.zeros(len(EVENT_TYPES), dtype=np.int64)
    after_midnight: list[pl.DataFrame] = []  # events after midnight of sessions that started on the day before
    for number in range(days):
        day, last = first_day + timedelta(days=number), number == days - 1
        midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000
        pending, after_midnight = after_midnight, []
        with ExitStack() as stack:
            open_files: dict[str, IO[bytes]] = {}
            for block, (first, size) in enumerate(_blocks(sessions, number, days)):
                rng = np.random.default_rng([seed, 1 + number, block])
                events = draw_events(truth, first, midnight, size, rng)
                if format in ("diginetica", "yoochoose"):  # formats without carts
                    events = events.filter(pl.col("kind") != EVENT_TYPES.index("cart"))
                if format == "table":  # a file contains the events of its day
                    late = pl.col("ts") >= midnight + DAY_MS
                    after_midnight.append(events.filter(late))
                    events = pl.concat([*pending, events.filter(~late)])
                    pending = []
                kinds += np.bincount(events["kind"].to_numpy(), minlength=len(kinds))
                with_items = events.with_columns(
                    truth.items[name].gather(events["item"]) for name in ("item_id", "category")
                )
                for file in FORMATS[format](with_items, day, last):
                    path = folder / file.name
                    header = file.header and not path.exists()
                    if file.name not in open_files:
                        open_files[file.name] = _append_to(path, stack)
                    file.rows.write_csv(
                        open_files[file.name],
                        include_header=header,
                        separator=file.separator,
                        datetime_format="%Y-%m-%dT%H:%M:%S%.3fZ",
                        quote_style="never",
                    )
    return {"sessions": sessions, **{f"{kind}s": int(count) for kind, count in zip(EVENT_TYPES, kinds, strict=True)}}


def _blocks(sessions: int, day: int, days: int) -> Iterator[tuple[int, int]]:
    """(number of the first session, number of sessions) of each block of a day; sessions are numbered from 1."""
    first, end = sessions * day // days, sessions * (day + 1) // days
    return ((start + 1, min(BLOCK, end - start)) for start in range(first, end, BLOCK))


def _append_to(path: Path, stack: ExitStack) -> IO[bytes]:
    """Open a file for appending, compressed if its name ends in `.gz`; `stack` closes it."""
    raw = stack.enter_context(path.open("ab"))
    if path.suffix != ".gz":
        return raw
    # The header has neither name nor time, so that the same rows give the same bytes.
    compressed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=1)
    return cast("IO[bytes]", stack.enter_context(compressed))
