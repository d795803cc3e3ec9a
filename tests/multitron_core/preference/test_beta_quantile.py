"""The Beta distribution compared with closed forms and numerical integration."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.preference.beta_quantile import beta_cdf, beta_quantile

positive = st.floats(0.05, 50.0)
probability = st.floats(0.0, 1.0)


@given(probability)
def test_beta_cdf_equals_closed_forms(x: float) -> None:
    assert beta_cdf(x, 0.5, 0.5) == pytest.approx(2 / math.pi * math.atan2(math.sqrt(x), math.sqrt(1 - x)), abs=1e-13)
    assert beta_cdf(x, 1.0, 1.0) == pytest.approx(x, abs=1e-13)
    assert beta_cdf(x, 2.0, 2.0) == pytest.approx(3 * x**2 - 2 * x**3, abs=1e-13)
    assert beta_cdf(x, 3.0, 1.0) == pytest.approx(x**3, abs=1e-13)


@pytest.mark.parametrize(("a", "b", "x"), [(1.2, 1.2, 0.1), (1.2, 3.4, 0.6), (5.0, 2.0, 0.9)])
def test_beta_cdf_equals_the_integral(a: float, b: float, x: float) -> None:
    grid = torch.linspace(0, x, 400_001, dtype=torch.float64)
    density = grid ** (a - 1) * (1 - grid) ** (b - 1) * math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
    assert beta_cdf(x, a, b) == pytest.approx(float(torch.trapezoid(density, grid)), abs=1e-6)


@given(st.integers(1, 1023), positive, positive)
def test_beta_cdf_is_symmetric(part: int, a: float, b: float) -> None:
    x = part / 1024  # 1 - x is exact
    assert beta_cdf(x, a, b) + beta_cdf(1.0 - x, b, a) == pytest.approx(1.0, abs=1e-9)


@given(st.floats(0.001, 0.999), st.floats(0.2, 20.0), st.floats(0.2, 20.0))
def test_beta_quantile_inverts_the_distribution(p: float, a: float, b: float) -> None:
    x = beta_quantile(p, a, b)
    before, after = math.nextafter(x, 0.0), math.nextafter(x, 1.0)
    assert beta_cdf(before, a, b) - 1e-9 <= p <= beta_cdf(after, a, b) + 1e-9


def test_beta_quantile_of_the_arcsine_equals_bisection() -> None:
    assert beta_quantile(0.3, 0.5, 0.5) == pytest.approx(beta_quantile(0.3, 0.5 + 1e-12, 0.5), abs=1e-9)


def test_beta_quantile_and_beta_cdf_at_the_ends() -> None:
    assert [beta_quantile(p, 1.2, 0.7) for p in (0.0, 1.0)] == [0.0, 1.0]
    assert [beta_cdf(x, 1.2, 0.7) for x in (-1.0, 0.0, 1.0, 2.0)] == [0.0, 0.0, 1.0, 1.0]


def test_beta_cdf_refuses_parameters() -> None:
    with pytest.raises(InputError, match="positive"):
        beta_cdf(0.5, 0.0, 1.0)


def test_beta_quantile_refuses_other_probabilities() -> None:
    with pytest.raises(InputError, match="outside"):
        beta_quantile(1.1, 1.0, 1.0)
