"""The assortment of a night: the items that may be shown, from a table of the shop."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
from deltalake.exceptions import DeltaError

from multitron_core.errors import InputError, UnavailableError
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.utils.atomic_file import atomic_file
from orchestration.shop.home import Shop

COLUMN = "item_id"


def read_assortment(shop: Shop, day: dt.date, vocabulary: Vocabulary) -> pl.Series | None:
    """The items that a night's lists may hold, as the shop's table says now.

    Args:
        shop: whose; `assortment` of [scoring] names a parquet or CSV file or a Delta table with a column `item_id`.
            `{date}` in it stands for the day; a column `run_date` chooses the day's rows.
        day: the night.
        vocabulary: gives the type of the ids.

    Returns:
        Distinct ids, of the vocabulary's type; None where the shop names no table: every item may be shown.

    Raises:
        InputError: no such column, ids of another type, or no item of that day.
        UnavailableError: the table cannot be read now; it may be on its way.
    """
    path = shop.assortment_path(day)
    if path is None:
        return None
    try:
        table = _scan(path, vocabulary.item_ids.dtype, shop.storage_options)
        columns = table.collect_schema().names()
        if COLUMN not in columns:
            raise InputError("the assortment lacks a column", where=path, found=columns, hint=f"name it {COLUMN}")
        if "run_date" in columns:
            table = table.filter(pl.col("run_date").cast(pl.Date) == day)
        items = table.select(pl.col(COLUMN).cast(vocabulary.item_ids.dtype)).drop_nulls().unique().collect()[COLUMN]
    except (OSError, DeltaError) as error:
        raise UnavailableError(
            "the assortment cannot be read",
            where=path,
            found=str(error),
            hint="bring the table, or take `assortment` out of [scoring] to show every item",
        ) from error
    except pl.exceptions.PolarsError as error:
        raise InputError(
            "the assortment is no table of the shop's items",
            where=path,
            found=str(error),
            hint=f"give a column {COLUMN} of {vocabulary.item_ids.dtype}",
        ) from error
    if items.is_empty():
        raise InputError("the assortment has no item", where=path, found=str(day), hint="bring the items of that day")
    return items.sort()


def save_assortment(shop: Shop, day: dt.date, items: pl.Series | None) -> Path:
    """Keep what a night may show, so that every preference and every repetition of it shows the same."""
    path = shop.night_assortment(day)
    path.parent.mkdir(parents=True, exist_ok=True)
    if items is None:
        path.unlink(missing_ok=True)
    else:
        with atomic_file(path) as new:
            items.to_frame(COLUMN).write_parquet(new)
    return path


def night_assortment(shop: Shop, day: dt.date) -> pl.Series | None:
    """What was kept for a night; None where every item may be shown.

    Raises:
        UnavailableError: the shop names a table and it has not been read for this night.
    """
    path = shop.night_assortment(day)
    if path.exists():
        return pl.read_parquet(path)[COLUMN]
    if shop.settings.scoring.assortment is None:
        return None
    raise UnavailableError(
        "the night's assortment is not prepared",
        where=path,
        hint=f"materialize `assortment` of {day}, then this partition",
    )


def _scan(path: str, item_type: pl.DataType, storage_options: dict[str, str] | None) -> pl.LazyFrame:
    if path.endswith(".parquet"):
        return pl.scan_parquet(path, storage_options=storage_options)
    if path.endswith((".csv", ".csv.gz")):
        # By their type, or "007" would become 7.
        types = {COLUMN: item_type}
        return pl.scan_csv(path, schema_overrides=types, try_parse_dates=True, storage_options=storage_options)
    return pl.scan_delta(path, storage_options=storage_options)
