"""Quantiles of the Beta distribution in float64, which space the points of a front.

They are implemented here because nothing else in the project needs scipy.
"""

from __future__ import annotations

import math

from multitron_core.errors import InputError


def beta_cdf(x: float, a: float, b: float) -> float:
    """P(X <= x) for X ~ Beta(a, b), the regularised incomplete beta function I_x(a, b).

    Computed by the continued fraction of DLMF 8.17.22 (https://dlmf.nist.gov/8.17.E22), evaluated front to back with
    Lentz's method. The error is about 1e-14.

    Args:
        x: Any real number.
        a, b: Parameters of the distribution, positive and finite.

    Returns:
        A probability in [0, 1].

    Raises:
        InputError: A parameter is not positive and finite.
    """
    if not (0.0 < a < math.inf and 0.0 < b < math.inf):
        raise InputError("the parameters of a Beta distribution must be positive", found=(a, b), hint="use (0.5, 0.5)")
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):  # the fraction converges fast only below this bound
        return 1.0 - beta_cdf(1.0 - x, b, a)
    log_factor = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_factor) / a * _continued_fraction(x, a, b)


def _continued_fraction(x: float, a: float, b: float) -> float:
    """1 / (1 + d_1 / (1 + d_2 / (1 + ...))) with the coefficients d of DLMF 8.17.22."""
    tiny = 1e-300  # replaces 0 in a denominator
    value = numerators = 1.0  # numerators: A_n / A_(n-1) of the convergents
    denominators = 0.0  # B_(n-1) / B_n
    for n in range(1, 10_000):
        m = n // 2
        if n % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominators = 1.0 / ((1.0 + term * denominators) or tiny)
        numerators = (1.0 + term / numerators) or tiny
        value *= numerators * denominators
        if abs(numerators * denominators - 1.0) < 1e-16:
            break
    return 1.0 / value


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with P(X <= x) = p for X ~ Beta(a, b).

    The arcsine distribution (a = b = 1/2) has the closed form sin^2(pi p / 2). Other quantiles are found by bisection
    down to the last bit.

    Args:
        p: Probability in [0, 1].
        a, b: Parameters of the distribution, positive and finite.

    Returns:
        A number in [0, 1].

    Raises:
        InputError: `p` is outside [0, 1], or a parameter is not positive and finite.
    """
    if not 0.0 <= p <= 1.0:
        raise InputError("a probability lies outside [0, 1]", found=p, hint="use a value between 0 and 1")
    if p in (0.0, 1.0):
        return p
    if a == b == 0.5:
        return math.sin(math.pi * p / 2.0) ** 2
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2.0) < high:
        if beta_cdf(middle, a, b) < p:
            low = middle
        else:
            high = middle
    return middle
