"""Losses of the objectives: pure functions of tensors, elementwise before reduction.

n counts real steps (a step is a click that has a successor), m negatives, k objectives. Equations: Wilm, Normann,
Stepprath (RecSys 2024, arXiv 2407.16828), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multitron_core.errors import InputError
from multitron_core.preference.objectives import Objective


def click_loss(positive_logits: Tensor, negative_logits: Tensor) -> Tensor:
    """Cross-entropy of the target among itself and its negatives (sampled softmax).

    Args:
        positive_logits: float [n], logit of the target.
        negative_logits: float [n, m]; -inf excludes a negative; a negative that was drawn c times may be one entry
            with log(c) added. m may be 0.

    Returns:
        float [n], >= 0: log(exp(p) + sum_j exp(n_j)) - p.
    """
    positive = positive_logits[:, None]
    return torch.logsumexp(torch.cat([positive, negative_logits], dim=1), dim=1) - positive_logits


def order_loss(positive_logits: Tensor, ordered: Tensor) -> Tensor:
    """Binary cross-entropy between the target's logit and whether the target is ordered later.

    Args:
        positive_logits: float [n], without what own clicks add (`MultiTRON.own_part`).
        ordered: bool or float [n].

    Returns:
        float [n], >= 0.
    """
    return F.binary_cross_entropy_with_logits(positive_logits, ordered.to(positive_logits.dtype), reduction="none")


def ordered_softmax_loss(
    click_losses: Tensor, ordered: Tensor, order_rate: float, ordered_share: float = 1.0
) -> Tensor:
    """An order objective that ranks: the click loss, weighted towards the steps whose target is ordered.

    l_o = l_c ((1 - s) + s o / r), o the label, r the order rate, s = `ordered_share`. Its mean over all steps is
    (1 - s) times the mean click loss plus s times the mean click loss of ordered steps, so it has the click loss's
    scale. The binary loss depends on the target's score alone, so it calibrates and does not rank. At s = 1 the few
    ordered steps have weights of 1 / r each, and their noise dominates the gradient. The share of all steps reduces it
    and trains the rank of every item at pi_order = 1 too.

    Args:
        click_losses: float [n], from `click_loss`.
        ordered: bool or float [n].
        order_rate: share of ordered targets in the training data, in [0, 1]; 0 is refused at `ordered_share` = 1.
        ordered_share: s, in (0, 1].

    Returns:
        float [n], >= 0.

    Raises:
        InputError: an order rate or a share out of range.
    """
    if not 0.0 < ordered_share <= 1.0:
        raise InputError(
            "the ordered share lies outside (0, 1]",
            where="losses.ordered_softmax_loss",
            found=ordered_share,
            hint="use 0.5, or 1.0 for the ordered steps alone",
        )
    if not 0.0 <= order_rate <= 1.0 or (order_rate == 0.0 and ordered_share == 1.0):
        raise InputError(
            "the order rate is out of range",
            where="losses.ordered_softmax_loss",
            found=order_rate,
            hint="this loss needs training sessions with orders; use order_loss='bce' or ordered_share below 1 where "
            "there are none",
        )
    weight = ordered.to(click_losses.dtype) * (ordered_share / order_rate if order_rate else 0.0)
    return click_losses * (1.0 - ordered_share + weight)


@dataclass(frozen=True)
class ObjectiveLoss:
    """The loss of an objective.

    Args:
        of_steps: the loss of each step, float [n], from the click losses, float [n], the targets' logits without own
            clicks, float [n], whether each step has the objective's event, bool [n], the rate of the event in the
            training data, and `Objective.share`.
        uninformed_loss: from the click loss of a model that guesses to the mean of this loss for that model, in nats.
        ranks: whether it compares items, so that it also trains the scores of items that were not clicked.
    """

    of_steps: Callable[[Tensor, Tensor, Tensor, float, float], Tensor]
    uninformed_loss: Callable[[float], float]
    ranks: bool


EVENT_LOSSES = {
    "bce": ObjectiveLoss(
        lambda click, logits, happened, rate, share: order_loss(logits, happened),
        uninformed_loss=lambda click: math.log(2.0),
        ranks=False,
    ),
    "ordered_softmax": ObjectiveLoss(
        lambda click, logits, happened, rate, share: ordered_softmax_loss(click, happened, rate, share),
        uninformed_loss=lambda click: click,
        ranks=True,
    ),
    "ranked_bce": ObjectiveLoss(
        lambda click, logits, happened, rate, share: (
            ordered_softmax_loss(click, happened, rate, share) + order_loss(logits, happened)
        ),
        uninformed_loss=lambda click: click + math.log(2.0),
        ranks=True,
    ),
}
"""Losses of events that may follow a click, by the names that the settings `order_loss` and `cart_loss` take."""

OBJECTIVE_LOSSES = {
    "softmax": ObjectiveLoss(
        lambda click, logits, happened, rate, share: click, uninformed_loss=lambda click: click, ranks=True
    ),
    **EVENT_LOSSES,
}
"""Losses of all objectives, by the names that `Objective.loss` takes: that of the next click, and those of events."""


def losses_by_objective(
    objectives: Sequence[Objective], click: Tensor, event_logits: Tensor, labels: Tensor, rates: Sequence[float]
) -> Tensor:
    """The elementwise losses of all objectives.

    Args:
        objectives: k objectives.
        click: float [n], from `click_loss`.
        event_logits: float [n], the targets' logits without own clicks.
        labels: bool [n, k], from `objectives.labels_of`.
        rates: k numbers, share of the training data's targets that have each objective's event.

    Returns:
        float [n, k].
    """
    return torch.stack(
        [
            OBJECTIVE_LOSSES[objective.loss].of_steps(click, event_logits, labels[:, i], rates[i], objective.share)
            for i, objective in enumerate(objectives)
        ],
        dim=1,
    )
