"""The inputs of one step: a batch of sessions with its negatives and preferences, laid out for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from multitron_core.losses.negative_table import NegativeTable
from multitron_core.losses.negatives import Negatives, draw_negatives
from multitron_core.model.config import ModelConfig
from multitron_core.model.packed import AttentionRows
from multitron_core.preference.objectives import labels_of
from multitron_core.sessions.batches import Batch, make_batch, part_of, rectangles
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig
from multitron_core.training.data import draw_preferences


def rectangle_overhead(device: torch.device) -> int:
    """Cost of one more rectangle, in padded cells: the launch of its kernels. A GPU takes one rectangle per batch."""
    return 64 if device.type == "cpu" else 1 << 30


@dataclass(frozen=True, eq=False)
class StepInputs:
    """A batch ready for the device; n counts its steps.

    Args:
        batch: sessions that this process computes, to name them in errors.
        whole_steps: number of real steps of the whole batch, over all processes.
        weights: float32 [n], share of each step in the mean over the whole batch: 1 / `whole_steps`, and 0 for padding
            (see `cuda_graphs.padded_to_bucket`).
        batch_items: int64 [b], first rows of the step's embedding table.
        uniform_items: int64 [u], the other rows.
        clicks: int64 [n], row of each step's click, in [0, b).
        positions: int64 [n], position index of each step.
        rows: rectangles of the attention.
        negatives: which session drew which rows, and how often.
        labels: bool [n, objectives], steps that have each objective's event; the column of clicks is all true.
        pi: float32 [sessions, objectives].
    """

    batch: Batch
    whole_steps: int
    weights: Tensor
    batch_items: Tensor
    uniform_items: Tensor
    clicks: Tensor
    positions: Tensor
    rows: list[AttentionRows]
    negatives: NegativeTable
    labels: Tensor
    pi: Tensor


def draw_inputs(
    data: EncodedSessions,
    rows: np.ndarray,
    model: ModelConfig,
    config: TrainingConfig,
    random: np.random.Generator,
    *,
    device: torch.device,
    pi: np.ndarray | None = None,
    correction: np.ndarray | None = None,
    rank: int = 0,
    world: int = 1,
) -> StepInputs:
    """Draw the negatives and preferences of a batch and lay it out, for training and for validation.

    Args:
        data: the sessions.
        rows: int64, sessions of the batch.
        model: number of items, clicks that are read, positions and objectives.
        config: numbers of negatives, distribution of preferences.
        random: source of the negatives, then of the preferences.
        device: where the inputs will be computed; the result is on the CPU.
        pi: float [objectives], one preference for all sessions; None draws preferences from `config`.
        correction, rank, world: see `step_inputs`.
    """
    batch = make_batch(data, rows, model.max_length)
    settings = config.negatives
    negatives = draw_negatives(batch, model.items, settings.uniform_negatives, settings.in_batch_negatives, random)
    if pi is None:
        pi = draw_preferences(config.data, random, len(batch.lengths))
    return step_inputs(
        batch,
        negatives,
        pi,
        model,
        overhead=rectangle_overhead(device),
        correction=correction,
        rank=rank,
        world=world,
    )


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
        negatives: the negatives of the whole batch.
        pi: float [objectives] or [sessions, objectives], preferences of the sessions of the whole batch.
        model: how positions are counted.
        overhead: see `batches.length_groups`.
        correction: float [items + 1], subtracted from the logit of each item where it is a negative; None for none.
        rank, world: which share of the sessions this process computes. Each process has the table of the whole batch,
            so that several processes compute what one would.
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
    return StepInputs(
        batch=part,
        whole_steps=len(batch.inputs),
        weights=torch.full((len(steps),), 1.0 / len(batch.inputs)),
        batch_items=torch.from_numpy(negatives.batch_items),
        uniform_items=torch.from_numpy(negatives.uniform_items),
        clicks=torch.from_numpy(negatives.inputs[steps]),
        positions=torch.from_numpy(positions),
        rows=rows,
        negatives=NegativeTable.of(
            negatives, part.session_of_step, sessions=slice(rank, None, world), steps=steps, correction=correction
        ),
        labels=torch.from_numpy(labels_of(model.objectives, part.labels, len(part.inputs))),
        pi=torch.from_numpy(
            np.broadcast_to(pi, (len(batch.lengths), np.shape(pi)[-1]))[rank::world].astype(np.float32)
        ),
    )


def map_tensors(inputs: StepInputs, change: Callable[[Tensor], Tensor]) -> StepInputs:
    """The same inputs with `change` of each of their tensors."""
    return replace(
        inputs,
        weights=change(inputs.weights),
        batch_items=change(inputs.batch_items),
        uniform_items=change(inputs.uniform_items),
        clicks=change(inputs.clicks),
        positions=change(inputs.positions),
        rows=[row._replace(cells=change(row.cells)) for row in inputs.rows],
        negatives=inputs.negatives.map_tensors(change),
        labels=change(inputs.labels),
        pi=change(inputs.pi),
    )


def to_device(inputs: StepInputs, device: torch.device) -> StepInputs:
    """The same inputs with their tensors on the device; pinned tensors are copied while the device computes."""
    if device.type == "cpu":
        return inputs
    return map_tensors(inputs, lambda tensor: tensor.to(device, non_blocking=True))
