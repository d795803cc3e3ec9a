"""Columns and aggregation of front tables."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.front.evaluation import (
    evaluate_front,
    evaluate_points,
    front_preferences,
    front_table,
    front_volume,
)
from multitron_core.front.measurement import MAX_RANK, measure_front
from multitron_core.front.volume import hypervolume
from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.spacing import lattice_preferences, spaced_preferences
from multitron_core.sessions.encoded import EncodedSessions
from tests.multitron_core.front.conftest import ITEMS, SMALL, random_sessions


def test_evaluate_front_has_one_row_per_preference(model: MultiTRON) -> None:
    front = evaluate_front(model, random_sessions(), 5, config=SMALL)
    assert front.height == 5
    assert front["pi_order"].is_sorted()
    assert {
        *("pi_order", "pi_click", "click_loss", "order_loss", "click_recall_20", "click_mrr_20"),
        *("last_click_recall_20", "order_recall_20", "order_density", "recall_x_density", "dominated"),
    } <= set(front.columns)
    assert front["ranks_trained"].to_list() == [True] * 4 + [False]


def test_evaluate_front_marks_dominated_points(model: MultiTRON) -> None:
    front = evaluate_front(model, random_sessions(), 5, config=SMALL)
    for row in front.iter_rows(named=True):
        better = front.filter(
            (pl.col("click_loss") <= row["click_loss"])
            & (pl.col("order_loss") <= row["order_loss"])
            & ((pl.col("click_loss") < row["click_loss"]) | (pl.col("order_loss") < row["order_loss"]))
        )
        assert row["dominated"] == (better.height > 0)


def test_evaluate_points_is_the_table_of_the_measurement(model: MultiTRON) -> None:
    data = random_sessions()
    expected = front_table(measure_front(model, data, [0.5], config=SMALL), k=3)
    assert evaluate_points(model, data, [0.5], config=SMALL, k=3).equals(expected)


def test_front_table_without_orders_has_no_order_recall(model: MultiTRON) -> None:
    data = random_sessions()
    data = EncodedSessions(data.session_ids, data.offsets, data.items, np.zeros(len(data.items), bool), "hash")
    front = front_table(measure_front(model, data, [0.0, 0.5, 1.0], config=SMALL))
    assert front["order_recall_20"].to_list() == [None] * 3
    assert front["order_loss"].is_finite().all()


def test_front_table_refuses_ranks_beyond_the_exact(model: MultiTRON) -> None:
    measured = measure_front(model, random_sessions(), [0.5], config=SMALL)
    for k in (0, MAX_RANK + 1):
        with pytest.raises(InputError, match="list length is out of range"):
            front_table(measured, k=k)


def test_front_volume_is_the_hypervolume_of_the_table(model: MultiTRON) -> None:
    measured = measure_front(model, random_sessions(40), [0.0, 0.5, 1.0], config=SMALL)
    volume = front_volume(measured, reference=(9.0, 9.0), resamples=50)
    points = front_table(measured).select("click_loss", "order_loss").to_numpy()
    assert volume.raw.value == pytest.approx(hypervolume(points, (9.0, 9.0)), rel=1e-6)
    assert volume.raw.low < volume.raw.value < volume.raw.high


def test_front_preferences_by_number_of_objectives(model: MultiTRON) -> None:
    expected = [(1.0 - order, order) for order in spaced_preferences(5, spacing="square")]
    assert front_preferences(model, 5, spacing="square", beta=(0.5, 0.5)) == expected
    three = MultiTRON(ModelConfig(items=ITEMS, dimension=8, objectives=("click", "cart", "order")))
    assert front_preferences(three, 5, spacing="beta", beta=(0.5, 0.5)) == lattice_preferences(5, 3)
