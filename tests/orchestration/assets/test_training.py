from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from multitron_core.front.bootstrap import Interval
from multitron_core.front.volume import FrontVolume
from orchestration.assets.training import front_checks
from orchestration.lifecycle.model import MeasuredFront


def measured(*, order_loss: list[float], ranks_trained: list[bool], required: float = 0.3) -> MeasuredFront:
    """A front of three points, whose click loss rises with the weight on orders."""
    table = pl.DataFrame(
        {
            "pi_order": [0.0, 0.5, 1.0],
            "click_loss": [1.0, 2.0, 3.0],
            "order_loss": order_loss,
            "click_recall_20": [0.4, 0.35, 0.5],
            "order_recall_20": [0.4, 0.5, 0.6],
            "dominated": [False] * 3,
            "ranks_trained": ranks_trained,
        }
    )
    volume = FrontVolume(Interval(0.5, 0.4, 0.6, 0.95), Interval(1.0, 0.9, 1.1, 0.95), (4.0, 4.0))
    return MeasuredFront(Path(), "v1", None, table, table, volume, required, 0)  # type: ignore[arg-type]


def passed(front: MeasuredFront) -> dict[str, bool]:
    return {check.check_name: check.passed for check in front_checks(front) if check.check_name}


def test_front_checks_pass_for_a_trade_off() -> None:
    assert set(passed(measured(order_loss=[3.0, 2.0, 1.0], ranks_trained=[True] * 3)).values()) == {True}


def test_front_checks_ignore_points_with_untrained_ranks() -> None:
    front = measured(order_loss=[3.0, 2.0, 1.0], ranks_trained=[True, True, False], required=0.45)
    assert passed(front) == {"beats_baseline": False, "follows_preference": True, "scored_ranks_trained": False}
    named = {check.check_name: check.metadata for check in front_checks(front)}["scored_ranks_trained"]
    assert named["scored but not trained"].value == "1.00"


def test_front_checks_warn_of_a_reversing_order_loss() -> None:
    front = measured(order_loss=[3.0, 1.0, 2.0], ranks_trained=[True] * 3)
    assert passed(front) == {"beats_baseline": True, "follows_preference": False, "scored_ranks_trained": True}


@pytest.mark.parametrize("required", [0.5, 0.6])
def test_front_checks_require_more_than_the_baseline(required: float) -> None:
    front = measured(order_loss=[3.0, 2.0, 1.0], ranks_trained=[True] * 3, required=required)
    assert not passed(front)["beats_baseline"]
