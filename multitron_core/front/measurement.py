"""Measure a front: losses and exact ranks of every evaluation step at every preference.

All preferences are measured on the same steps and the same negatives, so differences between them are due to the
preference. The losses are those of Wilm, Normann and Stepprath (RecSys 2024, arXiv 2407.16828), section 3, computed
with the loss functions of training.
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
from multitron_core.front.shortlists import ANCHORS, measure_shortlists
from multitron_core.front.whole_catalogue import SampledNegatives, ScoredSteps, measure_whole_catalogue
from multitron_core.losses.negative_table import NegativeTable
from multitron_core.losses.negatives import draw_negatives
from multitron_core.losses.objective_losses import OBJECTIVE_LOSSES, losses_by_objective
from multitron_core.metrics.steps import evaluation_batches, step_states, step_table
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.objectives import Objective, labels_of
from multitron_core.sessions.batches import Batch
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig
from multitron_core.utils.parallel import map_in_threads

MAX_RANK = 100
"""Ranks are exact up to this one."""

MANY_ITEMS = 10_000
"""Catalogue size above which shortlists pay off on a CPU, compared by `benchmarks/front.py`."""


class HasTestSplit(Protocol):
    """Prepared sessions with a test split."""

    @property
    def test(self) -> EncodedSessions: ...


class MeasureOptions(TypedDict, total=False):
    """Keyword arguments of `measure_front`, for functions that pass them on."""

    config: Required[TrainingConfig]
    click_loss_mode: Literal["sampled", "exact"]
    repeats: int
    seed: int
    shortlists: bool
    whole_sessions: bool
    progress: Callable[[int, int], None] | None


@dataclass(frozen=True, eq=False)
class FrontMeasurement:
    """Losses and ranks per step and preference, before aggregation.

    Args:
        pi: float64 [points, objectives], the preferences.
        steps: The evaluation steps, see `metrics.steps.step_table`.
        ranks: int32 [points, steps], ranks of the targets; `MAX_RANK` + 1 stands for all larger ranks.
        losses: float32 [points, steps, objectives], in nats.
        reference: float [objectives], losses of a model without information, which gives all candidates the same
            score. Default reference point of the raw hypervolume.
        objectives: The objectives of the model, with their losses.
    """

    pi: np.ndarray
    steps: pl.DataFrame
    ranks: np.ndarray
    losses: np.ndarray
    reference: tuple[float, ...]
    objectives: tuple[Objective, ...]

    @property
    def ranks_trained(self) -> np.ndarray:
        """Whether training optimised the ranks at each preference, bool [points].

        False where only losses without ranking have weight, for example at pi_order = 1 with the loss "bce". Such a
        loss does not train the scores of items that were not clicked, so ranks carry little information there.
        """
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
        model: Trained model. It is in evaluation mode during the call and stays on its device.
        dataset: Encoded sessions, or prepared sessions whose test split is measured.
        preferences: For two objectives, the weights on orders in [0, 1]. For any number of objectives, rows of one
            weight per objective.
        config: Losses and negatives that the model was trained with (`training.training_config`).
        click_loss_mode: "sampled" is the paper's loss with the hardest sampled negatives, "exact" the softmax loss
            over the whole catalogue.
        repeats: Number of draws of negatives; the click loss is their mean. More draws reduce sampling noise (the paper
            repeats small data sets 256 times).
        seed: Seed of the negatives.
        shortlists: Score the whole catalogue only at a few preferences where shortlists prove the same result for the
            others (`front.shortlists`); False scores it at all preferences. Shortlists are used only where they are
            faster: for the sampled loss at more than 12 preferences of two objectives, with at least `MANY_ITEMS`
            items, on a CPU.
        whole_sessions: For a model whose positions count from the end: evaluate as the official code does, where each
            step's positions reveal how many clicks follow (`metrics.steps.step_states`).
        progress: Called with the number of finished batches and of all batches.

    Raises:
        InputError: No session has a step to evaluate, preferences are invalid, the sessions lack labels of an
            objective or contain items outside the model's catalogue, or a weight of the model is not finite.
    """
    sessions = dataset if isinstance(dataset, EncodedSessions) else dataset.test
    # share=1: reported losses use each objective's own steps. Smaller shares stabilise the gradients of training.
    objectives = tuple(replace(objective, share=1.0) for objective in config.objectives(model.config.objectives))
    pi = _preferences(len(objectives), preferences)
    if repeats < 1 or click_loss_mode not in ("sampled", "exact"):
        raise InputError(
            "invalid loss settings",
            where="click_loss_mode, repeats",
            found=(click_loss_mode, repeats),
            hint="use 'sampled' or 'exact', and repeats >= 1",
        )
    batches = evaluation_batches(sessions, model.config.max_length, batch_sessions=config.data.batch_sessions)
    _check_model_and_items(model, batches)
    steps = step_table(batches)
    ranks = np.empty((len(pi), len(steps)), dtype=np.int32)
    losses = np.empty((len(pi), len(steps), len(objectives)), dtype=np.float32)
    labels = np.concatenate([labels_of(model.config.objectives, batch.labels, len(batch.targets)) for batch in batches])
    rates = [float(rate) for rate in np.maximum(labels.mean(axis=0), 1e-9)]
    training = model.training
    model.eval()

    def measure(number: int) -> _BatchMeasurement:
        batch, negatives = batches[number], None
        if click_loss_mode == "sampled":
            draws = [_draw(model, batch, config, [seed, number, i]) for i in range(repeats)]
            settings = config.negatives
            negatives = SampledNegatives(draws, settings.kept_negatives, settings.collisions == "masked")
        return _measure_batch(model, batch, negatives, pi, shortlists, whole_sessions)

    on_cpu = model.item_embedding.weight.device.type == "cpu"
    start = 0
    for number, measured in enumerate(map_in_threads(measure, len(batches), torch.get_num_threads() if on_cpu else 1)):
        place = slice(start, start + len(batches[number].targets))
        ranks[:, place] = measured.ranks.T.cpu()
        batch_labels = torch.from_numpy(labels[place])
        by_point = zip(measured.click_losses.T.float().cpu(), measured.event_logits.T.float().cpu(), strict=True)
        for point, (click_losses, event_logits) in enumerate(by_point):
            losses[point, place] = losses_by_objective(objectives, click_losses, event_logits, batch_labels, rates)
        start = place.stop
        if progress is not None:
            progress(number + 1, len(batches))
    model.train(training)
    chance = math.log(model.config.items if click_loss_mode == "exact" else 1 + config.negatives.kept_negatives)
    reference = tuple(OBJECTIVE_LOSSES[objective.loss].uninformed_loss(chance) for objective in objectives)
    return FrontMeasurement(pi, steps, ranks, losses, reference, objectives)


def check_list_length(k: int) -> None:
    """Check that ranks are exact up to the list length.

    Raises:
        InputError: k is below 1 or above `MAX_RANK`.
    """
    if not 1 <= k <= MAX_RANK:
        raise InputError(
            "the list length is out of range",
            where="k",
            found=k,
            hint=f"use 1 to {MAX_RANK}: larger ranks are not measured exactly",
        )


def _preferences(objectives: int, preferences: Sequence[float] | Sequence[Sequence[float]]) -> np.ndarray:
    """float64 [points, objectives], sorted by the last weight, then by the one before it."""
    pi = np.asarray(preferences, dtype=np.float64)
    if objectives == 2 and pi.ndim == 1:
        pi = np.column_stack([1.0 - pi, pi])
    if pi.shape[1:] != (objectives,) or not len(pi) or not (np.isfinite(pi).all() and (pi >= 0.0).all()):
        raise InputError(
            "preferences must be weights in [0, 1]",
            where=f"preferences for {objectives} objectives",
            found=np.asarray(preferences).tolist(),
            hint="pass weights on orders, for example [0.0, 0.5, 1.0], or rows of one weight per objective",
        )
    if np.abs(pi.sum(axis=1) - 1.0).max() > 1e-6:
        raise InputError("the weights of a preference must sum to 1", found=pi[np.abs(pi.sum(axis=1) - 1.0).argmax()])
    return pi[np.lexsort(pi.T)]


def _check_model_and_items(model: MultiTRON, batches: list[Batch]) -> None:
    largest = max(int(max(batch.inputs.max(), batch.targets.max())) for batch in batches)
    if largest > model.config.items:
        raise InputError(
            "the sessions contain an item outside the model's catalogue",
            where=f"a catalogue of {model.config.items} items",
            found=largest,
            hint="evaluate on sessions that were encoded with the model's vocabulary",
        )
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError("a weight of the model is not finite", where=name, hint="train the model again")


class _Draw(NamedTuple):
    """Sampled negatives of a batch: columns of the catalogue, int64 [b + u], and the sessions that drew them."""

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


class _BatchMeasurement(NamedTuple):
    """Exact ranks, click losses, and target scores without the term of own clicks, each [n, points]."""

    ranks: Tensor
    click_losses: Tensor
    event_logits: Tensor


@torch.inference_mode()
def _measure_batch(
    model: MultiTRON,
    batch: Batch,
    negatives: SampledNegatives | None,
    pi: np.ndarray,
    shortlists: bool,
    whole_sessions: bool,
) -> _BatchMeasurement:
    """Measure the steps of a batch; without negatives the click loss is the exact one."""
    states_by_point = [
        step_states(model, batch, torch.from_numpy(point), whole_sessions=whole_sessions) for point in pi
    ]
    states = torch.stack(states_by_point, dim=1)  # (n, points, d)
    items = model.item_embedding.weight[1:]
    targets = torch.from_numpy(batch.targets).to(items.device)
    target_scores = (states * items[targets - 1][:, None]).sum(dim=-1)
    scored = ScoredSteps(states, targets, target_scores, items)
    two_objectives = len(model.config.objectives) == 2
    many = len(pi) > 2 * ANCHORS and len(items) >= MANY_ITEMS
    # Only on a CPU: a GPU scores the whole catalogue faster.
    if shortlists and negatives and two_objectives and many and states.device.type == "cpu":
        ranks, losses, proven = measure_shortlists(scored, negatives, max_rank=MAX_RANK)
    else:
        ranks, losses = torch.zeros_like(target_scores, dtype=torch.int64), torch.zeros_like(target_scores)
        proven = torch.zeros_like(target_scores, dtype=torch.bool)
    cells = torch.nonzero(~proven.flatten()).squeeze(1)
    ranks.view(-1)[cells], losses.view(-1)[cells] = measure_whole_catalogue(scored, cells, negatives, max_rank=MAX_RANK)
    return _BatchMeasurement(ranks, losses, target_scores - _own_click_scores(model, batch, pi))


def _own_click_scores(model: MultiTRON, batch: Batch, pi: np.ndarray) -> Tensor:
    """The term of own clicks in the targets' scores, [n, points]; zero for a model without this term."""
    weight = model.item_embedding.weight
    if model.own_clicks is None:
        return weight.new_zeros(())
    clicks, targets = (weight[torch.from_numpy(items).to(weight.device)] for items in (batch.inputs, batch.targets))
    sums = clicks.double().cumsum(0)  # over all sessions; in float64, because a session's sum is a difference of two
    first = torch.from_numpy(batch.starts[batch.session_of_step]).to(weight.device)
    session_sums = (sums - sums[first] + clicks[first]).to(weight.dtype)
    factors = torch.from_numpy(pi).to(weight) @ model.own_clicks  # (points)
    return (session_sums * targets).sum(dim=1, keepdim=True) * factors
