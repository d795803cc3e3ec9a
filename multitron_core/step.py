"""One step's numbers: from a batch and its negatives to the losses of every real step, and the gradients.

The embeddings that a step touches (a few thousand of perhaps millions) are gathered once into a small leaf, the model
runs on it, and the gradient of the leaf goes back to its rows. So neither the forward nor the backward pass has a cost
that grows with the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multitron_core.batches import Batch, part_of, rectangles
from multitron_core.config import ModelConfig, TrainingConfig
from multitron_core.hardest import NegativeTable, hardest_logits
from multitron_core.losses import click_loss, losses_by_objective
from multitron_core.model import MultiTRON
from multitron_core.negatives import Negatives
from multitron_core.objectives import labels_of, objectives_of
from multitron_core.packed import AttentionRows, packed_own_part, packed_states


def rectangle_overhead(device: torch.device) -> int:
    """What one more rectangle costs, in padded cells: launching its kernels. A GPU takes one rectangle."""
    return 64 if device.type == "cpu" else 1 << 30


@dataclass(frozen=True, eq=False)
class Work:
    """A batch ready for the device.

    Args:
        batch: the sessions that this process computes, to name them when something goes wrong.
        whole_steps: real steps of the whole batch, over all processes.
        weights: float32 [n], the share of each step in the mean over the whole batch: 1 / `whole_steps`, and 0 for a
            step that only fills up (see `filled`).
        batch_items: int64 [b], the first rows of the step's table.
        uniform_items: int64 [u], the others.
        inputs: int64 [n], the row of each step's click, in [0, b).
        positions: int64 [n], its position index.
        rows: the attention's rectangles.
        negatives: the columns' copies.
        labels: bool [n, objectives], the steps that have each objective's event; the clicks' column is all true.
        pi: float32 [sessions, objectives].
    """

    batch: Batch
    whole_steps: int
    weights: Tensor
    batch_items: Tensor
    uniform_items: Tensor
    inputs: Tensor
    positions: Tensor
    rows: list[AttentionRows]
    negatives: NegativeTable
    labels: Tensor
    pi: Tensor


def prepare(
    batch: Batch,
    negatives: Negatives,
    pi: np.ndarray,
    model: ModelConfig,
    *,
    overhead: int,
    correction: np.ndarray | None = None,
    rank: int = 0,
    world: int = 1,
) -> Work:
    """Lay a batch out for the device: local columns, rectangles, tensors.

    Args:
        batch: the whole batch.
        negatives: drawn for the whole batch.
        pi: float [objectives] or [sessions, objectives], preferences of the whole batch's sessions.
        model: how positions are counted.
        overhead: see `batches.length_groups`.
        correction: float [items + 1], what the logit of each item is lowered by where it is a negative; None for none.
        rank, world: which share of the sessions this process computes; the table is the whole batch's in each, so that
            several processes compute what one would.
    """
    part, steps = part_of(batch, rank, world)
    positions = np.arange(len(part.inputs)) - np.repeat(part.starts, part.lengths)
    if model.positions == "end":  # the last click has the last position
        positions += np.repeat(model.max_length - part.lengths, part.lengths)
    rows, first = [], 0
    for rectangle in rectangles(part, overhead) if len(part.lengths) else []:
        last = first + len(rectangle.cells)
        rows.append(AttentionRows(first, last, torch.from_numpy(rectangle.cells), *rectangle.source.shape))
        first = last
    copies = torch.from_numpy(negatives.batch_copies[rank::world])
    if correction is not None:
        correction = correction[np.concatenate([negatives.batch_items, negatives.uniform_items])]
    return Work(
        batch=part,
        whole_steps=len(batch.inputs),
        weights=torch.full((len(steps),), 1.0 / len(batch.inputs)),
        batch_items=torch.from_numpy(negatives.batch_items),
        uniform_items=torch.from_numpy(negatives.uniform_items),
        inputs=torch.from_numpy(negatives.inputs[steps]),
        positions=torch.from_numpy(positions),
        rows=rows,
        negatives=NegativeTable(
            batch_copies=copies.float(),
            uniform_copies=torch.from_numpy(negatives.uniform_copies).float(),
            absent=copies == 0,
            session_of_step=torch.from_numpy(part.session_of_step),
            targets=torch.from_numpy(negatives.targets[steps]),
            correction=None if correction is None else torch.from_numpy(correction).float(),
        ),
        labels=torch.from_numpy(labels_of(model.objectives, part.labels, len(part.inputs))),
        pi=torch.from_numpy(
            np.broadcast_to(pi, (len(batch.lengths), np.shape(pi)[-1]))[rank::world].astype(np.float32)
        ),
    )


def moved(work: Work, move: Callable[[Tensor], Tensor]) -> Work:
    """The same work with `move` of each of its tensors."""
    return replace(
        work,
        weights=move(work.weights),
        batch_items=move(work.batch_items),
        uniform_items=move(work.uniform_items),
        inputs=move(work.inputs),
        positions=move(work.positions),
        rows=[row._replace(cells=move(row.cells)) for row in work.rows],
        negatives=work.negatives._replace(
            **{name: move(tensor) for name, tensor in work.negatives._asdict().items() if tensor is not None}
        ),
        labels=move(work.labels),
        pi=move(work.pi),
    )


def to_device(work: Work, device: torch.device) -> Work:
    """The same work with its tensors on the device; what is pinned is copied while the device works."""
    if device.type == "cpu":
        return work
    return moved(work, lambda x: x.to(device, non_blocking=True))


def losses_of(
    model: MultiTRON,
    batch_rows: Tensor,
    uniform_rows: Tensor,
    work: Work,
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
        objectives = objectives_of(model.config.objectives, config)
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
