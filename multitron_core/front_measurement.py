"""What a front is made of: losses and exact ranks of every step at every preference.

All preferences see the same steps and the same negatives, so their differences are the preference's. The losses are
those of Wilm, Normann, Stepprath (RecSys 2024, arXiv 2407.16828), section 3, by training's own rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import polars as pl
import torch
from torch import Tensor

from multitron_core.batches import Batch
from multitron_core.config import TrainingConfig
from multitron_core.encoded_sessions import EncodedSessions
from multitron_core.errors import InputError
from multitron_core.hardest import NegativeTable, largest, leave_out, log_copies
from multitron_core.losses import click_loss, order_loss
from multitron_core.metrics import evaluation_batches, score_blocks, step_states, step_table, target_ranks
from multitron_core.model import MultiTRON
from multitron_core.negatives import draw_negatives


class HasTest(Protocol):
    """Prepared sessions: something with a test split."""

    @property
    def test(self) -> EncodedSessions: ...


@dataclass(frozen=True, eq=False)
class FrontMeasurement:
    """What was measured, a number a step and point, before it is summed up.

    Args:
        pi: float64 [points, objectives].
        steps: `metrics.step_table`.
        ranks: int32 [points, steps].
        losses: float32 [points, steps, objectives]: click loss, order loss.
        reference: float [objectives], what a model that knows nothing scores; the raw hypervolume's default reference.
    """

    pi: np.ndarray
    steps: pl.DataFrame
    ranks: np.ndarray
    losses: np.ndarray
    reference: tuple[float, ...]


def measure_front(
    model: MultiTRON,
    dataset: EncodedSessions | HasTest,
    pi_orders: Sequence[float],
    *,
    config: TrainingConfig | None = None,
    click_loss_mode: Literal["sampled", "exact"] = "sampled",
    repeats: int = 1,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FrontMeasurement:
    """Losses and exact ranks of every step at every preference.

    Args:
        model: put into evaluation mode for the call; it stays on its device.
        dataset: the sessions, or prepared sessions, of which the test split is taken.
        pi_orders: weights on orders in [0, 1].
        config: which negatives and which order loss; the default of `TrainingConfig` when None.
        click_loss_mode: "sampled" is the paper's loss among the hardest sampled negatives; "exact" is the softmax over
            the whole catalogue.
        repeats: how often negatives are drawn anew, to damp sampling noise (the paper repeats small sets 256 times).
        seed: of the negatives, which are the same for every preference.
        progress: called with the batches done and their number.

    Raises:
        InputError: no session to evaluate, a preference outside [0, 1], items that the model does not know, weights
            that are not finite.
    """
    config = TrainingConfig() if config is None else config
    sessions = dataset if isinstance(dataset, EncodedSessions) else dataset.test
    pi = _preferences(model, pi_orders)
    if repeats < 1 or click_loss_mode not in ("sampled", "exact"):
        raise InputError(
            "bad loss settings", found=(click_loss_mode, repeats), mend="'sampled' or 'exact', repeats >= 1"
        )
    batches = evaluation_batches(sessions, model.config.max_length, batch_sessions=config.batch_sessions)
    _check_items(model, batches)
    steps = step_table(batches)
    ranks = np.empty((len(pi), len(steps)), dtype=np.int32)
    losses = np.empty((len(pi), len(steps), 2), dtype=np.float32)
    training = model.training
    model.eval()
    start = 0
    for number, batch in enumerate(batches):
        place = slice(start, start + len(batch.targets))
        draws = (
            [_draw(model, batch, config, [seed, number, i]) for i in range(repeats)]
            if click_loss_mode == "sampled"
            else None
        )
        for point, preference in enumerate(pi):
            ranks[point, place], losses[point, place] = _measure(model, batch, draws, config, preference)
        start = place.stop
        if progress is not None:
            progress(number + 1, len(batches))
    model.train(training)
    if config.order_loss == "ordered_softmax":  # its mean over steps is the mean click loss of the ordered steps
        ordered = steps["ordered"].to_numpy()
        losses[:, :, 1] = losses[:, :, 0] * ordered / max(ordered.mean(), 1e-9)
    chance = math.log(model.config.items if click_loss_mode == "exact" else 1 + config.kept_negatives)
    reference = (chance, chance if config.order_loss == "ordered_softmax" else math.log(2.0))
    return FrontMeasurement(pi, steps, ranks, losses, reference)


def _preferences(model: MultiTRON, pi_orders: Sequence[float]) -> np.ndarray:
    """float64 [points, 2], rising in pi_order."""
    if model.config.objectives != ("click", "order"):
        raise InputError(
            "the front is measured between clicks and orders",
            where="ModelConfig.objectives",
            found=model.config.objectives,
            mend="evaluate a model of two objectives",
        )
    orders = np.sort(np.asarray(list(pi_orders), dtype=np.float64))
    if not len(orders) or not ((orders >= 0.0) & (orders <= 1.0)).all():
        raise InputError(
            "pi_orders must be weights in [0, 1]", found=list(pi_orders), mend="for example [0.0, 0.5, 1.0]"
        )
    return np.column_stack([1.0 - orders, orders])


def _check_items(model: MultiTRON, batches: list[Batch]) -> None:
    largest = max(int(max(batch.inputs.max(), batch.targets.max())) for batch in batches)
    if largest > model.config.items:
        raise InputError(
            "the sessions hold an item that the model does not know",
            where=f"a model of {model.config.items} items",
            found=largest,
            mend="evaluate on sessions of the vocabulary that the model was trained with",
        )
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError("a weight of the model is not finite", where=name, mend="train the model again")


class _Draw(NamedTuple):
    """The negatives of a batch: their columns in the catalogue's scores (int64 [b + u]), and who drew them."""

    columns: Tensor
    table: NegativeTable


def _draw(model: MultiTRON, batch: Batch, config: TrainingConfig, seed: list[int]) -> _Draw:
    """Negatives by training's rules, a function of batch and seed alone."""
    rng = np.random.default_rng(seed)
    drawn = draw_negatives(batch, model.config.items, config.uniform_negatives, config.in_batch_negatives, rng)
    device = model.item_embedding.weight.device
    copies = torch.from_numpy(drawn.batch_copies).to(device)
    table = NegativeTable(
        batch_copies=copies.float(),
        uniform_copies=torch.from_numpy(drawn.uniform_copies).float().to(device),
        absent=copies == 0,
        session_of_step=torch.from_numpy(batch.session_of_step).to(device),
        targets=torch.from_numpy(drawn.targets).to(device),
    )
    columns = np.concatenate([drawn.batch_items, drawn.uniform_items]) - 1
    return _Draw(torch.from_numpy(columns).to(device), table)


@torch.inference_mode()
def _measure(
    model: MultiTRON, batch: Batch, draws: list[_Draw] | None, config: TrainingConfig, pi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks int [n] and losses float [n, 2] of a batch's steps; without draws the click loss is the exact one."""
    states = step_states(model, batch, torch.from_numpy(pi))
    weight = model.item_embedding.weight
    targets = torch.from_numpy(batch.targets).to(weight.device)
    positive = (states * weight[targets]).sum(dim=1)
    ranks, click = torch.empty_like(targets), torch.zeros_like(positive)
    for place, scores in score_blocks(states, weight[1:]):
        ranks[place] = target_ranks(scores, targets[place])
        if draws is None:
            click[place] = torch.logsumexp(scores, dim=1) - positive[place]
        for draw in draws or []:
            logits = scores.index_select(1, draw.columns)
            click[place] += _sampled_click_loss(positive[place], logits, draw.table, place, config)
    click /= len(draws or [None])
    order = order_loss(positive, torch.from_numpy(batch.ordered).to(weight.device))
    return ranks.cpu().numpy(), torch.stack([click, order], dim=1).float().cpu().numpy()


def _sampled_click_loss(
    positive: Tensor, logits: Tensor, table: NegativeTable, place: slice, config: TrainingConfig
) -> Tensor:
    """Training's click loss, float [n], from logits [n, b + u] that are there already; `place` says of which steps."""
    leave_out(logits, table, place, config.collisions == "masked")
    values, columns = largest(logits, min(config.kept_negatives, logits.shape[1]))
    rows = table._replace(session_of_step=table.session_of_step[place])
    return click_loss(positive, values + log_copies(columns, rows, config.kept_negatives))
