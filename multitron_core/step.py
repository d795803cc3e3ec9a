"""One step's numbers: from a batch and its negatives to the losses of every real step, and the gradients.

The embeddings that a step touches (a few thousand of perhaps millions) are gathered once into a small leaf, the model
runs on it, and the gradient of the leaf goes back to its rows. So neither the forward nor the backward pass has a cost
that grows with the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from multitron_core.batches import Batch, part_of, rectangles
from multitron_core.config import TrainingConfig
from multitron_core.hardest import NegativeTable, hardest_logits
from multitron_core.losses import click_loss, order_loss, ordered_softmax_loss
from multitron_core.model import MultiTRON
from multitron_core.negatives import Negatives


def rectangle_overhead(device: torch.device) -> int:
    """What one more rectangle costs, in padded cells: launching its kernels. A GPU takes one rectangle."""
    return 128 if device.type == "cpu" else 1 << 30


class Rows(NamedTuple):
    """A rectangle on the device: sessions `first` to `last - 1`; items int64 [sessions, steps] are columns + 1 of the
    table (0 is padding), lengths int64 [sessions], cells int64 [real steps]."""

    first: int
    last: int
    items: Tensor
    lengths: Tensor
    cells: Tensor


@dataclass(frozen=True, eq=False)
class Work:
    """A batch ready for the device.

    Args:
        batch: the sessions that this process computes, to name them when something goes wrong.
        whole_steps: real steps of the whole batch, over all processes: what means are taken over.
        batch_items: int64 [b + 1], 0 (padding) and the items of the batch.
        uniform_items: int64 [u].
        rows: the rectangles.
        negatives: the columns' copies.
        ordered: bool [n].
        pi: float32 [sessions, objectives].
    """

    batch: Batch
    whole_steps: int
    batch_items: Tensor
    uniform_items: Tensor
    rows: list[Rows]
    negatives: NegativeTable
    ordered: Tensor
    pi: Tensor


def prepare(
    batch: Batch, negatives: Negatives, pi: np.ndarray, *, overhead: int, rank: int = 0, world: int = 1
) -> Work:
    """Lay a batch out for the device: rectangles, local columns, tensors.

    Args:
        batch: the whole batch.
        negatives: drawn for the whole batch.
        pi: float [objectives] or [sessions, objectives], preferences of the whole batch's sessions.
        overhead: see `batches.length_groups`.
        rank, world: which share of the sessions this process computes; the table is the whole batch's in each, so that
            several processes compute what one would.
    """
    part, steps = part_of(batch, rank, world)
    columns = negatives.inputs[steps]
    rows = []
    for rectangle in rectangles(part, overhead) if len(part.lengths) else []:
        items = np.where(rectangle.source >= 0, columns[rectangle.source] + 1, 0)
        lengths = part.lengths[rectangle.first : rectangle.last]
        rows.append(
            Rows(
                rectangle.first,
                rectangle.last,
                torch.from_numpy(items),
                torch.from_numpy(lengths),
                torch.from_numpy(rectangle.cells),
            )
        )
    copies = torch.from_numpy(negatives.batch_copies[rank::world])
    return Work(
        batch=part,
        whole_steps=len(batch.inputs),
        batch_items=torch.from_numpy(np.concatenate([[0], negatives.batch_items])),
        uniform_items=torch.from_numpy(negatives.uniform_items),
        rows=rows,
        negatives=NegativeTable(
            batch_copies=copies.float(),
            uniform_copies=torch.from_numpy(negatives.uniform_copies).float(),
            absent=copies == 0,
            session_of_step=torch.from_numpy(part.session_of_step),
            targets=torch.from_numpy(negatives.targets[steps]),
        ),
        ordered=torch.from_numpy(part.ordered),
        pi=torch.from_numpy(
            np.broadcast_to(pi, (len(batch.lengths), np.shape(pi)[-1]))[rank::world].astype(np.float32)
        ),
    )


def to_device(work: Work, device: torch.device) -> Work:
    """The same work with its tensors on the device."""
    if device.type == "cpu":
        return work

    def move(x: Tensor) -> Tensor:
        return x.pin_memory().to(device, non_blocking=True)

    return Work(
        batch=work.batch,
        whole_steps=work.whole_steps,
        batch_items=move(work.batch_items),
        uniform_items=move(work.uniform_items),
        rows=[Rows(first, last, *map(move, rest)) for first, last, *rest in work.rows],
        negatives=NegativeTable(*map(move, work.negatives)),
        ordered=move(work.ordered),
        pi=move(work.pi),
    )


def flat_states(model: MultiTRON, embeddings: Tensor, work: Work) -> Tensor:
    """States of the real steps, float [n, d], with `embeddings` [b + 1, d] in the place of the whole table."""
    states = [
        functional_call(
            model, {"item_embedding.weight": embeddings}, (rows.items, rows.lengths, work.pi[rows.first : rows.last])
        ).flatten(0, 1)[rows.cells]
        for rows in work.rows
    ]
    return torch.cat(states) if len(states) > 1 else states[0]


def losses_of(
    model: MultiTRON,
    batch_rows: Tensor,
    uniform_rows: Tensor,
    work: Work,
    config: TrainingConfig,
    order_rate: float,
    search: torch.dtype,
) -> Tensor:
    """The elementwise losses of a batch.

    Args:
        model: the model; its item embedding is not read.
        batch_rows: float [b + 1, d], embeddings of `work.batch_items`.
        uniform_rows: float [u, d], embeddings of `work.uniform_items`.
        work: the batch.
        config: negatives and losses.
        order_rate: share of ordered targets in the training data.
        search: dtype of the search of the hardest negatives.

    Returns:
        float32 [n, 2]: click loss, order loss.
    """
    states = flat_states(model, batch_rows, work)
    table = torch.cat([batch_rows[1:], uniform_rows])  # (b + u, d)
    with torch.autocast(states.device.type, enabled=False):
        states = states.float()
        positive = (states * table[work.negatives.targets]).sum(dim=1)
        negative = hardest_logits(
            states,
            table,
            work.negatives,
            kept=config.kept_negatives,
            mask_targets=config.collisions == "masked",
            search=search,
        )
        click = click_loss(positive, negative)
        if config.order_loss == "ordered_softmax":
            order = ordered_softmax_loss(click, work.ordered, order_rate)
        else:
            order = order_loss(positive, work.ordered)
    return torch.stack([click, order], dim=1)
