"""Bootstrap intervals of figures whose sampling distribution is known."""

from __future__ import annotations

import numpy as np
import pytest

from multitron_core.front.bootstrap import bootstrap


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 2_000)
    sums = np.column_stack([values, np.ones(2_000)])
    (mean,) = bootstrap(sums, lambda totals: np.array([totals[0] / totals[1]]), resamples=2_000)
    assert mean.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(2_000)
    assert mean.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert mean.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_figures_see_the_same_draws_so_that_a_difference_is_paired() -> None:
    values = np.random.default_rng(0).normal(0.0, 5.0, 300)
    sums = np.column_stack([values, values + 1.0, np.ones(300)])  # one above the other in every session
    (difference,) = bootstrap(sums, lambda totals: np.array([totals[1] - totals[0]]) / totals[2], resamples=50)
    assert (difference.low, difference.high) == pytest.approx((1.0, 1.0))


def test_draws_without_the_figure_are_left_out() -> None:
    sums = np.array([[1.0, 1.0], [0.0, 0.0]])  # the second session has no denominator: a quarter of the draws have none

    def ratio(totals: np.ndarray) -> np.ndarray:
        return np.array([totals[0] / totals[1] if totals[1] else np.nan])

    (interval,) = bootstrap(sums, ratio, resamples=50)
    assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)
    (none,) = bootstrap(np.zeros((3, 2)), ratio, resamples=5)
    assert np.isnan([none.value, none.low, none.high]).all()


def test_the_seed_decides() -> None:
    sums = np.random.default_rng(0).random((40, 1))
    runs = [bootstrap(sums, lambda totals: totals, resamples=30, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
