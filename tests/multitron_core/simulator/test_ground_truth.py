"""Ground truth of a simulated shop: agreement with drawn sessions, optimal lists, the trade-off between objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.simulator.ground_truth import Habits, Truth, make_items
from multitron_core.simulator.simulation import draw_sessions


@pytest.mark.parametrize(
    "habit", [{"switch_share": 0.0}, {"return_share": 0.9, "switch_share": 0.2}, {"width": 0.0}, {"mean_clicks": 0.5}]
)
def test_habits_refuse_values_out_of_range(habit: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Habits"):
        Habits(**habit)


def test_truth_next_click_equals_drawn_frequencies() -> None:
    """After each frequent beginning of a session, the frequencies of the next click agree with the probabilities."""
    habits = Habits(category_size=8, mean_clicks=4.0, step=0.2)
    truth = Truth(make_items(24, habits, seed=3), habits)
    clicks, lengths = draw_sessions(truth, 300_000, np.random.default_rng(0))
    ids = truth.items["item_id"].to_numpy()
    for length in (1, 2, 3):
        longer = clicks[lengths > length]
        beginnings, beginning_of, count = np.unique(longer[:, :length], axis=0, return_inverse=True, return_counts=True)
        expected = truth.next_click([list(ids[beginning]) for beginning in beginnings])
        np.testing.assert_allclose(expected.sum(axis=1), 1.0)
        observed = np.zeros_like(expected)
        np.add.at(observed, (beginning_of.ravel(), longer[:, length]), 1.0)
        # Deviations in units of their standard deviation, for cells with enough clicks for a normal approximation.
        mean = expected * count[:, None]
        cells = mean > 20
        deviation = (observed - mean)[cells] / np.sqrt(mean * (1.0 - expected))[cells]
        assert cells.sum() > 300
        assert abs(deviation.std() - 1.0) < 0.1
        assert np.abs(deviation).max() < 5.0


def test_make_items_has_conflicting_clicks_and_orders() -> None:
    habits = Habits()
    items = make_items(5_000, habits, seed=1)
    correlation = items.select(pl.corr(pl.col("click_appeal").log(), pl.col("order_propensity").log())).item()
    assert -0.85 < correlation < -0.7
    assert items["item_id"].sort().to_list() == list(range(1, 5_001))
    assert items["popularity"].sum() == pytest.approx(1.0)
    weight = (items["popularity"] * items["click_appeal"]).to_numpy()
    assert (weight * items["order_propensity"].to_numpy()).sum() / weight.sum() == pytest.approx(0.04, rel=0.15)


@pytest.fixture(scope="module")
def shop_and_sessions() -> tuple[Truth, list[list[int]]]:
    habits = Habits()
    truth = Truth(make_items(2_000, habits, seed=1), habits)
    clicks, lengths = draw_sessions(truth, 400, np.random.default_rng(2))
    ids = truth.items["item_id"].to_numpy()
    return truth, [ids[row[:length]].tolist() for row, length in zip(clicks, lengths, strict=True)]


def test_truth_best_lists_trade_clicks_for_orders(shop_and_sessions: tuple[Truth, list[list[int]]]) -> None:
    truth, sessions = shop_and_sessions
    lists = [truth.best_lists(sessions, 20, pi_order=pi) for pi in (0.0, 0.25, 0.5, 0.75, 1.0)]
    clicks = [truth.expected_clicks(sessions, chosen).mean() for chosen in lists]
    orders = [truth.expected_orders(sessions, chosen).mean() for chosen in lists]
    assert clicks == sorted(clicks, reverse=True)
    assert orders == sorted(orders)
    assert clicks[-1] < 0.85 * clicks[0]
    assert orders[-1] > 1.2 * orders[0]


def test_truth_best_lists_are_optimal() -> None:
    habits = Habits(category_size=10)
    truth = Truth(make_items(20, habits, seed=5), habits)
    sessions = [[3], [3, 9, 9], [20, 1, 7, 2]]
    rng = np.random.default_rng(0)
    for pi in (0.0, 0.3, 1.0):
        best = truth.best_lists(sessions, 4, pi_order=pi)

        def value(lists: np.ndarray, pi: float = pi) -> np.ndarray:
            clicks, orders = truth.expected_clicks(sessions, lists), truth.expected_orders(sessions, lists)
            return (1.0 - pi) * clicks + pi * orders / habits.order_rate

        for _ in range(200):
            other = np.stack([rng.permutation(20)[:4] + 1 for _ in sessions])
            assert (value(other) <= value(best) + 1e-12).all()


def test_truth_next_click_refuses_invalid_sessions(shop_and_sessions: tuple[Truth, list[list[int]]]) -> None:
    truth, _ = shop_and_sessions
    with pytest.raises(InputError, match="does not have this item; found: 2001"):
        truth.next_click([[1, 2001]])
    with pytest.raises(InputError, match="without clicks"):
        truth.next_click([[1], []])


def test_truth_expected_values_refuse_invalid_lists(shop_and_sessions: tuple[Truth, list[list[int]]]) -> None:
    truth, _ = shop_and_sessions
    with pytest.raises(InputError, match="contains an item twice"):
        truth.expected_clicks([[1]], [[4, 4]])
    with pytest.raises(InputError, match="numbers of sessions and lists differ"):
        truth.expected_orders([[1], [2]], [[4, 5]])


def test_truth_load_refuses_folder_without_simulation(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read.*simulate again"):
        Truth.load(tmp_path)


def test_truth_best_lists_exceed_co_visitation() -> None:
    """Click recall@20 of popularity, co-visitation and optimal lists, in a shop of the demo's size."""
    habits = Habits()
    truth = Truth(make_items(2_000, habits, seed=1), habits)
    clicks, lengths = draw_sessions(truth, 20_000, np.random.default_rng(4))
    inside = np.arange(clicks.shape[1]) < lengths[:, None]
    train, test = np.arange(20_000) < 17_500, np.arange(20_000) >= 17_500
    popular = np.argsort(-np.bincount(clicks[train][inside[train]], minlength=2_000))[:20]
    following = np.zeros((2_000, 2_000), dtype=np.int32)
    pairs = inside[:, 1:] & train[:, None]
    np.add.at(following, (clicks[:, :-1][pairs], clicks[:, 1:][pairs]), 1)
    top = np.argpartition(-following, 20, axis=1)[:, :20]
    test_steps = inside[:, 1:] & test[:, None]
    last, target = clicks[:, :-1][test_steps], clicks[:, 1:][test_steps]
    by_popularity = np.isin(target, popular).mean()
    by_co_visitation = (top[last] == target[:, None]).any(axis=1).mean()
    assert 0.05 < by_popularity < 0.15
    assert by_co_visitation > 3 * by_popularity
    ids = truth.items["item_id"].to_numpy()
    sessions = [ids[row[:length]].tolist() for row, length in zip(clicks[:300], lengths[:300], strict=True)]
    best = truth.expected_clicks(sessions, truth.best_lists(sessions, 20, pi_order=0.0)).mean()
    assert by_co_visitation < best < 0.8
