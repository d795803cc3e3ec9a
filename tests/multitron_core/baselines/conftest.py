"""Six training sessions whose counts can be read off, and the scores of a baseline for one prefix."""

from __future__ import annotations

import numpy as np
import polars as pl

from multitron_core.baselines.scorer import BaselineScorer
from multitron_core.sessions.encoded import EncodedSessions


def sessions(*clicks: list[int]) -> EncodedSessions:
    """Sessions of item indices without orders."""
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in clicks])]).astype(np.int64)
    items = np.array([item for session in clicks for item in session], dtype=np.int32)
    ids = pl.Series([f"s{i}" for i in range(len(clicks))])
    return EncodedSessions(ids, offsets, items, np.zeros(len(items), dtype=bool), "hash")


TRAIN = sessions([1, 2], [1, 2, 2], [1, 3], [3, 4], [5, 1, 2], [4, 4])
# Clicks per item: 1: 4, 2: 4, 3: 2, 4: 3, 5: 1. Sessions per pair: (1, 2): 3, (1, 3), (3, 4), (1, 5), (2, 5): 1.


def scores(scorer: BaselineScorer, *prefix: int) -> dict[int, float]:
    """The scores for a prefix by item, in descending order."""
    frame = pl.DataFrame(
        {"step": [7] * len(prefix), "item": prefix, "back": range(len(prefix) - 1, -1, -1)},
        schema={"step": pl.Int64, "item": pl.Int32, "back": pl.Int32},
    )
    scored = scorer(frame).sort("score", "item", descending=[True, False])
    assert scored["step"].unique().to_list() in ([7], [])
    assert scored["item"].is_unique().all()
    return dict(zip(scored["item"].to_list(), scored["score"].to_list(), strict=True))
