"""Scalarisations: from the losses of all objectives and a preference to one loss per step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from multitron_core.losses.regularisers import Elementwise


def linear(losses: Tensor, pi: Tensor) -> Tensor:
    """Equation 1, sum_k pi_k L_k: [n, k] losses and [k] or [n, k] pi -> [n]."""
    return (losses * pi).sum(dim=-1)


def chebyshev(losses: Tensor, pi: Tensor, smoothness: float = 0.1) -> Tensor:
    """Smooth Chebyshev scalarisation, a smooth max_k pi_k L_k that also reaches concave parts of a front.

    mu log(sum_k exp(pi_k L_k / mu)) - mu log(k), with mu = `smoothness`: Lin et al., "Smooth Tchebycheff Scalarization
    for Multi-Objective Optimization" (ICML 2024, arXiv 2402.19078), ideal point 0. [n, k] and [k] or [n, k] -> [n].
    """
    k = losses.shape[-1]
    return smoothness * (torch.logsumexp(losses * pi / smoothness, dim=-1) - math.log(k))


SCALARISATIONS: dict[str, Elementwise] = {"linear": linear, "chebyshev": chebyshev}


def scalarisation(name: str) -> Elementwise:
    """A scalarisation by its name."""
    return SCALARISATIONS[name]
