"""The interface of a baseline, and sums over clicks that several baselines use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from multitron_core.sessions.encoded import EncodedSessions

BaselineScorer = Callable[[pl.DataFrame], pl.DataFrame]
"""Maps session prefixes to scored items.

Input: one row per click of each prefix, `step` Int64, `item` Int32, `back` Int32 (number of clicks after this one in
the prefix, 0 for the last click). Output: `step` Int64, `item` Int32, `score` Float64, at most one row per step and
item.
"""


def click_table(sessions: EncodedSessions) -> pl.DataFrame:
    """One row per click: `session` Int32 (row of `sessions`), `item` Int32 (1-based item index)."""
    rows = np.repeat(np.arange(len(sessions), dtype=np.int32), sessions.lengths)
    return pl.DataFrame({"session": rows, "item": np.asarray(sessions.items, dtype=np.int32)})


def sum_scores(scored: pl.DataFrame) -> pl.DataFrame:
    """Sum `score` per `step` and `item`."""
    return scored.group_by("step", "item").agg(pl.col("score").sum())
