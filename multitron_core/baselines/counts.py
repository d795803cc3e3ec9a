"""Baselines that count: popularity, and co-visitation of items within sessions."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from multitron_core.baselines.scorer import Scorer, _clicks, _summed
from multitron_core.sessions.encoded import EncodedSessions

_PAIRS_AT_A_TIME = 20_000_000


def popularity(train: EncodedSessions, *, listed: int = 100) -> Scorer:
    """The items that were clicked most, the same for everybody; equal counts by index.

    Args:
        train: the sessions that are counted.
        listed: items that are scored.
    """
    top = (
        _clicks(train)
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
) -> Scorer:
    """Items seen in the same sessions as the prefix's last items: score = sum over those of the sessions they share.

    Args:
        train: the sessions that are counted.
        last: how many of the prefix's last clicks count, a repeated item once.
        own_items: what becomes of those items themselves. "excluded" never lists them, "counted" gives them the
            sessions they are in (the diagonal of the co-visitation matrix), "first" lists them before all others.
        neighbours: the strongest neighbours that are kept an item.
    """
    table = _neighbours(train, neighbours)
    sessions_of = _clicks(train).unique().group_by("item").agg(pl.len().cast(pl.Float64).alias("score"))

    def score(prefixes: pl.DataFrame) -> pl.DataFrame:
        recent = prefixes.filter(pl.col("back") < last).select("step", "item").unique()
        shared = recent.join(table, on="item").select("step", pl.col("neighbour").alias("item"), "score")
        if own_items == "excluded":
            return _summed(shared).join(recent, on=["step", "item"], how="anti")
        if own_items == "counted":
            own = recent.join(sessions_of, on="item").select("step", "item", "score")
        else:
            own = recent.with_columns(pl.lit(1.0 + len(train) * last).alias("score"))  # above every sum
        return _summed(pl.concat([shared, own]))

    return score


def _neighbours(train: EncodedSessions, kept: int) -> pl.DataFrame:
    """`item`, `neighbour`, `score` (sessions that hold both), the `kept` strongest an item, equal ones by index."""
    clicks = _clicks(train).unique(maintain_order=True)
    sizes = clicks.group_by("session", maintain_order=True).len()["len"].cast(pl.Int64)
    part = (sizes**2).cum_sum() // _PAIRS_AT_A_TIME  # sessions whose pairs fit in memory together
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
