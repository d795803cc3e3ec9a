"""Regularisers, by the names that the setting `regulariser` takes. A new one is a function and an entry here.

Each is a pure function of losses [n, k] and preferences [k] or [n, k], elementwise before reduction. Equations: Wilm,
Normann, Stepprath (RecSys 2024, arXiv 2407.16828), section 3. Training minimises equation 4, the scalarised losses plus
lambda times the regulariser.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from multitron_core.errors import InputError

Elementwise = Callable[[Tensor, Tensor], Tensor]
"""losses [n, k] and pi [k] or [n, k] -> [n]."""


def weighted_shares(losses: Tensor, pi: Tensor) -> Tensor:
    """pihat of equation 3: pi_k L_k over their sum, the sum at least 1e-6. [n, k] -> [n, k]."""
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
        raise InputError(
            "unknown form", where="regularisers.non_uniformity", found=form, hint="use 'paper' or 'released'"
        )
    if g == "softmax":
        share = share.softmax(dim=-1)
    elif g != "identity":
        raise InputError("unknown g", where="regularisers.non_uniformity", found=g, hint="use 'identity' or 'softmax'")
    # x log x is 0 at 0, but its gradient is not finite there: the argument of the logarithm is clamped below the
    # smallest share that a float32 division gives.
    return (share * (k * share.clamp_min(1e-30)).log()).sum(dim=-1)


def cosine(losses: Tensor, pi: Tensor) -> Tensor:
    """-cos(pi, losses): pulls the loss vector towards the ray of pi. [n, k] and [k] or [n, k] -> [n], in [-1, 0].

    Ruchte, Grabocka, "Scalable Pareto Front Approximation for Deep Multi-Objective Learning" (ICDM 2021, arXiv
    2103.13392).
    """
    return -F.cosine_similarity(losses, pi.expand_as(losses), dim=-1, eps=1e-5)


def nothing(losses: Tensor, pi: Tensor) -> Tensor:
    """No regulariser: zeros [n]."""
    return torch.zeros_like(losses[..., 0])


REGULARISERS: dict[str, Callable[[str], Elementwise]] = {
    "paper": lambda g: partial(non_uniformity, form="paper", g=g),
    "released": lambda g: partial(non_uniformity, form="released"),
    "cosine": lambda g: cosine,
    "none": lambda g: nothing,
}
"""Regularisers by name, made from g, which only "paper" reads."""


def regulariser(name: str, g: str = "identity") -> Elementwise:
    """A regulariser by its name, without its weight lambda; `g` as in equation 3."""
    return REGULARISERS[name](g)
