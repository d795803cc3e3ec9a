"""Session k-nearest neighbours: items of the most similar training sessions."""

from __future__ import annotations

import polars as pl

from multitron_core.baselines.scorer import BaselineScorer, click_table, sum_scores
from multitron_core.sessions.encoded import EncodedSessions


def session_neighbours(
    train: EncodedSessions, *, last: int = 10, candidates: int = 200, nearest: int = 100, own_items: bool = True
) -> BaselineScorer:
    """Items of the training sessions that are most similar to the prefix.

    The similarity of a session is a sum over the items that it shares with the prefix, divided by the square root of
    the session's number of distinct items. Each shared item adds the weight of its last click in the prefix: 1 for the
    last click, falling linearly to 1/`last`. The score of an item is the summed similarity of the nearest sessions that
    contain it.

    Args:
        train: Sessions to search, in chronological order.
        last: Number of last clicks of the prefix that are used.
        candidates: Number of most recent sessions per item that are candidates.
        nearest: Number of nearest sessions that contribute to the scores.
        own_items: Whether items of the prefix may be listed.
    """
    clicks = click_table(train).unique()
    sizes = clicks.group_by("session").agg(pl.len().sqrt().alias("norm"))
    recent_of = (
        clicks.sort("item", "session", descending=[False, True])
        .filter(pl.int_range(pl.len()).over("item") < candidates)
        .join(sizes, on="session")
    )

    def score(prefixes: pl.DataFrame) -> pl.DataFrame:
        recent = (
            prefixes.filter(pl.col("back") < last)
            .group_by("step", "item")
            .agg((1.0 - pl.col("back").min() / last).alias("weight"))
        )
        similar = (
            recent.join(recent_of, on="item")
            .group_by("step", "session")
            .agg((pl.col("weight") / pl.col("norm")).sum().alias("similarity"))
            .sort("step", "similarity", "session", descending=[False, True, True])
        )
        nearest_sessions = similar.filter(pl.int_range(pl.len()).over("step") < nearest)
        scored = sum_scores(
            nearest_sessions.join(clicks, on="session").select("step", "item", pl.col("similarity").alias("score"))
        )
        return scored if own_items else scored.join(recent, on=["step", "item"], how="anti")

    return score
