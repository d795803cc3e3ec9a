"""Losses per objective, scalarisations, regularisers, and the negatives that losses compare with."""

from multitron_core.losses.objective_losses import (
    EVENT_LOSSES,
    OBJECTIVE_LOSSES,
    ObjectiveLoss,
    click_loss,
    losses_by_objective,
    order_loss,
    ordered_softmax_loss,
)
from multitron_core.losses.regularisers import REGULARISERS, cosine, non_uniformity, regulariser, weighted_shares
from multitron_core.losses.scalarisation import SCALARISATIONS, chebyshev, linear, scalarisation

__all__ = [
    "EVENT_LOSSES",
    "OBJECTIVE_LOSSES",
    "REGULARISERS",
    "SCALARISATIONS",
    "ObjectiveLoss",
    "chebyshev",
    "click_loss",
    "cosine",
    "linear",
    "losses_by_objective",
    "non_uniformity",
    "order_loss",
    "ordered_softmax_loss",
    "regulariser",
    "scalarisation",
    "weighted_shares",
]
