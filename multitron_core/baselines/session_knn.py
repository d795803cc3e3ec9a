"""Session k-nearest neighbours: items of the most similar training sessions."""

from __future__ import annotations

import polars as pl

from multitron_core.baselines.scorer import Scorer, _clicks, _summed
from multitron_core.sessions.encoded import EncodedSessions


def session_neighbours(
    train: EncodedSessions, *, last: int = 10, candidates: int = 200, nearest: int = 100, own_items: bool = True
) -> Scorer:
    """What the most similar recent sessions hold.

    Similarity of a session to the prefix: the sum over shared items of the weight of their last click in the prefix,
    1 for the last click, falling in equal steps to 1/`last`, divided by the root of the session's distinct items. An
    item's score is the sum of the similarities of the nearest sessions that hold it.

    Args:
        train: the sessions to search, in chronological order.
        last: how many of the prefix's last clicks count.
        candidates: the most recent sessions of each item that are considered.
        nearest: sessions that vote.
        own_items: whether the prefix's own items may be listed.
    """
    clicks = _clicks(train).unique()
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
        voting = similar.filter(pl.int_range(pl.len()).over("step") < nearest)
        scored = _summed(voting.join(clicks, on="session").select("step", "item", pl.col("similarity").alias("score")))
        return scored if own_items else scored.join(recent, on=["step", "item"], how="anti")

    return score
