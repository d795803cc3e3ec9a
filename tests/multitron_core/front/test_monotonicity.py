"""Monotonicity, reversing losses and extremes of fronts that are written out."""

from __future__ import annotations

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.front.monotonicity import extremes, monotonicity, reversing_losses


def test_monotonicity_measures_differences_and_reversals() -> None:
    front = pl.DataFrame(
        {
            "pi_order": [1.0, 0.0, 0.5, 0.75],
            "click_loss": [4.0, 1.0, 3.0, 2.5],
            "order_loss": [1.0, 4.0, 3.0, 2.0],
            "order_recall_20": [None, 0.1, 0.2, 0.3],
        }
    )
    rows = {row["column"]: row for row in monotonicity(front).iter_rows(named=True)}
    assert set(rows) == {"click_loss", "order_loss"}
    assert rows["click_loss"]["right_way"] == pytest.approx(2 / 3)
    assert rows["click_loss"]["worst_reversal"] == pytest.approx(0.5)
    assert rows["order_loss"]["right_way"] == 1.0
    assert (rows["order_loss"]["first"], rows["order_loss"]["last"]) == (4.0, 1.0)


def test_reversing_losses_beyond_the_tolerance() -> None:
    front = pl.DataFrame(
        {
            "pi_order": [0.0, 0.25, 0.5, 0.75, 1.0],
            "click_loss": [9.0, 1.0, 1.9, 2.0, 1.5],  # the first is dominated, the last has no trained ranks
            "order_loss": [9.0, 3.0, 2.0, 2.5, 0.5],  # a reversal of half of its range of 1
            "dominated": [True, False, False, False, False],
            "ranks_trained": [True, True, True, True, False],
        }
    )
    assert reversing_losses(front)["column"].to_list() == ["order_loss"]
    assert reversing_losses(front, tolerance=0.5).is_empty()
    all_trained = front.with_columns(ranks_trained=pl.col("ranks_trained") | (pl.col("pi_order") == 1.0))
    assert reversing_losses(all_trained, tolerance=0.3)["column"].to_list() == ["click_loss"]
    assert reversing_losses(front.filter("dominated")).is_empty()


def test_extremes_compare_each_end_with_the_best_point() -> None:
    front = pl.DataFrame(
        {
            "pi_order": [0.0, 0.5, 1.0],
            "pi_click": [1.0, 0.5, 0.0],
            "click_loss": [2.0, 1.5, 4.0],
            "order_loss": [3.0, 2.0, 1.0],
            "click_recall_5": [0.5, 0.4, 0.1],
            "order_recall_5": [0.2, 0.9, 0.8],
        }
    )
    assert extremes(front).to_dicts() == [
        {"objective": "click", "loss": 2.0, "best_loss": 1.5, "recall": 0.5, "best_recall": 0.5},
        {"objective": "order", "loss": 1.0, "best_loss": 1.0, "recall": 0.8, "best_recall": 0.9},
    ]
    with pytest.raises(InputError, match=r"an end of the front is missing; where: the point with pi_order = 1"):
        extremes(front.head(2))
