"""Hypervolumes against areas and volumes worked out by hand, and against the paper's digitised fronts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multitron_core.errors import InputError
from multitron_core.hypervolume import bootstrap_hypervolume, dominated, hypervolume, normalised_hypervolume

PAPER_FRONTS = {  # (click loss, order loss) of Figure 1's 26 points, digitised, each loss mapped to [0, 1]
    "diginetica": (
        [
            *(
                1.0,
                0.98816,
                0.9529,
                0.89748,
                0.8241,
                0.7394,
                0.65104,
                0.56201,
                0.4784,
                0.40586,
                0.34211,
                0.28567,
                0.23994,
            ),
            *(
                0.19711,
                0.15904,
                0.1238,
                0.09046,
                0.05934,
                0.03429,
                0.01401,
                0.0,
                0.0004,
                0.00084,
                0.00916,
                0.01454,
                0.01846,
            ),
        ],
        [
            *(
                0.00229,
                0.00212,
                0.00164,
                0.00098,
                0.00034,
                0.0,
                0.00035,
                0.00181,
                0.0048,
                0.00959,
                0.01636,
                0.02535,
                0.03684,
            ),
            *(
                0.05132,
                0.06968,
                0.09361,
                0.12633,
                0.17236,
                0.23717,
                0.32658,
                0.44464,
                0.58775,
                0.73978,
                0.87481,
                0.96722,
                1.0,
            ),
        ],
        0.958,
        16,
    ),
    "yoochoose": (
        [
            *(
                1.0,
                0.94523,
                0.78978,
                0.58,
                0.37864,
                0.2324,
                0.14188,
                0.08702,
                0.054,
                0.03642,
                0.02573,
                0.01897,
                0.01365,
            ),
            *(
                0.01032,
                0.00711,
                0.00549,
                0.00303,
                0.00109,
                0.00137,
                0.0,
                0.00236,
                0.00239,
                0.00387,
                0.00439,
                0.00611,
                0.00882,
            ),
        ],
        [
            *(
                0.0,
                0.00741,
                0.03123,
                0.07259,
                0.13088,
                0.19522,
                0.25252,
                0.30305,
                0.34615,
                0.37926,
                0.40348,
                0.42392,
                0.44394,
            ),
            *(
                0.46472,
                0.48659,
                0.51007,
                0.53487,
                0.56152,
                0.59074,
                0.62316,
                0.65951,
                0.70142,
                0.75121,
                0.81356,
                0.89411,
                1.0,
            ),
        ],
        0.851,
        19,
    ),
    "otto": (
        [
            *(
                1.0,
                0.91006,
                0.6308,
                0.28089,
                0.11153,
                0.0561,
                0.03371,
                0.02152,
                0.01659,
                0.01369,
                0.01173,
                0.01021,
                0.01021,
            ),
            *(
                0.00871,
                0.00835,
                0.0085,
                0.00865,
                0.00679,
                0.00688,
                0.00684,
                0.00662,
                0.0041,
                0.00166,
                0.00097,
                0.0,
                0.00052,
            ),
        ],
        [
            *(
                0.0,
                0.00053,
                0.00764,
                0.02709,
                0.04608,
                0.05883,
                0.06726,
                0.07363,
                0.07835,
                0.08161,
                0.08411,
                0.0864,
                0.08872,
            ),
            *(
                0.09121,
                0.09406,
                0.09756,
                0.1022,
                0.1086,
                0.11778,
                0.13214,
                0.15903,
                0.22644,
                0.38947,
                0.65255,
                0.90083,
                1.0,
            ),
        ],
        0.971,
        20,
    ),
}

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


@pytest.mark.parametrize("name", PAPER_FRONTS)
def test_the_fronts_of_the_paper(name: str) -> None:
    click, order, volume, kept = PAPER_FRONTS[name]
    points = np.column_stack([click, order])
    assert len(points) == 26
    assert normalised_hypervolume(points) == pytest.approx(volume, abs=1e-3)
    assert (~dominated(points)).sum() == kept


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
