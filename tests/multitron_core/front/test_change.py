"""Changes along fronts, on measurements that are written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.front.change import changes, front_change, non_dominated_ends, session_sums
from multitron_core.front.measurement import FrontMeasurement
from multitron_core.training.config import TrainingConfig


def measurement(
    ranks: list[list[int]], ordered: list[bool], losses: list[tuple[float, float]], **config: Any
) -> FrontMeasurement:
    """Three sessions of two steps; `losses` holds one pair per point, the same for all steps."""
    points = len(losses)
    pi_order = np.linspace(0.0, 1.0, points)
    return FrontMeasurement(
        pi=np.column_stack([1.0 - pi_order, pi_order]),
        steps=pl.DataFrame({"session": [0, 0, 4, 4, 7, 7], "target": 1, "ordered": ordered, "last": [False, True] * 3}),
        ranks=np.array(ranks, dtype=np.int32),
        losses=np.repeat(np.array(losses, dtype=np.float32)[:, None], 6, axis=1),
        reference=(9.0, 9.0),
        objectives=TrainingConfig(**{"order_loss": "ordered_softmax", **config}).objectives(("click", "order")),
    )


def test_front_change_between_the_non_dominated_ends() -> None:
    measured = measurement(
        # The first point is dominated, so its hits do not count.
        ranks=[[1, 1, 1, 1, 1, 1], [1, 2, 3, 9, 9, 9], [1, 1, 1, 1, 1, 1], [9, 1, 1, 9, 9, 1]],
        ordered=[True, False, False, True, False, True],
        losses=[(2.0, 5.0), (1.0, 4.0), (1.5, 3.0), (2.0, 2.0)],
    )
    rows = {row["column"]: row for row in front_change(measured, k=3).iter_rows(named=True)}
    assert list(rows) == ["click_loss", "order_loss", "click_recall_3", "order_recall_3", "recall_x_density"]
    found = {name: (row["first"], row["last"], row["change"]) for name, row in rows.items()}
    assert found["click_loss"] == pytest.approx((1.0, 2.0, 1.0))
    assert found["order_loss"] == pytest.approx((4.0, 2.0, -2.0))
    assert found["click_recall_3"] == pytest.approx((3 / 6, 3 / 6, 0.0))
    assert found["order_recall_3"] == pytest.approx((1 / 3, 1 / 3, 0.0))  # one hit lost, another gained
    assert found["recall_x_density"] == pytest.approx((1 / 6, 1 / 6, 0.0))
    assert (rows["click_loss"]["low"], rows["click_loss"]["high"]) == pytest.approx(
        (1.0, 1.0)
    )  # the same change in all sessions
    assert rows["order_recall_3"]["low"] < 0.0 < rows["order_recall_3"]["high"]  # opposite changes in two sessions


def test_front_change_of_every_session_has_a_tight_interval() -> None:
    measured = measurement([[9, 1] * 3, [1, 1] * 3], [True, False] * 3, [(1.0, 2.0), (2.0, 1.0)])
    order_recall = front_change(measured).row(3, named=True)
    # Rank 9 is a hit in a list of 20.
    assert (order_recall["change"], order_recall["low"], order_recall["high"]) == (0.0, 0.0, 0.0)
    order_recall = front_change(measured, k=5).row(3, named=True)
    assert (order_recall["change"], order_recall["low"], order_recall["high"]) == (1.0, 1.0, 1.0)


def test_front_change_is_0_if_one_point_dominates_all() -> None:
    measured = measurement([[1] * 6, [9] * 6], [True] * 6, [(1.0, 1.0), (2.0, 2.0)])
    found = front_change(measured, k=5)
    assert found["change"].to_list() == [0.0] * 5
    assert found["first"].to_list() == found["last"].to_list() == [1.0] * 5


def test_front_change_ignores_points_without_trained_ranks() -> None:
    """At pi_order = 1 the binary loss does not train ranks, so its lists do not count."""
    ranks = [[9] * 6, [1, 9] * 3, [1] * 6]
    ordered, losses = [True] * 6, [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]
    assert front_change(measurement(ranks, ordered, losses), k=5).row(3, named=True)["last"] == 1.0
    assert front_change(measurement(ranks, ordered, losses, order_loss="bce"), k=5).row(3, named=True)["last"] == 0.5


def test_non_dominated_ends_refuse_a_front_without_any() -> None:
    measured = measurement([[1] * 6, [1] * 6], [True] * 6, [(2.0, 2.0), (1.0, 1.0)], order_loss="bce")
    with pytest.raises(InputError, match="no non-dominated point with trained ranks"):
        non_dominated_ends(measured)


def test_front_change_without_orders_has_no_order_recall() -> None:
    measured = measurement([[1] * 6, [9] * 6], [False] * 6, [(1.0, 2.0), (2.0, 1.0)])
    order_recall = front_change(measured, k=5).row(3, named=True)
    assert [order_recall[name] for name in ("first", "last", "change", "low", "high")] == [None] * 5


def test_changes_of_the_mean_of_two_models() -> None:
    """One model gains a hit where the other loses one, so their mean does not change in any resample."""
    ends = [(1.0, 2.0), (2.0, 1.0)]
    gains = measurement([[9] * 6, [1, 9] * 3], [True, True] * 3, ends)
    loses = measurement([[1, 9] * 3, [9] * 6], [True, True] * 3, ends)
    found = changes([session_sums(each, k=5) for each in (gains, loses)], k=5).row(3, named=True)
    assert [found[name] for name in ("first", "last", "change", "low", "high")] == [0.25, 0.25, 0.0, 0.0, 0.0]
    alone = changes([session_sums(gains, k=5)], k=5)
    assert alone.equals(front_change(gains, k=5))
    assert alone.row(3, named=True)["change"] == 0.5


def test_session_sums_refuse_ranks_beyond_the_exact() -> None:
    with pytest.raises(InputError, match="list length is out of range"):
        session_sums(measurement([[1] * 6], [True] * 6, [(1.0, 1.0)]), k=1000)
