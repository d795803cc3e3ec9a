"""Compare a night's lists with those of the previously published night, and find violations of thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl
from deltalake import DeltaTable

from multitron_core.errors import InputError
from multitron_core.lake.publication import publications, published_night
from multitron_core.lake.replace_where import checked_date
from multitron_core.lake.tables import Tables
from multitron_core.preference.keys import pi_key

COMPARED_LISTS = 100_000
"""Sample size that gives shares to three digits in little memory."""


@dataclass(frozen=True)
class NightComparison:
    """A partition compared with the previous published one of the same preference.

    Fields are None if there is no previous night.
    """

    table: str
    run_date: date
    pi: str
    before: date | None  # date of the previous night
    lists: int
    lists_before: int | None
    gained: int | None  # number of lists that only this night has
    lost: int | None  # number of lists that only the previous night has
    compared: int  # sampled lists of both nights, from which `changed` and `overlap` are computed
    changed: float | None  # share of the compared lists with other items or another order
    overlap: float | None  # mean share of a list's items that the previous list contains, in any order
    items: int  # number of distinct items in all lists (catalogue coverage)
    items_before: int | None
    top_share: float  # share of all rows that contain the most frequent 1 % of these items
    top_share_before: float | None


@dataclass(frozen=True)
class Thresholds:
    """Limits below or above which a night should not be published."""

    min_lists: float = 0.7  # share of the previous night's number of lists
    min_items: float = 0.5  # share of the previous night's number of items
    min_overlap: float = 0.05  # mean share of a list's items that the previous list contains
    max_top_share: float = 0.9  # share of all rows that contain the most frequent 1 % of items


def compare_nights(
    tables: Tables,
    run_date: date | str,
    pi: str,
    *,
    table: str = "recommendations",
    delta_version: int | None = None,
    compared_lists: int = COMPARED_LISTS,
) -> NightComparison:
    """Compare a partition with the latest earlier one that is published for the same preference.

    Numbers of lists and items and shares of rows are computed over all rows. Changes within lists are computed on a
    sample of the lists that both nights have, drawn by a hash of the list key.

    Args:
        tables: Where the tables are.
        run_date, pi: Partition to compare, published or not.
        table: Table of ranked lists.
        delta_version: Delta version to read; None for the newest.
        compared_lists: Approximate number of lists in the sample.

    Raises:
        InputError: The partition does not exist, or `table` has no ranked lists.
    """
    run_date, pi = checked_date(run_date), pi_key(pi)
    opened = tables.open(table, delta_version)
    key = tables.contract(table, opened).list_key
    if key is None:
        raise InputError("not a table of ranked lists", found=table, hint="compare a table of recommendations")
    current = _rows(opened, run_date, pi, key)
    lists, items, top_share = _totals(current)
    if not lists:
        raise InputError(
            "there is no such partition",
            where=opened.table_uri,
            found={"run_date": run_date.isoformat(), "pi": pi},
            hint="score this partition first",
        )
    earlier = publications(tables, table).filter(pl.col("pi") == pi, pl.col("run_date") < run_date)
    if earlier.is_empty():
        return NightComparison(
            table, run_date, pi, None, lists, None, None, None, 0, None, None, items, None, top_share, None
        )
    opened, before = published_night(tables, table, pi, earlier["run_date"].max())  # type: ignore[arg-type]
    previous = _rows(opened, before, pi, key)
    lists_before, items_before, top_share_before = _totals(previous)
    common = _keys(current).join(_keys(previous), on="key", how="semi").select(pl.len()).collect().item()
    compared, changed, overlap = _changes(current, previous, max(1, common // compared_lists))
    return NightComparison(
        table=table,
        run_date=run_date,
        pi=pi,
        before=before,
        lists=lists,
        lists_before=lists_before,
        gained=lists - common,
        lost=lists_before - common,
        compared=compared,
        changed=changed,
        overlap=overlap,
        items=items,
        items_before=items_before,
        top_share=top_share,
        top_share_before=top_share_before,
    )


def violations(comparison: NightComparison, thresholds: Thresholds | None = None) -> list[str]:
    """Reasons not to publish a night, one clause per violated threshold; empty if there is none.

    Args:
        comparison: What `compare_nights` returns.
        thresholds: None for the defaults.
    """
    thresholds = thresholds or Thresholds()
    found = []
    if comparison.top_share > thresholds.max_top_share:
        found.append(
            f"{comparison.top_share:.1%} of the rows contain the most frequent 1 % of the items, "
            f"more than {thresholds.max_top_share:.1%}"
        )
    if comparison.lists_before and comparison.lists < thresholds.min_lists * comparison.lists_before:
        found.append(
            f"{comparison.lists} lists against {comparison.lists_before} on {comparison.before}, "
            f"less than {thresholds.min_lists:.0%}; {comparison.lost} lists are missing"
        )
    if comparison.items_before and comparison.items < thresholds.min_items * comparison.items_before:
        found.append(
            f"{comparison.items} distinct items against {comparison.items_before} on {comparison.before}, "
            f"less than {thresholds.min_items:.0%}"
        )
    if comparison.overlap is not None and comparison.overlap < thresholds.min_overlap:
        found.append(
            f"{comparison.overlap:.1%} of a list's items were in the list of {comparison.before} on average, "
            f"less than {thresholds.min_overlap:.1%}"
        )
    return found


def _rows(table: DeltaTable, run_date: date, pi: str, key: str) -> pl.LazyFrame:
    """Columns `key`, `rank`, `item_id` of a partition."""
    partition = pl.scan_delta(table).filter(pl.col("run_date") == run_date, pl.col("pi") == pi)
    return partition.select(pl.col(key).alias("key"), "rank", "item_id")


def _keys(rows: pl.LazyFrame) -> pl.LazyFrame:
    """One row `key` per list."""
    return rows.filter(pl.col("rank") == 1).select("key")


def _totals(rows: pl.LazyFrame) -> tuple[int, int, float]:
    """Number of lists, of distinct items, and share of rows with the most frequent 1 % (at least one) of the items."""
    lists = _keys(rows).select(pl.len()).collect().item()
    counted = rows.group_by("item_id").agg(rows=pl.len()).collect(engine="streaming")
    rows_per_item = counted["rows"].sort(descending=True)
    if not len(rows_per_item):
        return lists, 0, 0.0
    most_frequent = rows_per_item.head(-(-len(rows_per_item) // 100))
    return lists, len(rows_per_item), int(most_frequent.sum()) / int(rows_per_item.sum())


def _changes(current: pl.LazyFrame, previous: pl.LazyFrame, one_in: int) -> tuple[int, float | None, float | None]:
    """Number of compared lists, share of changed lists, mean overlap, from one list in `one_in` of both nights."""
    sampled = pl.col("key").hash(seed=0) % one_in == 0
    lists = [
        rows.filter(sampled).group_by("key").agg(pl.col("item_id").sort_by("rank").alias(name))
        for rows, name in ((current, "items"), (previous, "before"))
    ]
    figures = (
        lists[0]
        .join(lists[1], on="key")
        .select(
            compared=pl.len(),
            changed=(pl.col("items") != pl.col("before")).mean(),
            overlap=(pl.col("items").list.set_intersection("before").list.len() / pl.col("items").list.len()).mean(),
        )
        .collect(engine="streaming")
    )
    return figures.row(0)
