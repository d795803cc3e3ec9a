"""A simulated shop: raw files as shops deliver them, and the truth beside them.

`multitron_core.truth` says how shoppers wander and order. Here the sessions are drawn and written, day by day and block
by block, so that ten million sessions need no more memory than ten thousand. Every block draws from a generator of
its own, seeded with (seed, day, block): the same arguments give the same bytes.
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
from multitron_core.simulator.formats import _FORMATS, DAY_MS, EVENT_TYPES
from multitron_core.simulator.ground_truth import Habits, Truth, make_items
from multitron_core.utils.atomic_folder import atomic_plain_folder

__all__ = ["Habits", "Simulation", "Truth", "simulate"]

BLOCK = 50_000
"""Sessions drawn at a time; part of what makes two simulations equal."""


HOURS = (3, 2, 1, 1, 1, 1, 2, 4, 6, 7, 8, 8, 8, 8, 8, 8, 8, 9, 11, 13, 14, 12, 8, 5)
"""How many sessions start in each hour of a day (UTC), as relative weights."""


class Simulation(NamedTuple):
    """A finished simulation on disk."""

    folder: Path
    files: tuple[Path, ...]  # the raw files, sorted by name
    counts: dict[str, int]  # sessions, clicks, carts, orders: what the raw files hold


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
    """Write the raw files of a shop, and the truth beside them.

    The formats' files, all read by `multitron_core.events.read_events(folder, format)`:

    - `table`: `events-2026-01-01.csv.gz`, one a day, with header `session_id,item_id,ts,event_type`. A file holds what
      happened on that day (UTC), so a session that straddles midnight has events in two files. What happens after the
      last day's midnight is in no file, as in any export.
    - `diginetica`: `train-item-views.csv`, `train-purchases.csv`; `yoochoose`: `yoochoose-clicks.dat`,
      `yoochoose-buys.dat`. Neither format has carts.
    - `otto`: `otto-recsys-train.jsonl` and, with the sessions that start on the last day, `otto-recsys-test.jsonl`.

    `truth/items.parquet` and `truth/parameters.json` are what `Truth.load(folder)` reads.

    Args:
        folder: is made, and appears only when it is complete. A complete simulation with the same arguments is kept.
        sessions: how many, spread evenly over the days.
        items: size of the catalogue.
        days: how many, from `first_day` on.
        format: `table`, `diginetica`, `yoochoose` or `otto`.
        seed: the same arguments and seed give the same bytes.
        habits: how shoppers behave.
        replace: whether a different simulation in `folder` gives way.

    Returns:
        Where the files are, and what they hold.

    Raises:
        InputError: an argument out of range, an unknown format, or a folder that holds something else.
    """
    folder = Path(folder).absolute()
    habits = habits or Habits()
    if format not in _FORMATS:
        raise InputError("unknown format", where="format", found=format, hint=f"use one of {', '.join(_FORMATS)}")
    least_days = 2 if format == "otto" else 1  # the last one is OTTO's test set
    for name, value, least in (("days", days, least_days), ("sessions", sessions, days), ("seed", seed, 0)):
        if value < least:
            raise InputError("an argument is out of range", where=name, found=value, hint=f"use {least} or more")
    asked: dict[str, object] = {
        "version": 1,
        "sessions": sessions,
        "items": items,
        "days": days,
        "first_day": first_day.isoformat(),
    }
    asked |= {"format": format, "seed": seed}
    asked["habits"] = dataclasses.asdict(habits)
    if _keeps(folder, asked, replace=replace):
        return _open(folder)

    truth = Truth(make_items(items, habits, seed=seed), habits)
    with atomic_plain_folder(folder) as partial:  # replaces a simulation or an empty folder: `_keeps` refused the rest
        (partial / "truth").mkdir()
        truth.items.write_parquet(partial / "truth" / "items.parquet")
        (partial / "truth" / "parameters.json").write_text(json.dumps(asked, indent=2) + "\n")
        counts = _write(partial, truth, format, sessions=sessions, days=days, first_day=first_day, seed=seed)
        (partial / "truth" / "counts.json").write_text(json.dumps(counts) + "\n")
    return _open(folder)


def _keeps(folder: Path, asked: dict[str, object], *, replace: bool) -> bool:
    """Whether `folder` already holds the simulation asked for; refuses what must not be overwritten."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    parameters = folder / "truth" / "parameters.json"
    if not parameters.is_file():
        raise InputError(
            "the folder holds something that is no simulation", where=folder, hint="choose another folder or empty it"
        )
    found = json.loads(parameters.read_text())
    if found == asked:
        return True
    if not replace:
        raise InputError(
            "the folder holds a simulation with other arguments",
            where=folder,
            found={name: found.get(name) for name in asked if found.get(name) != asked[name]},
            hint="use these arguments, choose another folder, or replace what is there (replace=True)",
        )
    return False


def _open(folder: Path) -> Simulation:
    counts = json.loads((folder / "truth" / "counts.json").read_text())
    return Simulation(folder, tuple(sorted(path for path in folder.iterdir() if path.is_file())), counts)


# Drawing -------------------------------------------------------------------------------------------------------------


def draw_sessions(truth: Truth, sessions: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Clicks of new sessions.

    Returns:
        rows of `truth.items`, int64 [sessions, longest], 0 beyond a session's end; and lengths, int64 [sessions].
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
        place = np.searchsorted(walk, table + np.minimum(draw, 1.0 - 1e-9), side="right")  # never the next table
        following = truth.first[last] + place - table * slots
        returns = kind < habits.return_share
        following[returns] = clicks[active[returns], (draw[returns] * step).astype(np.int64)]
        switches = kind > 1.0 - habits.switch_share
        following[switches] = np.searchsorted(starts, draw[switches], side="right")
        clicks[active, step] = following
    return clicks, lengths


def _cumulative(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative start probabilities [items], and those of all walks in one rising array [items * 2 * slots].

    Table r of the walks lies in [r, r + 1], so one binary search over all tables draws from many of them at once.
    """
    starts = np.cumsum(truth.attraction)
    walk = np.cumsum(truth.walk, axis=2)
    walk /= walk[:, :, -1:]  # the end is 1 exactly: no draw leaves its table
    tables = walk.reshape(-1, walk.shape[2])
    return starts / starts[-1], (tables + np.arange(len(tables))[:, None]).ravel()


def draw_events(truth: Truth, first_id: int, midnight: int, sessions: int, rng: np.random.Generator) -> pl.DataFrame:
    """The events of sessions that start on one day.

    Args:
        first_id: number of the first session; the others follow in order of their start.
        midnight: the day's start, milliseconds since 1970 UTC.

    Returns:
        `session` Int64, `item` Int64 (row of `truth.items`), `ts` Int64 (milliseconds UTC), `kind` Int8 (index of
        `EVENT_TYPES`), sorted by session and time; a cart and an order follow the last click on their item.
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

    # The last click on each item of each session: the first of its kind, read backwards.
    _, backwards = np.unique((row * len(truth.items) + item)[::-1], return_index=True)
    last = len(item) - 1 - backwards
    chance = rng.random((3, len(last)))
    ordered = chance[0] < truth.order_propensity[item[last]]
    carted = np.where(ordered, chance[1] < 0.9, chance[1] < habits.cart_rate)
    end = times[row[last], lengths[row[last]] - 1]
    order_ts = ts[last] + (chance[2] * (end - ts[last])).astype(np.int64) + rng.integers(10_000, 60_000, len(last))
    cart_ts = ts[last] + np.minimum(5_000, (order_ts - ts[last]) // 2)

    parts = [(np.arange(len(item)), ts, 0), (last[carted], cart_ts[carted], 1), (last[ordered], order_ts[ordered], 2)]
    return pl.DataFrame(
        {
            "session": np.concatenate([first_id + row[of] for of, _, _ in parts]),
            "item": np.concatenate([item[of] for of, _, _ in parts]),
            "ts": np.concatenate([when for _, when, _ in parts]),
            "kind": np.concatenate([np.full(len(of), kind, dtype=np.int8) for of, _, kind in parts]),
        }
    ).sort("session", "ts", "kind")


# Writing -------------------------------------------------------------------------------------------------------------


def _write(
    folder: Path, truth: Truth, format: str, *, sessions: int, days: int, first_day: date, seed: int
) -> dict[str, int]:
    """Draw and write all days.

    Returns:
        What the raw files hold: sessions, clicks, carts, orders.
    """
    kinds = np.zeros(len(EVENT_TYPES), dtype=np.int64)
    carried: list[pl.DataFrame] = []  # what yesterday's sessions did after midnight
    for number in range(days):
        day, last = first_day + timedelta(days=number), number == days - 1
        midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000
        yesterday, carried = carried, []
        with ExitStack() as stack:
            open_files: dict[str, IO[bytes]] = {}
            for block, (first, size) in enumerate(_blocks(sessions, number, days)):
                rng = np.random.default_rng([seed, 1 + number, block])
                events = draw_events(truth, first, midnight, size, rng)
                if format in ("diginetica", "yoochoose"):  # formats without carts
                    events = events.filter(pl.col("kind") != EVENT_TYPES.index("cart"))
                if format == "table":  # a day's file holds that day's events
                    late = pl.col("ts") >= midnight + DAY_MS
                    carried.append(events.filter(late))
                    events = pl.concat([*yesterday, events.filter(~late)])
                    yesterday = []
                kinds += np.bincount(events["kind"].to_numpy(), minlength=len(kinds))
                named = events.with_columns(
                    truth.items[name].gather(events["item"]) for name in ("item_id", "category")
                )
                for file in _FORMATS[format](named, day, last):
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
    """(number of the first session, how many) of each block of a day; sessions are numbered from 1."""
    first, end = sessions * day // days, sessions * (day + 1) // days
    return ((start + 1, min(BLOCK, end - start)) for start in range(first, end, BLOCK))


def _append_to(path: Path, stack: ExitStack) -> IO[bytes]:
    raw = stack.enter_context(path.open("ab"))
    if path.suffix != ".gz":
        return raw
    # No name and no time in the header: the same rows give the same bytes.
    packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=1)
    return cast("IO[bytes]", stack.enter_context(packed))
