"""Bootstrap intervals of statistics whose sampling distribution is known."""

from __future__ import annotations

import numpy as np
import pytest

from multitron_core.front.bootstrap import bootstrap


def test_bootstrap_of_a_mean_matches_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 2_000)
    sums = np.column_stack([values, np.ones(2_000)])
    (mean,) = bootstrap(sums, lambda totals: np.array([totals[0] / totals[1]]), resamples=2_000)
    assert mean.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(2_000)
    assert mean.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert mean.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_bootstrap_of_a_difference_is_paired() -> None:
    values = np.random.default_rng(0).normal(0.0, 5.0, 300)
    sums = np.column_stack([values, values + 1.0, np.ones(300)])  # the difference is 1 in every session
    (difference,) = bootstrap(sums, lambda totals: np.array([totals[1] - totals[0]]) / totals[2], resamples=50)
    assert (difference.low, difference.high) == pytest.approx((1.0, 1.0))


def test_bootstrap_leaves_out_undefined_resamples() -> None:
    sums = np.array([[1.0, 1.0], [0.0, 0.0]])  # a quarter of the resamples have the denominator 0

    def ratio(totals: np.ndarray) -> np.ndarray:
        return np.array([totals[0] / totals[1] if totals[1] else np.nan])

    (interval,) = bootstrap(sums, ratio, resamples=50)
    assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)
    (undefined,) = bootstrap(np.zeros((3, 2)), ratio, resamples=5)
    assert np.isnan([undefined.value, undefined.low, undefined.high]).all()


def test_bootstrap_depends_on_the_seed() -> None:
    sums = np.random.default_rng(0).random((40, 1))
    runs = [bootstrap(sums, lambda totals: totals, resamples=30, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
