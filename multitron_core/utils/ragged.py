"""Rows that belong together in runs: where runs begin, and the rows of chosen runs."""

from __future__ import annotations

import numpy as np
import polars as pl


def run_starts(values: pl.Series) -> np.ndarray:
    """int64 [runs]: the rows at which another value begins; `values` has no nulls."""
    return np.flatnonzero((values != values.shift(1)).fill_null(True).to_numpy())


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The rows of runs, one run after the other.

    Args:
        starts: int64 [runs], the first row of each.
        lengths: int64 [runs].

    Returns:
        int64 [sum of lengths]: starts[0], starts[0] + 1, ..., starts[1], ...
    """
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())
