"""The computation of one step: from its inputs to the losses of every real step and their gradients.

The embeddings that a step reads (a few thousand of perhaps millions) are gathered once into a small table. The model
runs on that table, and the gradient of the table goes back to its rows. So the cost of neither the forward nor the
backward pass grows with the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multitron_core.losses.hard_negatives import hardest_logits
from multitron_core.losses.objective_losses import click_loss, losses_by_objective
from multitron_core.losses.regularisers import Elementwise, regulariser
from multitron_core.losses.scalarisation import scalarisation
from multitron_core.model.packed import packed_own_part, packed_states
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.objectives import Objective
from multitron_core.training.config import TrainingConfig
from multitron_core.training.step_inputs import StepInputs

Gradients = tuple[Tensor, list[Tensor]]
"""Means over the batch of what `StepLosses.names` lists, and the gradients: of `dense_parameters`, then of the rows of
`StepInputs.batch_items` and of `uniform_items`."""


@dataclass(frozen=True)
class StepLosses:
    """What a training minimises; made once per run.

    Args:
        objectives: k objectives with their losses.
        rates: k numbers, share of the training data's targets that have each objective's event.
        kept_negatives: number of negatives that reach the click loss, per step.
        mask_targets: exclude a step's own target from its negatives.
        search: dtype of the search for the hardest negatives.
        scalarise: losses [n, k] and pi [n, k] -> [n].
        regularise: the same, the regulariser without its weight.
        regularisation: weight of the regulariser, lambda of equation 4.
    """

    objectives: tuple[Objective, ...]
    rates: tuple[float, ...]
    kept_negatives: int
    mask_targets: bool
    search: torch.dtype
    scalarise: Elementwise
    regularise: Elementwise
    regularisation: float

    @classmethod
    def of(
        cls, config: TrainingConfig, objectives: Sequence[str], rates: Sequence[float], search: torch.dtype
    ) -> StepLosses:
        """The losses that a config gives a model with objectives of these names.

        Raises:
            InputError: an unknown objective.
        """
        losses, negatives = config.losses, config.negatives
        return cls(
            objectives=config.objectives(objectives),
            rates=tuple(rates),
            kept_negatives=negatives.kept_negatives,
            mask_targets=negatives.collisions == "masked",
            search=search,
            scalarise=scalarisation(losses.scalarisation),
            regularise=regulariser(losses.regulariser, losses.regulariser_g),
            regularisation=losses.regularisation,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What a step reports the mean of: the total loss, the loss of each objective, the regulariser."""
        return ("loss", *(f"{objective.name}_loss" for objective in self.objectives), "regulariser")


def dense_parameters(model: MultiTRON) -> list[nn.Parameter]:
    """All parameters but the item embedding, which has its gradient by rows."""
    return [parameter for parameter in model.parameters() if parameter is not model.item_embedding.weight]


def table_rows(model: MultiTRON, inputs: StepInputs) -> tuple[Tensor, Tensor]:
    """The embeddings that a step reads: float [b, d] of `inputs.batch_items`, float [u, d] of `uniform_items`."""
    weight = model.item_embedding.weight
    return weight.index_select(0, inputs.batch_items), weight.index_select(0, inputs.uniform_items)


def step_gradients(model: MultiTRON, inputs: StepInputs, losses: StepLosses, *, autocast: bool) -> Gradients:
    """The losses of a batch and their gradients.

    Args:
        model: in training mode.
        inputs: the batch, on the model's device.
        losses: what is minimised.
        autocast: run the layers in bfloat16.

    Returns:
        Means in float64 [k + 2], and the gradients.
    """
    with torch.no_grad():
        batch_rows, uniform_rows = table_rows(model, inputs)
    batch_rows, uniform_rows = batch_rows.requires_grad_(), uniform_rows.requires_grad_()
    with torch.autocast(batch_rows.device.type, torch.bfloat16, enabled=autocast):
        of_steps = losses_of(model, batch_rows, uniform_rows, inputs, losses)
    pi = inputs.pi[inputs.negatives.session_of_step]
    penalty = losses.regularise(of_steps, pi)
    total = losses.scalarise(of_steps, pi) + losses.regularisation * penalty
    elementwise = torch.cat([total[:, None], of_steps, penalty[:, None]], dim=1)
    means = inputs.weights.double() @ elementwise.detach().double()
    gradients = torch.autograd.grad(
        total @ inputs.weights,
        [*dense_parameters(model), batch_rows, uniform_rows],
        allow_unused=True,
        materialize_grads=True,
    )
    return means, list(gradients)


def zero_gradients(model: MultiTRON, inputs: StepInputs, losses: StepLosses) -> Gradients:
    """What `step_gradients` returns for a batch without sessions."""
    means = torch.zeros(len(losses.names), dtype=torch.float64, device=model.item_embedding.weight.device)
    return means, [torch.zeros_like(tensor) for tensor in [*dense_parameters(model), *table_rows(model, inputs)]]


def losses_of(
    model: MultiTRON, batch_rows: Tensor, uniform_rows: Tensor, inputs: StepInputs, losses: StepLosses
) -> Tensor:
    """The losses of a batch by step and objective.

    Args:
        model: the model; its item embedding is not read.
        batch_rows: float [b, d], embeddings of `inputs.batch_items`.
        uniform_rows: float [u, d], embeddings of `inputs.uniform_items`.
        inputs: the batch.
        losses: objectives and negatives.

    Returns:
        float32 [n, objectives].
    """
    click, event_logits = click_losses(model, batch_rows, uniform_rows, inputs, losses)
    with torch.autocast(click.device.type, enabled=False):
        return losses_by_objective(losses.objectives, click, event_logits, inputs.labels, losses.rates)


def click_losses(
    model: MultiTRON, batch_rows: Tensor, uniform_rows: Tensor, inputs: StepInputs, losses: StepLosses
) -> tuple[Tensor, Tensor]:
    """The click loss of each step, and the logit of its target.

    Args:
        model, batch_rows, uniform_rows, inputs: as in `losses_of`.
        losses: only its negatives are read.

    Returns:
        float32 [n] click losses, and float32 [n] logits of the targets without what own clicks add.
    """
    if model.config.item_norm == "unit":
        batch_rows, uniform_rows = unit_rows(batch_rows), unit_rows(uniform_rows)
    pi = inputs.pi[inputs.negatives.session_of_step]  # (n, objectives)
    embedded = F.embedding(inputs.clicks, batch_rows)
    states = packed_states(model, embedded, pi, inputs.positions, inputs.rows)  # (n, d)
    table = torch.cat([batch_rows, uniform_rows])  # (b + u, d)
    with torch.autocast(states.device.type, enabled=False):
        states = states.float()
        targets = F.embedding(inputs.negatives.targets, batch_rows)
        positive = event_logits = (states * targets).sum(dim=1)
        if model.own_clicks is not None:
            states = states + packed_own_part(model, embedded, pi, inputs.rows)
            positive = (states * targets).sum(dim=1)
        negative = hardest_logits(
            states,
            table,
            inputs.negatives,
            kept=losses.kept_negatives,
            mask_targets=losses.mask_targets,
            search=losses.search,
        )
        return click_loss(positive, negative), event_logits


def unit_rows(x: Tensor) -> Tensor:
    """Rows of norm 1, float [n, d]: `F.normalize(x, dim=1)`, whose backward pass allocates several such tables."""
    rows: Tensor = _UnitRows.apply(x)
    return rows


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norms = x.norm(dim=1, keepdim=True).clamp(min=1e-12)  # as in F.normalize
        rows = x / norms
        ctx.save_for_backward(rows, norms)
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        rows, norms = ctx.saved_tensors
        along = torch.linalg.vecdot(gradients[0], rows)[:, None]  # this part only changes a row's length
        return torch.addcmul(gradients[0], rows, along, value=-1).div_(norms)
