"""The truth of a simulated shop: right against drawn sessions, unbeatable lists, and a real trade-off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.simulator.ground_truth import Habits, Truth, make_items
from multitron_core.simulator.simulation import draw_sessions


@pytest.mark.parametrize(
    "habit", [{"switch_share": 0.0}, {"return_share": 0.9, "switch_share": 0.2}, {"width": 0.0}, {"mean_clicks": 0.5}]
)
def test_habits_out_of_range(habit: dict[str, float]) -> None:
    with pytest.raises(InputError, match="Habits"):
        Habits(**habit)  # type: ignore[arg-type]


def test_sessions_are_drawn_from_the_truth() -> None:
    """The true next-click probabilities are the observed frequencies, after every one of the common beginnings."""
    habits = Habits(category_size=8, mean_clicks=4.0, step=0.2)
    truth = Truth(make_items(24, habits, seed=3), habits)
    clicks, lengths = draw_sessions(truth, 300_000, np.random.default_rng(0))
    ids = truth.items["item_id"].to_numpy()
    for known in (1, 2, 3):
        longer = clicks[lengths > known]
        beginnings, which, count = np.unique(longer[:, :known], axis=0, return_inverse=True, return_counts=True)
        expected = truth.next_click([list(ids[beginning]) for beginning in beginnings])
        np.testing.assert_allclose(expected.sum(axis=1), 1.0)
        observed = np.zeros_like(expected)
        np.add.at(observed, (which.ravel(), longer[:, known]), 1.0)
        # Deviations in standard deviations, over all cells that expect enough clicks for a normal approximation.
        mean = expected * count[:, None]
        cells = mean > 20
        deviation = (observed - mean)[cells] / np.sqrt(mean * (1.0 - expected))[cells]
        assert cells.sum() > 300
        assert abs(deviation.std() - 1.0) < 0.1
        assert np.abs(deviation).max() < 5.0


def test_the_catalogue_disagrees_about_clicks_and_orders() -> None:
    habits = Habits()
    items = make_items(5_000, habits, seed=1)
    logs = items.select(pl.corr(pl.col("click_appeal").log(), pl.col("order_propensity").log())).item()
    assert -0.85 < logs < -0.7
    assert items["item_id"].sort().to_list() == list(range(1, 5_001))
    assert items["popularity"].sum() == pytest.approx(1.0)
    weight = items["popularity"] * items["click_appeal"]
    assert (weight * items["order_propensity"]).sum() / weight.sum() == pytest.approx(0.04, rel=0.15)


@pytest.fixture(scope="module")
def shop_and_sessions() -> tuple[Truth, list[list[int]]]:
    habits = Habits()
    truth = Truth(make_items(2_000, habits, seed=1), habits)
    clicks, lengths = draw_sessions(truth, 400, np.random.default_rng(2))
    ids = truth.items["item_id"].to_numpy()
    return truth, [ids[row[:length]].tolist() for row, length in zip(clicks, lengths, strict=True)]


def test_the_trade_off_is_real(shop_and_sessions: tuple[Truth, list[list[int]]]) -> None:
    truth, sessions = shop_and_sessions
    lists = [truth.best_lists(sessions, 20, pi_order=pi) for pi in (0.0, 0.25, 0.5, 0.75, 1.0)]
    clicks = [truth.expected_clicks(sessions, chosen).mean() for chosen in lists]
    orders = [truth.expected_orders(sessions, chosen).mean() for chosen in lists]
    assert clicks == sorted(clicks, reverse=True)
    assert orders == sorted(orders)
    assert clicks[-1] < 0.85 * clicks[0]
    assert orders[-1] > 1.2 * orders[0]


def test_no_list_beats_the_best_list() -> None:
    habits = Habits(category_size=10)
    truth = Truth(make_items(20, habits, seed=5), habits)
    sessions = [[3], [3, 9, 9], [20, 1, 7, 2]]
    rng = np.random.default_rng(0)
    for pi in (0.0, 0.3, 1.0):
        best = truth.best_lists(sessions, 4, pi_order=pi)

        def worth(lists: np.ndarray, pi: float = pi) -> np.ndarray:
            clicks, orders = truth.expected_clicks(sessions, lists), truth.expected_orders(sessions, lists)
            return (1.0 - pi) * clicks + pi * orders / habits.order_rate

        for _ in range(200):
            other = np.stack([rng.permutation(20)[:4] + 1 for _ in sessions])
            assert (worth(other) <= worth(best) + 1e-12).all()


def test_the_truth_refuses_what_it_cannot_judge(
    shop_and_sessions: tuple[Truth, list[list[int]]], tmp_path: Path
) -> None:
    truth, _ = shop_and_sessions
    with pytest.raises(InputError, match="does not have this item; found: 2001"):
        truth.next_click([[1, 2001]])
    with pytest.raises(InputError, match="without clicks"):
        truth.next_click([[1], []])
    with pytest.raises(InputError, match="names an item twice"):
        truth.expected_clicks([[1]], [[4, 4]])
    with pytest.raises(InputError, match="needs a list"):
        truth.expected_orders([[1], [2]], [[4, 5]])
    with pytest.raises(InputError, match=r"cannot be read.*simulate again"):
        Truth.load(tmp_path)


def test_a_sequence_model_has_something_to_learn() -> None:
    """Click recall@20 of popularity, of co-visitation and of the truth, on the demo's size."""
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
    asked = inside[:, 1:] & test[:, None]
    last, target = clicks[:, :-1][asked], clicks[:, 1:][asked]
    by_popularity = np.isin(target, popular).mean()
    by_co_visitation = (top[last] == target[:, None]).any(axis=1).mean()
    assert 0.05 < by_popularity < 0.15
    assert by_co_visitation > 3 * by_popularity
    ids = truth.items["item_id"].to_numpy()
    sessions = [ids[row[:length]].tolist() for row, length in zip(clicks[:300], lengths[:300], strict=True)]
    best = truth.expected_clicks(sessions, truth.best_lists(sessions, 20, pi_order=0.0)).mean()
    assert by_co_visitation < best < 0.8
