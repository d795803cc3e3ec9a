"""Runs of consecutive rows: where they start, and the row numbers of selected runs."""

from __future__ import annotations

import numpy as np
import polars as pl


def run_starts(values: pl.Series) -> np.ndarray:
    """Row numbers at which a new value starts.

    Args:
        values: Any type, without nulls; equal values that are adjacent form a run.

    Returns:
        int64 [runs].
    """
    return np.flatnonzero((values != values.shift(1)).fill_null(True).to_numpy())


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Row numbers of several runs, concatenated.

    Args:
        starts: int64 [runs], first row of each run.
        lengths: int64 [runs], number of rows of each run.

    Returns:
        int64 [sum of lengths]: starts[0], starts[0] + 1, ..., starts[1], ...
    """
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())
