"""What a front is made of: losses and exact ranks of every step at every preference.

All preferences see the same steps and the same negatives, so their differences are the preference's. The losses are
those of Wilm, Normann, Stepprath (RecSys 2024, arXiv 2407.16828), section 3, by training's own rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, Required, TypedDict

import numpy as np
import polars as pl
import torch
from torch import Tensor

from multitron_core.errors import InputError
from multitron_core.losses.negative_table import NegativeTable, log_copies, mask_not_drawn
from multitron_core.losses.negatives import draw_negatives
from multitron_core.losses.objective_losses import OBJECTIVE_LOSSES, click_loss, losses_by_objective
from multitron_core.metrics.ranking import score_blocks, target_ranks
from multitron_core.metrics.shortlist import Shortlist, shortlist
from multitron_core.metrics.steps import evaluation_batches, step_states, step_table
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.objectives import Objective, labels_of
from multitron_core.sessions.batches import Batch
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig
from multitron_core.utils.parallel import map_in_threads
from multitron_core.utils.topk import top_k

MAX_RANK = 100
"""Ranks are exact down to this one."""

MANY_ITEMS = 10_000
"""So many items make shortlists worth while on a CPU; `benchmarks/front.py` compares both from there on."""

_ANCHORS = 6  # preferences at which the whole catalogue is scored, of a front of many
_LISTED_NEGATIVES = 3  # that each anchor lists, for one that is kept


class HasTestSplit(Protocol):
    """Prepared sessions: something with a test split."""

    @property
    def test(self) -> EncodedSessions: ...


class MeasureOptions(TypedDict, total=False):
    """The keyword arguments of `measure_front`, for those who pass them on."""

    config: Required[TrainingConfig]
    click_loss_mode: Literal["sampled", "exact"]
    repeats: int
    seed: int
    shortlists: bool
    whole_sessions: bool
    progress: Callable[[int, int], None] | None


@dataclass(frozen=True, eq=False)
class FrontMeasurement:
    """What was measured, a number a step and point, before it is summed up.

    Args:
        pi: float64 [points, objectives].
        steps: `metrics.step_table`.
        ranks: int32 [points, steps]; `DEEPEST` + 1 stands for all that is further down.
        losses: float32 [points, steps, objectives].
        reference: float [objectives], what a model that knows nothing scores; the raw hypervolume's default reference.
        objectives: what the model trades off.
    """

    pi: np.ndarray
    steps: pl.DataFrame
    ranks: np.ndarray
    losses: np.ndarray
    reference: tuple[float, ...]
    objectives: tuple[Objective, ...]

    @property
    def ranks_trained(self) -> np.ndarray:
        """bool [points], False where only losses that do not rank have weight, as at pi_order = 1 with "bce": nothing
        trained the scores of items that were not clicked, so ranks there mean little."""
        ranks = np.array([OBJECTIVE_LOSSES[objective.loss].ranks for objective in self.objectives])
        return np.asarray((self.pi[:, ranks] > 0.0).any(axis=1))


def measure_front(
    model: MultiTRON,
    dataset: EncodedSessions | HasTestSplit,
    preferences: Sequence[float] | Sequence[Sequence[float]],
    *,
    config: TrainingConfig,
    click_loss_mode: Literal["sampled", "exact"] = "sampled",
    repeats: int = 1,
    seed: int = 1,
    shortlists: bool = True,
    whole_sessions: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FrontMeasurement:
    """Losses and exact ranks of every step at every preference.

    Args:
        model: put into evaluation mode for the call; it stays on its device.
        dataset: the sessions, or prepared sessions, of which the test split is taken.
        preferences: of a model of two objectives the weights on orders, in [0, 1]; of any model whole preferences, a
            weight an objective.
        config: which negatives and which losses: how the model was trained (`model_folder.training_config`).
        click_loss_mode: "sampled" is the paper's loss among the hardest sampled negatives; "exact" is the softmax over
            the whole catalogue.
        repeats: how often negatives are drawn anew, to damp sampling noise (the paper repeats small sets 256 times).
        seed: of the negatives, which are the same for every preference.
        shortlists: score the whole catalogue at a few preferences alone, where the others follow from these with proof
            (`shortlist`); False scores it at all of them, for the same figures. They are used where they pay: for the
            sampled loss at more than a dozen preferences between two objectives, with ten thousand items, on a CPU.
        whole_sessions: of a model whose positions count from the end, evaluate as the official code does: each step
            then knows how many clicks are still to come (`metrics.step_states`).
        progress: called with the batches done and their number.

    Raises:
        InputError: no session to evaluate, weights that are no preference, labels that the sessions lack, items that
            the model does not know, model weights that are not finite.
    """
    sessions = dataset if isinstance(dataset, EncodedSessions) else dataset.test
    # What training leaves to all steps steadies its gradient; the figure of an objective is of its own steps alone.
    objectives = tuple(replace(objective, share=1.0) for objective in config.objectives(model.config.objectives))
    pi = _preferences(len(objectives), preferences)
    if repeats < 1 or click_loss_mode not in ("sampled", "exact"):
        raise InputError(
            "bad loss settings", found=(click_loss_mode, repeats), hint="'sampled' or 'exact', repeats >= 1"
        )
    batches = evaluation_batches(sessions, model.config.max_length, batch_sessions=config.data.batch_sessions)
    _check_items(model, batches)
    steps = step_table(batches)
    ranks = np.empty((len(pi), len(steps)), dtype=np.int32)
    losses = np.empty((len(pi), len(steps), len(objectives)), dtype=np.float32)
    labels = np.concatenate([labels_of(model.config.objectives, batch.labels, len(batch.targets)) for batch in batches])
    rates = [float(rate) for rate in np.maximum(labels.mean(axis=0), 1e-9)]
    training = model.training
    model.eval()

    def measure(number: int) -> _Measured:
        batch, draws = batches[number], None
        if click_loss_mode == "sampled":
            draws = [_draw(model, batch, config, [seed, number, i]) for i in range(repeats)]
        return _measure(model, batch, draws, config, pi, shortlists, whole_sessions)

    on_cpu = model.item_embedding.weight.device.type == "cpu"
    start = 0
    for number, measured in enumerate(map_in_threads(measure, len(batches), torch.get_num_threads() if on_cpu else 1)):
        place = slice(start, start + len(batches[number].targets))
        ranks[:, place] = measured.ranks.T.cpu()
        of_steps = torch.from_numpy(labels[place])
        of_points = zip(measured.click.T.float().cpu(), measured.event_logits.T.float().cpu(), strict=True)
        for point, (click, event_logits) in enumerate(of_points):
            losses[point, place] = losses_by_objective(objectives, click, event_logits, of_steps, rates)
        start = place.stop
        if progress is not None:
            progress(number + 1, len(batches))
    model.train(training)
    chance = math.log(model.config.items if click_loss_mode == "exact" else 1 + config.negatives.kept_negatives)
    reference = tuple(OBJECTIVE_LOSSES[objective.loss].uninformed_loss(chance) for objective in objectives)
    return FrontMeasurement(pi, steps, ranks, losses, reference, objectives)


def check_list_length(k: int) -> None:
    """Refuse lists that are longer than ranks are exact.

    Raises:
        InputError: k below 1 or above `DEEPEST`.
    """
    if not 1 <= k <= MAX_RANK:
        raise InputError(
            "no such length of a list", where="k", found=k, hint=f"use 1 to {MAX_RANK}: ranks are exact down to there"
        )


def _preferences(objectives: int, preferences: Sequence[float] | Sequence[Sequence[float]]) -> np.ndarray:
    """float64 [points, objectives], rising in the last weight, then in the one before it."""
    pi = np.asarray(preferences, dtype=np.float64)
    if objectives == 2 and pi.ndim == 1:
        pi = np.column_stack([1.0 - pi, pi])
    if pi.shape[1:] != (objectives,) or not len(pi) or not (np.isfinite(pi).all() and (pi >= 0.0).all()):
        raise InputError(
            "preferences must be weights in [0, 1]",
            where=f"a model of {objectives} objectives",
            found=np.asarray(preferences).tolist(),
            hint="give weights on orders, for example [0.0, 0.5, 1.0], or rows of a weight an objective",
        )
    if np.abs(pi.sum(axis=1) - 1.0).max() > 1e-6:
        raise InputError("the weights of a preference must sum to 1", found=pi[np.abs(pi.sum(axis=1) - 1.0).argmax()])
    return pi[np.lexsort(pi.T)]


def _check_items(model: MultiTRON, batches: list[Batch]) -> None:
    largest = max(int(max(batch.inputs.max(), batch.targets.max())) for batch in batches)
    if largest > model.config.items:
        raise InputError(
            "the sessions hold an item that the model does not know",
            where=f"a model of {model.config.items} items",
            found=largest,
            hint="evaluate on sessions of the vocabulary that the model was trained with",
        )
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError("a weight of the model is not finite", where=name, hint="train the model again")


class _Draw(NamedTuple):
    """The negatives of a batch: their columns in the catalogue's scores (int64 [b + u]), and who drew them."""

    columns: Tensor
    table: NegativeTable


def _draw(model: MultiTRON, batch: Batch, config: TrainingConfig, seed: list[int]) -> _Draw:
    """Negatives by training's rules, a function of batch and seed alone."""
    rng = np.random.default_rng(seed)
    drawn = draw_negatives(
        batch, model.config.items, config.negatives.uniform_negatives, config.negatives.in_batch_negatives, rng
    )
    device = model.item_embedding.weight.device
    table = NegativeTable.of(drawn, batch.session_of_step).map_tensors(lambda tensor: tensor.to(device))
    columns = np.concatenate([drawn.batch_items, drawn.uniform_items]) - 1
    return _Draw(torch.from_numpy(columns).to(device), table)


class _Measured(NamedTuple):
    """Of a batch's steps at every preference, each [n, points]: exact ranks, click losses, the targets' logits, and
    these without own clicks."""

    ranks: Tensor
    click: Tensor
    positive: Tensor
    event_logits: Tensor


@torch.inference_mode()
def _measure(
    model: MultiTRON,
    batch: Batch,
    draws: list[_Draw] | None,
    config: TrainingConfig,
    pi: np.ndarray,
    shortlists: bool,
    whole_sessions: bool,
) -> _Measured:
    """Without draws the click loss is the exact one."""
    of_points = [step_states(model, batch, torch.from_numpy(point), whole_sessions=whole_sessions) for point in pi]
    states = torch.stack(of_points, dim=1)
    table = model.item_embedding.weight[1:]
    targets = torch.from_numpy(batch.targets).to(table.device)
    positive = (states * table[targets - 1][:, None]).sum(dim=-1)
    ranks, click = torch.zeros_like(positive, dtype=torch.int64), torch.zeros_like(positive)
    measured = _Measured(ranks, click, positive, positive - _own_scores(model, batch, pi))
    on_a_line = len(model.config.objectives) == 2
    many = len(pi) > 2 * _ANCHORS and len(table) >= MANY_ITEMS
    if shortlists and draws and on_a_line and many and states.device.type == "cpu":  # a GPU multiplies faster
        proven = _measure_listed(states, table, targets, draws, config, measured)
    else:
        proven = torch.zeros_like(positive, dtype=torch.bool)
    _measure_whole(states, table, targets, draws, config, measured, torch.nonzero(~proven.flatten()).squeeze(1))
    return measured


def _own_scores(model: MultiTRON, batch: Batch, pi: np.ndarray) -> Tensor:
    """What own clicks add to the targets' scores, [n, points]."""
    weight = model.item_embedding.weight
    if model.own_clicks is None:
        return weight.new_zeros(())
    clicks, targets = (weight[torch.from_numpy(items).to(weight.device)] for items in (batch.inputs, batch.targets))
    sums = clicks.double().cumsum(0)  # of all sessions: in double, so that one's own is a difference
    first = torch.from_numpy(batch.starts[batch.session_of_step]).to(weight.device)
    so_far = (sums - sums[first] + clicks[first]).to(weight.dtype)
    often = torch.from_numpy(pi).to(weight) @ model.own_clicks  # (points)
    return (so_far * targets).sum(dim=1, keepdim=True) * often


def _measure_whole(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    draws: list[_Draw] | None,
    config: TrainingConfig,
    measured: _Measured,
    wanted: Tensor,
) -> None:
    """Fill in the `wanted` cells, int64 places in [n * points], by the scores of the whole table."""
    ranks, click, positive, _ = (part.flatten() for part in measured)  # views
    steps = wanted // states.shape[1]
    for block, scores in score_blocks(states.flatten(0, 1)[wanted], table):
        cells, of_step = wanted[block], steps[block]
        ranks[cells] = target_ranks(scores, targets[of_step]).clamp(max=MAX_RANK + 1)
        if draws is None:
            click[cells] = torch.logsumexp(scores, dim=1) - positive[cells]
            continue
        losses = torch.zeros_like(positive[cells])
        for draw in draws:
            logits = scores.index_select(1, draw.columns)
            mask_not_drawn(logits, draw.table, of_step, config.negatives.collisions == "masked")
            best = top_k(logits, min(config.negatives.kept_negatives, logits.shape[1]))
            losses += _sampled_click_loss(positive[cells], *best, draw.table, of_step, config)
        click[cells] = losses / len(draws)


def _measure_listed(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    draws: list[_Draw],
    config: TrainingConfig,
    measured: _Measured,
) -> Tensor:
    """Fill in what shortlists prove, bool [n, points]: at the anchors alone the whole table is scored."""
    points = states.shape[1]
    anchors = torch.linspace(0, points - 1, _ANCHORS).round().long()
    proven = torch.zeros_like(measured.ranks, dtype=torch.bool)
    for block, scores in score_blocks(states[:, anchors], table):
        of_block, own = states[block], targets[block] - 1
        listed = shortlist(of_block, anchors, scores.flatten(0, 1), table, min(MAX_RANK, len(table)), always=own)
        ranks, sure = _listed_ranks(listed, own)
        losses = torch.zeros_like(measured.click[block])
        steps = torch.arange(block.start, block.stop)
        for draw in draws:
            logits = scores.flatten(0, 1).index_select(1, draw.columns)
            of_rows = steps.repeat_interleave(_ANCHORS)
            mask_not_drawn(logits, draw.table, of_rows, config.negatives.collisions == "masked")
            size = min(_LISTED_NEGATIVES * config.negatives.kept_negatives, logits.shape[1])
            among = shortlist(of_block, anchors, logits, table[draw.columns], size)
            sure &= among.proven(config.negatives.kept_negatives)
            values, places = among.scores.topk(min(config.negatives.kept_negatives, among.columns.shape[1]), dim=-1)
            columns = among.columns[:, None].expand(-1, points, -1).gather(2, places).clamp(min=0)
            losses += _sampled_click_loss(
                measured.positive[block].flatten(),
                values.flatten(0, 1),
                columns.flatten(0, 1),
                draw.table,
                steps.repeat_interleave(points),
                config,
            ).view_as(losses)
        measured.ranks[block], measured.click[block], proven[block] = ranks, losses / len(draws), sure
    return proven


def _listed_ranks(listed: Shortlist, own: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks of the columns `own`, int64 [n] -> int64 [n, points], and whether they are sure."""
    columns = listed.columns[:, None]
    place = (listed.columns == own[:, None]).int().argmax(dim=1)
    own_scores = listed.scores.gather(2, place[:, None, None].expand(-1, listed.scores.shape[1], 1))
    earlier = columns < own[:, None, None]
    before = (listed.scores > own_scores) | ((listed.scores == own_scores) & earlier)
    ranks = 1 + before.sum(dim=-1)
    return ranks.clamp(max=MAX_RANK + 1), (own_scores.squeeze(2) > listed.bound) | (ranks > MAX_RANK)


def _sampled_click_loss(
    positive: Tensor, values: Tensor, columns: Tensor, table: NegativeTable, steps: Tensor, config: TrainingConfig
) -> Tensor:
    """Training's click loss, float [n], from the largest logits, their columns, and the steps that they are of."""
    rows = table._replace(session_of_step=table.session_of_step[steps])
    return click_loss(positive, values + log_copies(columns, rows, config.negatives.kept_negatives))
