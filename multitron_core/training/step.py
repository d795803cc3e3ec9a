"""One step's numbers: from a batch and its negatives to the losses of every real step, and the gradients.

The embeddings that a step touches (a few thousand of perhaps millions) are gathered once into a small leaf, the model
runs on it, and the gradient of the leaf goes back to its rows. So neither the forward nor the backward pass has a cost
that grows with the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from multitron_core.losses.hard_negatives import hardest_logits
from multitron_core.losses.objective_losses import click_loss, losses_by_objective
from multitron_core.model.packed import packed_own_part, packed_states
from multitron_core.model.transformer import MultiTRON
from multitron_core.training.config import TrainingConfig
from multitron_core.training.step_inputs import StepInputs


def losses_of(
    model: MultiTRON,
    batch_rows: Tensor,
    uniform_rows: Tensor,
    work: StepInputs,
    config: TrainingConfig,
    rates: Sequence[float],
    search: torch.dtype,
) -> Tensor:
    """The elementwise losses of a batch.

    Args:
        model: the model; its item embedding is not read.
        batch_rows: float [b, d], embeddings of `work.batch_items`.
        uniform_rows: float [u, d], embeddings of `work.uniform_items`.
        work: the batch.
        config: negatives and losses.
        rates: share of the training data's targets that have each objective's event.
        search: dtype of the search of the hardest negatives.

    Returns:
        float32 [n, objectives].
    """
    if model.config.item_norm == "unit":
        batch_rows, uniform_rows = unit_rows(batch_rows), unit_rows(uniform_rows)
    pi = work.pi[work.negatives.session_of_step]  # (n, objectives)
    embedded = F.embedding(work.inputs, batch_rows)
    states = packed_states(model, embedded, pi, work.positions, work.rows)  # (n, d)
    table = torch.cat([batch_rows, uniform_rows])  # (b + u, d)
    with torch.autocast(states.device.type, enabled=False):
        states = states.float()
        targets = F.embedding(work.negatives.targets, batch_rows)
        positive = event_logits = (states * targets).sum(dim=1)
        if model.own_clicks is not None:
            states = states + packed_own_part(model, embedded, pi, work.rows)
            positive = (states * targets).sum(dim=1)
        negative = hardest_logits(
            states,
            table,
            work.negatives,
            kept=config.kept_negatives,
            mask_targets=config.collisions == "masked",
            search=search,
        )
        click = click_loss(positive, negative)
        objectives = config.objectives(model.config.objectives)
        return losses_by_objective(objectives, click, event_logits, work.labels, rates)


def unit_rows(x: Tensor) -> Tensor:
    """Rows of norm 1, float [n, d]: `F.normalize(x, dim=1)`, whose own backward pass fills several such tables."""
    rows: Tensor = _UnitRows.apply(x)
    return rows


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norms = x.norm(dim=1, keepdim=True).clamp(min=1e-12)  # as F.normalize has it
        rows = x / norms
        ctx.save_for_backward(rows, norms)
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        rows, norms = ctx.saved_tensors
        along = torch.linalg.vecdot(gradients[0], rows)[:, None]  # only what turns a row moves it
        return torch.addcmul(gradients[0], rows, along, value=-1).div_(norms)
