"""Hypervolumes against areas and volumes worked out by hand, and against the paper's digitised fronts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multitron_core.errors import InputError
from multitron_core.front.paper_fronts import PAPER_FRONTS, paper_front
from multitron_core.front.volume import bootstrap_hypervolume, dominated, hypervolume, normalised_hypervolume

losses = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 8), st.integers(2, 3)), elements=st.floats(0.0, 10.0, width=32)
)


def test_areas_by_hand() -> None:
    assert hypervolume([[1.0, 1.0]], [3.0, 2.0]) == pytest.approx(2.0)
    assert hypervolume([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]], [3.0, 3.0]) == pytest.approx(3 + 2 + 1)
    assert hypervolume([[1.0, 1.0], [2.0, 2.0]], [3.0, 3.0]) == pytest.approx(4.0)  # a dominated point adds nothing


def test_a_volume_of_three_objectives() -> None:
    # Two boxes of 2 x 1 x 1 and 1 x 2 x 1 that share a unit cube.
    assert hypervolume([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], [2.0, 2.0, 2.0]) == pytest.approx(3.0)


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume([[5.0, 0.0]], [3.0, 3.0]) == 0.0
    assert hypervolume([[3.0, 0.0]], [3.0, 3.0]) == 0.0


@given(losses)
def test_no_point_can_lower_the_volume(points: np.ndarray) -> None:
    reference = np.full(points.shape[1], 11.0)
    assert hypervolume(points, reference) >= hypervolume(points[:-1], reference) - 1e-9 if len(points) > 1 else True
    assert hypervolume(points, reference) == pytest.approx(hypervolume(points[~dominated(points)], reference))


@given(losses)
def test_dominance_by_its_definition(points: np.ndarray) -> None:
    expected = [any((q <= p).all() and (q < p).any() for q in points) for p in points]
    assert dominated(points).tolist() == expected


@given(losses, st.floats(0.1, 9.0), st.floats(-5.0, 5.0))
def test_normalisation_forgets_scale_and_place(points: np.ndarray, scale: float, shift: float) -> None:
    volume = normalised_hypervolume(points)
    assert 0.0 <= volume <= 1.0
    spread = np.ptp(points, axis=0)
    if (spread > 1e-3).all():
        assert normalised_hypervolume(points * scale + shift) == pytest.approx(volume, abs=1e-6)


def test_a_straight_front_of_many_points_has_one_half() -> None:
    line = np.linspace(0.0, 1.0, 2001)
    assert normalised_hypervolume(np.column_stack([line, 1.0 - line])) == pytest.approx(0.5, abs=1e-3)


def test_no_extent_no_trade_off() -> None:
    assert normalised_hypervolume([[1.0, 2.0]]) == 0.0
    assert normalised_hypervolume([[1.0, 2.0], [1.0, 3.0]]) == 0.0


@pytest.mark.parametrize(
    ("name", "volume", "kept"), [("diginetica", 0.958, 16), ("yoochoose", 0.850, 19), ("otto", 0.971, 20)]
)
def test_the_fronts_of_the_paper(name: str, volume: float, kept: int) -> None:
    points = paper_front(name).select("click_loss", "order_loss").to_numpy()
    assert len(points) == 26
    assert normalised_hypervolume(points) == pytest.approx(volume, abs=1e-3)
    assert (~dominated(points)).sum() == kept


def test_published_fronts_run_from_clicks_to_orders() -> None:
    for name in PAPER_FRONTS:
        front = paper_front(name)
        assert front["pi_order"].is_sorted()
        assert front["order_loss"][0] == 1.0
        assert front["click_loss"][-1] == 1.0
    with pytest.raises(InputError, match="no such front"):
        paper_front("movielens")


@pytest.mark.parametrize(
    ("points", "reference"),
    [([[1.0, np.nan]], [2.0, 2.0]), ([[1.0, 1.0]], [2.0]), ([1.0, 1.0], [2.0, 2.0]), ([[1.0, 1.0]], [2.0, np.inf])],
)
def test_refusals(points: list, reference: list) -> None:
    with pytest.raises(InputError):
        hypervolume(points, reference)


class TestBootstrap:
    def test_sessions_that_agree_leave_no_doubt(self) -> None:
        steps = np.array([1, 2, 5])
        front = np.array([[3.0, 0.1], [2.0, 0.2], [1.5, 0.6]])
        volume = bootstrap_hypervolume(steps[:, None, None] * front, steps, (4.0, 0.7), resamples=50)
        assert volume.raw.low == pytest.approx(volume.raw.high)
        assert volume.raw.value == pytest.approx(hypervolume(front, (4.0, 0.7)))
        assert volume.normalised.value == pytest.approx(normalised_hypervolume(front))
        assert volume.reference == (4.0, 0.7)

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 1000))
    def test_the_interval_shrinks_with_the_sessions(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        front = np.array([[3.0, 0.1], [2.0, 0.2], [1.5, 0.6]])
        few, many = (
            bootstrap_hypervolume(front + rng.normal(0, 0.05, (n, 3, 2)), np.ones(n), (4.0, 0.7), resamples=200)
            for n in (50, 5000)
        )
        assert few.raw.low <= few.raw.value <= few.raw.high
        assert many.raw.high - many.raw.low < few.raw.high - few.raw.low

    def test_the_seed_decides_the_interval(self) -> None:
        sums = np.random.default_rng(0).random((40, 4, 2))
        volumes = [bootstrap_hypervolume(sums, np.ones(40), (2.0, 2.0), resamples=30, seed=s) for s in (1, 1, 2)]
        assert volumes[0] == volumes[1] != volumes[2]
