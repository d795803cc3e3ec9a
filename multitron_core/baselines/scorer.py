"""The interface of a baseline, and sums over the clicks of a session that several baselines need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from multitron_core.sessions.encoded import EncodedSessions

Scorer = Callable[[pl.DataFrame], pl.DataFrame]
"""Prefixes (`step` Int64, `item` Int32, `back` Int32: clicks between it and the step's end, 0 for the last one) to
scored items (`step` Int64, `item` Int32, `score` Float64), at most one row a step and item."""


def _clicks(sessions: EncodedSessions) -> pl.DataFrame:
    """`session` Int32, `item` Int32, a row a click."""
    rows = np.repeat(np.arange(len(sessions), dtype=np.int32), sessions.lengths)
    return pl.DataFrame({"session": rows, "item": np.asarray(sessions.items, dtype=np.int32)})


def _summed(scored: pl.DataFrame) -> pl.DataFrame:
    return scored.group_by("step", "item").agg(pl.col("score").sum())
