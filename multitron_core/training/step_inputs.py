"""The inputs of one training step, laid out for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from multitron_core.losses.negative_table import NegativeTable
from multitron_core.losses.negatives import Negatives
from multitron_core.model.config import ModelConfig
from multitron_core.model.packed import AttentionRows
from multitron_core.preference.objectives import labels_of
from multitron_core.sessions.batches import Batch, part_of, rectangles


def rectangle_overhead(device: torch.device) -> int:
    """What one more rectangle costs, in padded cells: launching its kernels. A GPU takes one rectangle."""
    return 64 if device.type == "cpu" else 1 << 30


@dataclass(frozen=True, eq=False)
class StepInputs:
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


def step_inputs(
    batch: Batch,
    negatives: Negatives,
    pi: np.ndarray,
    model: ModelConfig,
    *,
    overhead: int,
    correction: np.ndarray | None = None,
    rank: int = 0,
    world: int = 1,
) -> StepInputs:
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
    return StepInputs(
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


def map_tensors(work: StepInputs, move: Callable[[Tensor], Tensor]) -> StepInputs:
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


def to_device(work: StepInputs, device: torch.device) -> StepInputs:
    """The same work with its tensors on the device; what is pinned is copied while the device works."""
    if device.type == "cpu":
        return work
    return map_tensors(work, lambda x: x.to(device, non_blocking=True))
