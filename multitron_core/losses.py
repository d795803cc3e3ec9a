"""The losses of MultiTRON: pure functions of tensors, elementwise before reduction.

n counts real steps (a step is a click that has a successor), m negatives, k objectives. Equations are those of Wilm,
Normann, Stepprath (RecSys 2024, arXiv 2407.16828), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from multitron_core.config import TrainingConfig
from multitron_core.errors import InputError


def click_loss(positive_logits: Tensor, negative_logits: Tensor) -> Tensor:
    """Cross-entropy of the target among itself and its negatives (sampled softmax).

    Args:
        positive_logits: float [n], the target's logit.
        negative_logits: float [n, m]; -inf leaves a negative out; a negative that was drawn c times may stand once
            with log(c) added. m may be 0.

    Returns:
        float [n], >= 0: log(exp(p) + sum_j exp(n_j)) - p.
    """
    positive = positive_logits[:, None]
    return torch.logsumexp(torch.cat([positive, negative_logits], dim=1), dim=1) - positive_logits


def order_loss(positive_logits: Tensor, ordered: Tensor) -> Tensor:
    """Binary cross-entropy between the target's own logit and whether the target is ordered later.

    Args:
        positive_logits: float [n].
        ordered: bool or float [n].

    Returns:
        float [n], >= 0.
    """
    return F.binary_cross_entropy_with_logits(positive_logits, ordered.to(positive_logits.dtype), reduction="none")


def ordered_softmax_loss(click_losses: Tensor, ordered: Tensor, order_rate: float) -> Tensor:
    """An order objective that ranks: the click loss of the steps whose target is ordered, and 0 elsewhere.

    The binary loss sees the target's own score alone, so it calibrates and does not rank. Dividing by the order rate
    gives this loss the scale of the click loss: its mean over all steps is the mean click loss over ordered steps.

    Args:
        click_losses: float [n], what `click_loss` gave.
        ordered: bool or float [n].
        order_rate: share of ordered targets in the training data, in (0, 1].

    Returns:
        float [n], >= 0.
    """
    if not 0.0 < order_rate <= 1.0:
        raise InputError(
            "the order rate lies outside (0, 1]",
            where="losses.ordered_softmax_loss",
            found=order_rate,
            mend="this loss needs training sessions with orders; use order_loss='bce' where there are none",
        )
    return click_losses * ordered.to(click_losses.dtype) / order_rate


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


def weighted_shares(losses: Tensor, pi: Tensor) -> Tensor:
    """pihat of equation 3: pi_k L_k over their sum, which is kept at 1e-6 or more. [n, k] -> [n, k]."""
    weighted = losses * pi
    return weighted / weighted.sum(dim=-1, keepdim=True).clamp_min(1e-6)


def non_uniformity(losses: Tensor, pi: Tensor, form: str = "paper", g: str = "identity") -> Tensor:
    """The regulariser: how far the weighted losses are from being equal.

    Form "paper" is equation 3, KL(g(pihat) | 1/k) = sum_j g_j log(k g_j). Form "released" is what the authors' code
    computes: the cross-entropy of softmax(pihat) against 1/k, which is log k + KL(1/k | softmax(pihat)).

    Args:
        losses: float [n, k], >= 0.
        pi: float [k] or [n, k].
        form: "paper" or "released".
        g: "identity" or "softmax"; form "released" always takes softmax.

    Returns:
        float [n]; "paper" is 0 where the weighted losses are equal and at most log k.

    Raises:
        InputError: an unknown form or g.
    """
    share = weighted_shares(losses, pi)
    k = losses.shape[-1]
    if form == "released":
        return -F.log_softmax(share, dim=-1).mean(dim=-1)
    if form != "paper":
        raise InputError("unknown form", where="losses.non_uniformity", found=form, mend="use 'paper' or 'released'")
    if g == "softmax":
        share = share.softmax(dim=-1)
    elif g != "identity":
        raise InputError("unknown g", where="losses.non_uniformity", found=g, mend="use 'identity' or 'softmax'")
    # x log x is 0 at 0, but its gradient is not finite there: the logarithm's argument stays above the smallest share
    # that float32 divides to.
    return (share * (k * share.clamp_min(1e-30)).log()).sum(dim=-1)


def cosine(losses: Tensor, pi: Tensor) -> Tensor:
    """-cos(pi, losses): pulls the loss vector to the ray of pi. Ruchte, Grabocka, "Scalable Pareto Front Approximation
    for Deep Multi-Objective Learning" (ICDM 2021, arXiv 2103.13392). [n, k] and [k] or [n, k] -> [n], in [-1, 0].
    """
    return -F.cosine_similarity(losses, pi.expand_as(losses), dim=-1, eps=1e-5)


def nothing(losses: Tensor, pi: Tensor) -> Tensor:
    """No regulariser: zeros [n]."""
    return torch.zeros_like(losses[..., 0])


Elementwise = Callable[[Tensor, Tensor], Tensor]
"""losses [n, k] and pi [k] or [n, k] -> [n]."""


def scalarisation(config: TrainingConfig) -> Elementwise:
    """The scalarisation that the config names."""
    return {"linear": linear, "chebyshev": chebyshev}[config.scalarisation]


def regulariser(config: TrainingConfig) -> Elementwise:
    """The regulariser that the config names, without its weight lambda."""
    uniform: Elementwise = partial(non_uniformity, form=config.regulariser_form, g=config.regulariser_g)
    return {"non_uniformity": uniform, "cosine": cosine, "none": nothing}[config.regulariser]
