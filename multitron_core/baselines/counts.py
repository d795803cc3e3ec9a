"""Baselines from counts: popularity of items, and co-visitation of items within sessions."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from multitron_core.baselines.scorer import BaselineScorer, click_table, sum_scores
from multitron_core.sessions.encoded import EncodedSessions


def popularity(train: EncodedSessions, *, listed: int = 100) -> BaselineScorer:
    """The most clicked items, the same list for every step. Ties are broken by item index.

    Args:
        train: Sessions whose clicks are counted.
        listed: Number of items that are scored.
    """
    top = (
        click_table(train)
        .group_by("item")
        .agg(pl.len().cast(pl.Float64).alias("score"))
        .sort("score", "item", descending=[True, False])
        .head(listed)
    )
    return lambda prefixes: prefixes.select("step").unique().join(top, how="cross")


def co_visitation(
    train: EncodedSessions,
    *,
    last: int = 5,
    own_items: Literal["excluded", "counted", "first"] = "first",
    neighbours: int = 50,
    max_pairs: int = 20_000_000,
) -> BaselineScorer:
    """Items from the same sessions as the last items of the prefix.

    The score of an item is the number of training sessions it shares with each distinct last item, summed over them.

    Args:
        train: Sessions whose pairs of items are counted.
        last: Number of last clicks of the prefix that are used; repeated items count once.
        own_items: How these last items are scored themselves: "excluded" never lists them, "counted" adds the number
            of sessions that contain them (the diagonal of the co-visitation matrix), "first" lists them before all
            other items.
        neighbours: Number of strongest neighbours that are kept per item.
        max_pairs: Approximate number of item pairs that are counted at a time; bounds memory.
    """
    table = _neighbours(train, neighbours, max_pairs)
    sessions_of = click_table(train).unique().group_by("item").agg(pl.len().cast(pl.Float64).alias("score"))

    def score(prefixes: pl.DataFrame) -> pl.DataFrame:
        recent = prefixes.filter(pl.col("back") < last).select("step", "item").unique()
        shared = recent.join(table, on="item").select("step", pl.col("neighbour").alias("item"), "score")
        if own_items == "excluded":
            return sum_scores(shared).join(recent, on=["step", "item"], how="anti")
        if own_items == "counted":
            recent_scores = recent.join(sessions_of, on="item").select("step", "item", "score")
        else:
            recent_scores = recent.with_columns(pl.lit(1.0 + len(train) * last).alias("score"))  # above every sum
        return sum_scores(pl.concat([shared, recent_scores]))

    return score


def _neighbours(train: EncodedSessions, kept: int, max_pairs: int) -> pl.DataFrame:
    """`item`, `neighbour`, `score` (number of sessions with both): the `kept` strongest per item, ties by index."""
    clicks = click_table(train).unique(maintain_order=True)
    sizes = clicks.group_by("session", maintain_order=True).len()["len"].cast(pl.Int64)
    part = (sizes**2).cum_sum() // max_pairs
    parts = clicks.with_columns(pl.Series("part", np.repeat(part.to_numpy(), sizes.to_numpy())))
    counts = []
    for chunk in parts.partition_by("part", include_key=False):
        pairs = chunk.join(chunk.rename({"item": "neighbour"}), on="session")
        counts.append(pairs.filter(pl.col("item") != pl.col("neighbour")).group_by("item", "neighbour").len("score"))
    return (
        pl.concat(counts)
        .group_by("item", "neighbour")
        .agg(pl.col("score").sum().cast(pl.Float64))
        .sort("item", "score", "neighbour", descending=[False, True, False])
        .filter(pl.int_range(pl.len()).over("item") < kept)
    )
