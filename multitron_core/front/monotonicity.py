"""Does a front follow the preference? Checks that each loss falls as its weight rises."""

from __future__ import annotations

import numpy as np
import polars as pl

from multitron_core.errors import InputError

EXPECTED = {"click_loss": "rising", "click_recall": "falling", "order_loss": "falling", "order_recall": "rising"}
"""Which way losses and recalls should go as pi_order rises."""


def monotonicity(front: pl.DataFrame) -> pl.DataFrame:
    """How steadily the columns of `EXPECTED` follow the weight on orders.

    Args:
        front: what `evaluate_front` gives.

    Returns:
        `column`, `expected`; `first` and `last`, its values at the smallest and the largest weight; `right_way`, the
        share of steps from one point to the next that go the expected way or nowhere; `worst_reversal`, the furthest
        that the column falls back behind a point already reached, in its own unit (0: it never does).
    """
    front = front.sort("pi_order")
    rows = []
    for start, expected in EXPECTED.items():
        for column in front.columns:
            if not column.startswith(start) or front[column].null_count():
                continue
            values = front[column].to_numpy() * (1.0 if expected == "rising" else -1.0)
            steps = np.diff(values)
            rows.append(
                {
                    "column": column,
                    "expected": expected,
                    "first": float(front[column][0]),
                    "last": float(front[column][-1]),
                    "right_way": float((steps >= 0.0).mean()) if len(steps) else 1.0,
                    "worst_reversal": float((np.maximum.accumulate(values) - values).max()),
                }
            )
    return pl.DataFrame(rows)


def reversing_losses(front: pl.DataFrame, *, tolerance: float = 0.1) -> pl.DataFrame:
    """The losses that do not follow the preference: rows of `monotony` that fall back too far.

    Only points count that no other dominates and whose ranks were trained: the first points of a front are often
    dominated, in the paper's pictures too, and nobody should choose them.

    Args:
        front: what `evaluate_front` gives.
        tolerance: how far a loss may fall back, as a share of its range over these points.

    Returns:
        As `monotony`; empty where both losses go the way that they should.
    """
    worthwhile = front.filter(~pl.col("dominated") & pl.col("ranks_trained"))
    if worthwhile.is_empty():
        return monotonicity(front).clear()
    rows = monotonicity(worthwhile).filter(pl.col("column").str.ends_with("_loss"))
    ranges = [float(np.ptp(worthwhile[name].to_numpy())) for name in rows["column"]]
    return rows.filter(pl.col("worst_reversal") > tolerance * pl.Series(ranges, dtype=pl.Float64))


def extremes(front: pl.DataFrame) -> pl.DataFrame:
    """Whether the ends of a front, where one objective has all the weight, are best at their own objective.

    Args:
        front: what `evaluate_front` gives, its ends included.

    Returns:
        A row an objective: `objective`; `loss`, its loss at its own end; `best_loss` of all points; `recall` and
        `best_recall`, the same of its recall.
    """
    k = _list_length(front)
    rows = []
    for name in _objectives(front):
        end = front.filter(pl.col(f"pi_{name}") == 1.0)
        if end.is_empty():
            raise InputError(
                "the front lacks an end",
                where=f"a point with pi_{name} = 1",
                hint="measure the ends of the front too",
            )
        recall = front[f"{name}_recall_{k}"]
        rows.append(
            {
                "objective": name,
                "loss": end[f"{name}_loss"][0],
                "best_loss": front[f"{name}_loss"].min(),
                "recall": end[recall.name][0],
                "best_recall": recall.max(),
            }
        )
    return pl.DataFrame(rows)


def _objectives(front: pl.DataFrame) -> list[str]:
    return [name.removeprefix("pi_") for name in reversed(front.columns) if name.startswith("pi_")]


def _list_length(front: pl.DataFrame) -> str:
    return next(name.removeprefix("click_recall_") for name in front.columns if name.startswith("click_recall_"))
