"""What a partition of `recommendations` promises, read back from the table and checked.

The writer refuses a wrong row before the commit; these checks look at what readers would get, and block what follows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import dagster as dg
import polars as pl

from multitron_core.lake import Lake
from multitron_core.vocabulary import Vocabulary
from orchestration.partitions import Partitions

CHECKS = {
    "rows_present": "The partition has rows: k for each session.",
    "ranks_dense": "Each list has the ranks 1 to k, each once.",
    "items_known": "Every item is in the live model's vocabulary.",
    "items_distinct": "No item stands twice in a list.",
    "scores_falling": "Scores are finite and do not rise with the rank.",
}


def recommendation_checks(partitions: Partitions) -> list[dg.AssetCheckSpec]:
    """The blocking checks of `recommendations`, a night each."""
    return [
        dg.AssetCheckSpec(
            name, asset="recommendations", description=description, blocking=True, partitions_def=partitions.nights
        )
        for name, description in CHECKS.items()
    ]


def run_checks(lake: Lake, day: dt.date, pi: str, *, k: int, vocabulary: Vocabulary) -> Iterator[dg.AssetCheckResult]:
    """Read the partition once, streaming, and judge it.

    Args:
        lake: where the table is.
        day, pi: the partition.
        k: items a list.
        vocabulary: the items that may occur.
    """
    rows = pl.scan_delta(lake.open("recommendations")).filter(pl.col("run_date") == day, pl.col("pi") == pi)
    lists = (
        rows.join(vocabulary.to_frame().lazy(), on="item_id", how="left")
        .group_by("session_id")
        .agg(
            items=pl.len(),
            dense=(pl.col("rank").sort() == pl.int_range(1, pl.len() + 1, dtype=pl.Int16)).all() & (pl.len() == k),
            unknown=pl.col("item_index").is_null().sum(),
            repeated=pl.len() - pl.col("item_id").n_unique(),
            falling=pl.col("score").is_finite().all()
            & (pl.col("score").sort_by("rank").diff().fill_null(0.0) <= 0.0).all(),
        )
    )
    found = (
        lists.select(
            sessions=pl.len(),
            rows=pl.col("items").sum(),
            not_dense=(~pl.col("dense")).sum(),
            unknown=pl.col("unknown").sum(),
            repeated=pl.col("repeated").sum(),
            not_falling=(~pl.col("falling")).sum(),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )
    partition = f"{day}|{pi}"

    def result(name: str, passed: bool, **metadata: int) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            asset_key="recommendations", check_name=name, passed=passed, metadata={"partition": partition, **metadata}
        )

    yield result(
        "rows_present", found["rows"] == k * found["sessions"] > 0, rows=found["rows"], sessions=found["sessions"]
    )
    yield result("ranks_dense", found["not_dense"] == 0, lists_not_dense=found["not_dense"])
    yield result("items_known", found["unknown"] == 0, unknown_items=found["unknown"])
    yield result("items_distinct", found["repeated"] == 0, repeated_items=found["repeated"])
    yield result("scores_falling", found["not_falling"] == 0, lists_not_falling=found["not_falling"])
