"""What changed tonight: a night's lists beside those of the night published before, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable

from multitron_core.errors import InputError
from multitron_core.lake.publication import publications, published_night
from multitron_core.lake.replace_where import checked_date
from multitron_core.preference.keys import pi_key

if TYPE_CHECKING:
    from multitron_core.lake.lake import Lake

COMPARED_LISTS = 100_000  # enough for shares to three digits, few enough for memory to stay flat


@dataclass(frozen=True)
class NightComparison:
    """One partition beside the one published for the same preference before; None where there is nothing to compare."""

    table: str
    run_date: date
    pi: str
    before: date | None  # the night that it is compared with
    lists: int
    lists_before: int | None
    gained: int | None  # lists that the night before does not have
    lost: int | None  # lists that only the night before has
    compared: int  # lists of both nights that the next two figures are taken from
    changed: float | None  # share of them that are not the same items in the same order
    overlap: float | None  # mean share of a list's items that were in the list before, in any order
    items: int  # distinct items shown (catalogue coverage)
    items_before: int | None
    top_share: float  # share of all rows that the most shown 1 % of the shown items take
    top_share_before: float | None


@dataclass(frozen=True)
class Thresholds:
    """When a night looks wrong."""

    min_lists: float = 0.7  # of the lists of the night before
    min_items: float = 0.5  # of the items shown the night before
    min_overlap: float = 0.05  # mean share of items that stay
    max_top_share: float = 0.9  # of the rows taken by the most shown 1 % of items


def compare_nights(
    lake: Lake,
    run_date: date | str,
    pi: str,
    *,
    table: str = "recommendations",
    delta_version: int | None = None,
    compared_lists: int = COMPARED_LISTS,
) -> NightComparison:
    """A partition beside the latest one published for the same preference before it.

    Sessions, items and shares of rows are counted over all rows. What changed within the lists is measured on a
    sample of the lists that both nights have, drawn by a hash of the list's key.

    Args:
        lake: the lake.
        run_date, pi: the partition, published or not.
        table: its table of ranked lists.
        delta_version: the version to read it at, None for the newest.
        compared_lists: about so many lists are compared item by item.

    Raises:
        InputError: the partition is not there.
    """
    run_date, pi = checked_date(run_date), pi_key(pi)
    opened = lake.open(table, delta_version)
    key = lake.contract(table, opened).list_key
    if key is None:
        raise InputError("not a table of ranked lists", found=table, hint="compare a table of recommendations")
    tonight = _rows(opened, run_date, pi, key)
    lists, items, top_share = _figures(tonight)
    if not lists:
        raise InputError(
            "there is no such partition",
            where=opened.table_uri,
            found={"run_date": run_date.isoformat(), "pi": pi},
            hint="score this partition first",
        )
    earlier = publications(lake, table).filter(pl.col("pi") == pi, pl.col("run_date") < run_date)
    if earlier.is_empty():
        return NightComparison(
            table, run_date, pi, None, lists, None, None, None, 0, None, None, items, None, top_share, None
        )
    opened, before = published_night(lake, table, pi, earlier["run_date"].max())  # type: ignore[arg-type]
    last_night = _rows(opened, before, pi, key)
    lists_before, items_before, top_share_before = _figures(last_night)
    common = _keys(tonight).join(_keys(last_night), on="key", how="semi").select(pl.len()).collect().item()
    compared, changed, overlap = _changes(tonight, last_night, max(1, common // compared_lists))
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
    """Why a night should not be published, one sentence each; empty when it looks right."""
    thresholds = thresholds or Thresholds()
    said = []
    if comparison.top_share > thresholds.max_top_share:
        said.append(
            f"the most shown 1 % of the items take {comparison.top_share:.1%} of the rows, "
            f"more than {thresholds.max_top_share:.1%}"
        )
    if comparison.lists_before and comparison.lists < thresholds.min_lists * comparison.lists_before:
        said.append(
            f"{comparison.lists} lists against {comparison.lists_before} on {comparison.before}, "
            f"less than {thresholds.min_lists:.0%}: {comparison.lost} are lost"
        )
    if comparison.items_before and comparison.items < thresholds.min_items * comparison.items_before:
        said.append(
            f"{comparison.items} items are shown against {comparison.items_before} on {comparison.before}, "
            f"less than {thresholds.min_items:.0%}"
        )
    if comparison.overlap is not None and comparison.overlap < thresholds.min_overlap:
        said.append(
            f"{comparison.overlap:.1%} of the items of a list were there on {comparison.before}, "
            f"less than {thresholds.min_overlap:.1%}"
        )
    return said


def _rows(table: DeltaTable, run_date: date, pi: str, key: str) -> pl.LazyFrame:
    """`key`, `rank`, `item_id` of a partition."""
    wanted = pl.scan_delta(table).filter(pl.col("run_date") == run_date, pl.col("pi") == pi)
    return wanted.select(pl.col(key).alias("key"), "rank", "item_id")


def _keys(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.filter(pl.col("rank") == 1).select("key")


def _figures(rows: pl.LazyFrame) -> tuple[int, int, float]:
    """Lists, distinct items, and the share of the rows that the most shown 1 % of those items (at least one) take."""
    lists = _keys(rows).select(pl.len()).collect().item()
    shown = rows.group_by("item_id").agg(rows=pl.len()).collect(engine="streaming")["rows"].sort(descending=True)
    if not len(shown):
        return lists, 0, 0.0
    most_shown = shown.head(-(-len(shown) // 100))
    return lists, len(shown), int(most_shown.sum()) / int(shown.sum())


def _changes(tonight: pl.LazyFrame, last_night: pl.LazyFrame, one_in: int) -> tuple[int, float | None, float | None]:
    """Lists of both nights that were compared, the share of them that changed, their mean overlap."""
    sampled = pl.col("key").hash(seed=0) % one_in == 0
    lists = [
        rows.filter(sampled).group_by("key").agg(pl.col("item_id").sort_by("rank").alias(name))
        for rows, name in ((tonight, "items"), (last_night, "before"))
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
