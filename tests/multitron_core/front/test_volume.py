"""Hypervolumes against areas and volumes computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multitron_core.errors import InputError
from multitron_core.front.volume import bootstrap_hypervolume, dominated, hypervolume, normalised_hypervolume

losses = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 8), st.integers(2, 3)), elements=st.floats(0.0, 10.0, width=32)
)


def test_hypervolume_of_two_losses_by_hand() -> None:
    assert hypervolume([[1.0, 1.0]], [3.0, 2.0]) == pytest.approx(2.0)
    assert hypervolume([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]], [3.0, 3.0]) == pytest.approx(3 + 2 + 1)
    assert hypervolume([[1.0, 1.0], [2.0, 2.0]], [3.0, 3.0]) == pytest.approx(4.0)  # a dominated point adds nothing


def test_hypervolume_of_three_losses_by_hand() -> None:
    # Two boxes of 2 x 1 x 1 and 1 x 2 x 1 that share a unit cube.
    assert hypervolume([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], [2.0, 2.0, 2.0]) == pytest.approx(3.0)


def test_hypervolume_ignores_points_beyond_the_reference() -> None:
    assert hypervolume([[5.0, 0.0]], [3.0, 3.0]) == 0.0
    assert hypervolume([[3.0, 0.0]], [3.0, 3.0]) == 0.0


@given(losses)
def test_hypervolume_never_falls_with_another_point(points: np.ndarray) -> None:
    reference = np.full(points.shape[1], 11.0)
    assert hypervolume(points, reference) >= hypervolume(points[:-1], reference) - 1e-9 if len(points) > 1 else True
    assert hypervolume(points, reference) == pytest.approx(hypervolume(points[~dominated(points)], reference))


@given(losses)
def test_dominated_matches_the_definition(points: np.ndarray) -> None:
    expected = [any((q <= p).all() and (q < p).any() for q in points) for p in points]
    assert dominated(points).tolist() == expected


@given(losses, st.floats(0.1, 9.0), st.floats(-5.0, 5.0))
def test_normalised_hypervolume_is_invariant_to_scale(points: np.ndarray, scale: float, shift: float) -> None:
    volume = normalised_hypervolume(points)
    assert 0.0 <= volume <= 1.0
    spread = np.ptp(points, axis=0)
    if (spread > 1e-3).all():
        assert normalised_hypervolume(points * scale + shift) == pytest.approx(volume, abs=1e-6)


def test_normalised_hypervolume_of_a_straight_line() -> None:
    line = np.linspace(0.0, 1.0, 2001)
    assert normalised_hypervolume(np.column_stack([line, 1.0 - line])) == pytest.approx(0.5, abs=1e-3)


def test_normalised_hypervolume_is_0_without_a_trade_off() -> None:
    assert normalised_hypervolume([[1.0, 2.0]]) == 0.0
    assert normalised_hypervolume([[1.0, 2.0], [1.0, 3.0]]) == 0.0


@pytest.mark.parametrize(
    ("points", "reference"),
    [([[1.0, np.nan]], [2.0, 2.0]), ([[1.0, 1.0]], [2.0]), ([1.0, 1.0], [2.0, 2.0]), ([[1.0, 1.0]], [2.0, np.inf])],
)
def test_hypervolume_refuses_bad_losses_and_references(points: object, reference: list[float]) -> None:
    with pytest.raises(InputError):
        hypervolume(np.array(points), reference)


class TestBootstrapHypervolume:
    def test_equal_sessions_give_an_interval_of_width_0(self) -> None:
        steps = np.array([1, 2, 5])
        front = np.array([[3.0, 0.1], [2.0, 0.2], [1.5, 0.6]])
        volume = bootstrap_hypervolume(steps[:, None, None] * front, steps, (4.0, 0.7), resamples=50)
        assert volume.raw.low == pytest.approx(volume.raw.high)
        assert volume.raw.value == pytest.approx(hypervolume(front, (4.0, 0.7)))
        assert volume.normalised.value == pytest.approx(normalised_hypervolume(front))
        assert volume.reference == (4.0, 0.7)

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 1000))
    def test_interval_shrinks_with_more_sessions(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        front = np.array([[3.0, 0.1], [2.0, 0.2], [1.5, 0.6]])
        few, many = (
            bootstrap_hypervolume(front + rng.normal(0, 0.05, (n, 3, 2)), np.ones(n), (4.0, 0.7), resamples=200)
            for n in (50, 5000)
        )
        assert few.raw.low <= few.raw.value <= few.raw.high
        assert many.raw.high - many.raw.low < few.raw.high - few.raw.low

    def test_seed_decides_the_interval(self) -> None:
        sums = np.random.default_rng(0).random((40, 4, 2))
        volumes = [bootstrap_hypervolume(sums, np.ones(40), (2.0, 2.0), resamples=30, seed=s) for s in (1, 1, 2)]
        assert volumes[0] == volumes[1] != volumes[2]
