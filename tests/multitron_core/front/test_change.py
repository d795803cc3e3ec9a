"""What a front changes, on measurements that are written out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.front.change import changes, front_change, session_sums
from multitron_core.front.measurement import FrontMeasurement
from multitron_core.training.config import TrainingConfig


def measurement(
    ranks: list[list[int]], ordered: list[bool], losses: list[tuple[float, float]], order_loss: str = "ordered_softmax"
) -> FrontMeasurement:
    """Three sessions of two steps; `losses` are those of every step, a pair a point."""
    points = len(losses)
    pi_order = np.linspace(0.0, 1.0, points)
    return FrontMeasurement(
        pi=np.column_stack([1.0 - pi_order, pi_order]),
        steps=pl.DataFrame({"session": [0, 0, 4, 4, 7, 7], "target": 1, "ordered": ordered, "last": [False, True] * 3}),
        ranks=np.array(ranks, dtype=np.int32),
        losses=np.repeat(np.array(losses, dtype=np.float32)[:, None], 6, axis=1),
        reference=(9.0, 9.0),
        objectives=TrainingConfig(order_loss=order_loss).objectives(("click", "order")),
    )


def test_the_change_between_the_ends_that_are_not_dominated() -> None:
    measured = measurement(
        # the first point is dominated: its hits do not count
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
    assert (rows["click_loss"]["low"], rows["click_loss"]["high"]) == pytest.approx((1.0, 1.0))  # all sessions agree
    assert rows["order_recall_3"]["low"] < 0.0 < rows["order_recall_3"]["high"]  # the sessions do not


def test_a_gain_in_every_session_is_sure() -> None:
    measured = measurement([[9, 1] * 3, [1, 1] * 3], [True, False] * 3, [(1.0, 2.0), (2.0, 1.0)])
    order_recall = front_change(measured).row(3, named=True)
    assert (order_recall["change"], order_recall["low"], order_recall["high"]) == (
        0.0,
        0.0,
        0.0,
    )  # 9 is in a list
    order_recall = front_change(measured, k=5).row(3, named=True)
    assert (order_recall["change"], order_recall["low"], order_recall["high"]) == (1.0, 1.0, 1.0)


def test_a_point_that_dominates_all_changes_nothing() -> None:
    measured = measurement([[1] * 6, [9] * 6], [True] * 6, [(1.0, 1.0), (2.0, 2.0)])
    found = front_change(measured, k=5)
    assert found["change"].to_list() == [0.0] * 5
    assert found["first"].to_list() == found["last"].to_list() == [1.0] * 5


def test_a_point_whose_ranks_nothing_trained_is_no_end() -> None:
    """At pi_order = 1 the binary loss trains no rank: what its lists gain says nothing."""
    ranks = [[9] * 6, [1, 9] * 3, [1] * 6]
    arguments = (ranks, [True] * 6, [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)])
    assert front_change(measurement(*arguments), k=5).row(3, named=True)["last"] == 1.0
    assert front_change(measurement(*arguments, order_loss="bce"), k=5).row(3, named=True)["last"] == 0.5


def test_a_front_without_a_worthwhile_point_is_refused() -> None:
    measured = measurement([[1] * 6, [1] * 6], [True] * 6, [(2.0, 2.0), (1.0, 1.0)], order_loss="bce")
    with pytest.raises(InputError, match="dominated or has ranks that nothing trained"):
        front_change(measured)


def test_without_orders_there_is_no_order_recall() -> None:
    measured = measurement([[1] * 6, [9] * 6], [False] * 6, [(1.0, 2.0), (2.0, 1.0)])
    order_recall = front_change(measured, k=5).row(3, named=True)
    assert [order_recall[name] for name in ("first", "last", "change", "low", "high")] == [None] * 5


def test_the_mean_of_two_models() -> None:
    """One gains a hit where the other loses one: nothing changes in their mean, whichever sessions are drawn."""
    ends = [(1.0, 2.0), (2.0, 1.0)]
    gains = measurement([[9] * 6, [1, 9] * 3], [True, True] * 3, ends)
    loses = measurement([[1, 9] * 3, [9] * 6], [True, True] * 3, ends)
    found = changes([session_sums(each, k=5) for each in (gains, loses)], k=5).row(3, named=True)
    assert [found[name] for name in ("first", "last", "change", "low", "high")] == [0.25, 0.25, 0.0, 0.0, 0.0]
    alone = changes([session_sums(gains, k=5)], k=5)
    assert alone.equals(front_change(gains, k=5))
    assert alone.row(3, named=True)["change"] == 0.5


def test_lists_longer_than_ranks_are_exact() -> None:
    with pytest.raises(InputError, match="no such length"):
        front_change(measurement([[1] * 6], [True] * 6, [(1.0, 1.0)]), k=1000)
