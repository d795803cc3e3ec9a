"""Runs of rows: starts and row numbers."""

from __future__ import annotations

import numpy as np
import polars as pl

from multitron_core.utils.ragged import ranges, run_starts


def test_run_starts_are_where_the_value_changes() -> None:
    assert run_starts(pl.Series(["b", "b", "a", "b", "b"])).tolist() == [0, 2, 3]
    assert run_starts(pl.Series([], dtype=pl.String)).tolist() == []


def test_ranges_concatenates_runs_in_the_given_order() -> None:
    assert ranges(np.array([5, 0, 9]), np.array([2, 3, 0])).tolist() == [5, 6, 0, 1, 2]
    assert ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
