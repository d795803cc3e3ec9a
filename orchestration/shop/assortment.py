"""The assortment of a night: the items that its lists may contain, from a table of the shop."""

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
"""The column of item ids in the shop's table and in the saved assortment."""


def read_assortment(shop: Shop, day: dt.date, vocabulary: Vocabulary) -> pl.Series | None:
    """Read the items that a night's lists may contain from the shop's table.

    Args:
        shop: the shop. `assortment` of [scoring] is the path of a parquet file, a CSV file or a Delta table with a
            column `item_id`. `{date}` in the path is replaced by the day. If the table has a column `run_date`, only
            the rows of the day are read.
        day: the run date.
        vocabulary: determines the type of the ids.

    Returns:
        Distinct ids of the vocabulary's type, ascending. None if the shop has no assortment table: every item may be
        shown.

    Raises:
        InputError: the column is missing, the ids have another type, or the day has no item.
        UnavailableError: the table cannot be read at the moment, for example because it has not arrived yet.
    """
    path = shop.assortment_path(day)
    if path is None:
        return None
    try:
        table = _scan(path, vocabulary.item_ids.dtype, shop.storage_options)
        columns = table.collect_schema().names()
        if COLUMN not in columns:
            raise InputError(
                "the assortment has no column of item ids",
                where=path,
                found=columns,
                hint=f"name the column {COLUMN}",
            )
        if "run_date" in columns:
            table = table.filter(pl.col("run_date").cast(pl.Date) == day)
        items = table.select(pl.col(COLUMN).cast(vocabulary.item_ids.dtype)).drop_nulls().unique().collect()[COLUMN]
    except (OSError, DeltaError) as error:
        raise UnavailableError(
            "the assortment cannot be read",
            where=path,
            found=str(error),
            hint="provide the table, or remove `assortment` from [scoring] to show every item",
        ) from error
    except pl.exceptions.PolarsError as error:
        raise InputError(
            "the assortment is not a readable table of item ids",
            where=path,
            found=str(error),
            hint=f"provide a column {COLUMN} of type {vocabulary.item_ids.dtype}",
        ) from error
    if items.is_empty():
        raise InputError("the assortment has no item", where=path, found=str(day), hint="provide the items of that day")
    return items.sort()


def save_assortment(shop: Shop, day: dt.date, items: pl.Series | None) -> Path:
    """Save a night's assortment, so that every preference and every rerun of the night uses the same items.

    Args:
        shop: the shop.
        day: the run date.
        items: the items that may be shown; None for every item, which deletes an earlier file.

    Returns:
        The path of the file.
    """
    path = shop.night_assortment(day)
    path.parent.mkdir(parents=True, exist_ok=True)
    if items is None:
        path.unlink(missing_ok=True)
    else:
        with atomic_file(path) as new:
            items.to_frame(COLUMN).write_parquet(new)
    return path


def night_assortment(shop: Shop, day: dt.date) -> pl.Series | None:
    """Load the saved assortment of a night.

    Returns:
        The item ids; None if every item may be shown.

    Raises:
        UnavailableError: the shop has an assortment table, but it has not been read for this night.
    """
    path = shop.night_assortment(day)
    if path.exists():
        return pl.read_parquet(path)[COLUMN]
    if shop.settings.scoring.assortment is None:
        return None
    raise UnavailableError(
        "the assortment of the night has not been prepared",
        where=path,
        hint=f"materialize `assortment` of {day}, then this partition",
    )


def _scan(path: str, item_type: pl.DataType, storage_options: dict[str, str] | None) -> pl.LazyFrame:
    if path.endswith(".parquet"):
        return pl.scan_parquet(path, storage_options=storage_options)
    if path.endswith((".csv", ".csv.gz")):
        # With the vocabulary's type: inferred types would turn "007" into 7.
        types = {COLUMN: item_type}
        return pl.scan_csv(path, schema_overrides=types, try_parse_dates=True, storage_options=storage_options)
    return pl.scan_delta(path, storage_options=storage_options)
