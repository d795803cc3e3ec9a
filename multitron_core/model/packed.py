"""The model over flat steps: what `MultiTRON.forward` computes for real steps, padded in the attention only.

All steps of a batch, of sessions of any length, pass the layers as one matrix. Only the attention needs rectangles, and
its padded cells cost little. A test compares the states with those of `MultiTRON.forward`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from multitron_core.model.transformer import EncoderLayer, MultiTRON


class AttentionRows(NamedTuple):
    """One rectangle of the attention: sessions of similar length with consecutive steps, padded on the right.

    Args:
        first, last: the flat steps of the sessions, `first` to `last - 1`.
        cells: int64 [last - first], cell of each step in the flattened rectangle.
        sessions, width: shape of the rectangle.
    """

    first: int
    last: int
    cells: Tensor
    sessions: int
    width: int


def packed_states(
    model: MultiTRON, embeddings: Tensor, pi: Tensor, positions: Tensor, rows: list[AttentionRows]
) -> Tensor:
    """States of flat steps, without what own clicks add (`packed_own_part`).

    Args:
        model: dropout applies in training mode; the item embedding is not read.
        embeddings: float [n, d], item embedding of each step's click.
        pi: float [n, objectives], preference of each step's session.
        positions: int64 [n], position index of each step.
        rows: rectangles that cover the steps in order.

    Returns:
        float [n, d].
    """
    d = model.config.dimension
    x = F.linear(torch.cat([embeddings, pi], dim=1), model.linear.weight, model.linear.bias)
    x = x * math.sqrt(d / 2) + model.position_embedding(positions)
    x = F.dropout(x, model.config.dropout, model.training)
    for layer in model.layers:
        assert isinstance(layer, EncoderLayer)  # ModuleList has no element type
        x = layer.rest(x, _attend(layer, x, rows))
    states: Tensor = model.norm(x)
    return states


def packed_own_part(model: MultiTRON, embeddings: Tensor, pi: Tensor, rows: list[AttentionRows]) -> Tensor:
    """What own clicks add to the states of flat steps, float [n, d]; arguments as in `packed_states`."""
    so_far = [_steps(_padded(embeddings, row).cumsum(1).flatten(0, 1), row.cells) for row in rows]
    return model.own_part(torch.cat(so_far), pi)


def _padded(x: Tensor, row: AttentionRows) -> Tensor:  # (n, c) -> (sessions, width, c), zeros after its end
    padded = x.new_zeros(row.sessions * row.width, x.shape[1])
    return padded.index_copy(0, row.cells, x[row.first : row.last]).view(row.sessions, row.width, -1)


def _steps(padded: Tensor, cells: Tensor) -> Tensor:  # (sessions * width, c) -> (n, c)
    steps: Tensor = _Steps.apply(padded, cells)
    return steps


class _Steps(torch.autograd.Function):
    """padded[cells]. Cells are unique except unread padding, so backward copies instead of accumulating."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, cells: Tensor) -> Tensor:
        ctx.save_for_backward(cells)
        ctx.rows = len(padded)
        return padded.index_select(0, cells)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (cells,) = ctx.saved_tensors
        return gradients[0].new_zeros(ctx.rows, gradients[0].shape[1]).index_copy_(0, cells, gradients[0]), None


def _attend(layer: EncoderLayer, x: Tensor, rows: list[AttentionRows]) -> Tensor:  # (n, d) -> (n, d)
    projected = layer.attention_in(layer.norm1(x))  # (n, 3d)
    attended = []
    for row in rows:
        padded = _padded(projected, row).view(row.sessions, row.width, 3, layer.heads, -1)
        query, key, value = padded.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(
            query, key, value, dropout_p=layer.dropout if layer.training else 0.0, is_causal=True
        )  # (sessions, heads, width, d / heads)
        attended.append(_steps(found.transpose(1, 2).flatten(2).flatten(0, 1), row.cells))
    return torch.cat(attended)
