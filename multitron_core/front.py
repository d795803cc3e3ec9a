"""The front: what every preference costs and gives, measured on held-out sessions.

    python -m multitron_core.front --model MODEL --sessions SESSIONS

All points see the same steps and the same negatives, so their differences are the preference's. The losses are those
of spec Wilm et al. (RecSys 2024, arXiv 2407.16828), section 4; the metrics are exact.
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
from multitron_core.beta_distribution import beta_quantile
from multitron_core.config import TrainingConfig
from multitron_core.encoded_sessions import EncodedSessions
from multitron_core.errors import InputError
from multitron_core.hardest import NegativeTable, largest, leave_out, log_copies
from multitron_core.hypervolume import (
    FrontVolume,
    bootstrap_hypervolume,
    dominated,
    hypervolume,
    normalised_hypervolume,
)
from multitron_core.losses import click_loss, order_loss
from multitron_core.metrics import (
    evaluation_batches,
    ranking_metrics,
    score_blocks,
    step_states,
    step_table,
    target_ranks,
)
from multitron_core.model import MultiTRON
from multitron_core.negatives import draw_negatives
from multitron_core.operating_point import OperatingPoint, choose_operating_point

__all__ = [
    "FrontMeasurement",
    "OperatingPoint",
    "choose_operating_point",
    "evaluate_front",
    "evaluate_points",
    "front_table",
    "front_volume",
    "hypervolume",
    "measure_front",
    "normalised_hypervolume",
    "spaced_preferences",
]


class HasTest(Protocol):
    """Prepared sessions: something with a test split."""

    @property
    def test(self) -> EncodedSessions: ...


def spaced_preferences(
    points: int = 26, *, spacing: Literal["beta", "square"] = "beta", beta: Sequence[float] = (0.5, 0.5)
) -> list[float]:
    """The weights on orders of a front's points, rising from 0 to 1.

    "beta": pi_click is the quantile i / (points - 1) of Beta(beta_click, beta_order), i = 0 ... points - 1, so that
    points lie where training drew its preferences (the paper's Diginetica and OTTO). "square": pi_click is
    (i / (points - 1))^2 (its Yoochoose).

    Raises:
        InputError: fewer than two points, an unknown spacing, or a beta that is not two positive numbers.
    """
    if points < 2:
        raise InputError("a front needs two points or more", found=points, mend="the paper takes 26")
    if len(beta) != 2:
        raise InputError("a front between two objectives needs a beta of two", found=tuple(beta), mend="use (0.5, 0.5)")
    shares = [i / (points - 1) for i in range(points)]
    if spacing == "square":
        clicks = [share * share for share in shares]
    elif spacing == "beta":
        clicks = [beta_quantile(share, beta[0], beta[1]) for share in shares]
    else:
        raise InputError("unknown spacing", found=spacing, mend="use 'beta' or 'square'")
    return [1.0 - click for click in reversed(clicks)]


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


def front_table(measurement: FrontMeasurement, *, k: int = 20) -> pl.DataFrame:
    """A row a preference, rising in pi_order.

    Returns:
        `pi_order`, `pi_click`; `click_loss`, `order_loss` (means over steps, in nats); the metrics of
        `metrics.ranking_metrics`; `dominated` (another point is no worse in both losses and better in one);
        `ranks_trained` (False where pi_click is 0: nothing trained the scores of items that were not clicked, so ranks
        there mean little); `steps`, `ordered_steps`.
    """
    means = measurement.losses.mean(axis=1, dtype=np.float64)
    beaten = dominated(means)
    rows = []
    for point, (pi_click, pi_order) in enumerate(measurement.pi):
        ranked = measurement.steps.with_columns(pl.Series("rank", measurement.ranks[point]))
        rows.append(
            {
                "pi_order": float(pi_order),
                "pi_click": float(pi_click),
                "click_loss": float(means[point, 0]),
                "order_loss": float(means[point, 1]),
                **ranking_metrics(ranked, k=k),
                "dominated": bool(beaten[point]),
                "ranks_trained": bool(pi_click > 0.0),
                "steps": len(ranked),
                "ordered_steps": int(ranked["ordered"].sum()),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def front_volume(
    measurement: FrontMeasurement,
    *,
    reference: Sequence[float] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 1,
) -> FrontVolume:
    """Normalised and raw hypervolume with bootstrap intervals by session.

    Args:
        measurement: what `measure_front` gave.
        reference: of the raw hypervolume; by default the losses of a model that knows nothing (ln of the number of
            candidates, ln 2).
        resamples, level, seed: of the bootstrap.
    """
    _, sessions = np.unique(measurement.steps["session"].to_numpy(), return_inverse=True)
    counts = np.bincount(sessions)
    points, _, k = measurement.losses.shape
    sums = np.empty((len(counts), points, k))
    for point in range(points):
        for j in range(k):
            sums[:, point, j] = np.bincount(sessions, weights=measurement.losses[point, :, j])
    return bootstrap_hypervolume(
        sums,
        counts,
        measurement.reference if reference is None else reference,
        resamples=resamples,
        level=level,
        seed=seed,
    )


def evaluate_points(
    model: MultiTRON,
    dataset: EncodedSessions | HasTest,
    pi_orders: Sequence[float],
    *,
    k: int = 20,
    config: TrainingConfig | None = None,
    click_loss_mode: Literal["sampled", "exact"] = "sampled",
    repeats: int = 1,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """The rows of `front_table` for given weights on orders; arguments as in `measure_front`."""
    measurement = measure_front(
        model,
        dataset,
        pi_orders,
        config=config,
        click_loss_mode=click_loss_mode,
        repeats=repeats,
        seed=seed,
        progress=progress,
    )
    return front_table(measurement, k=k)


def evaluate_front(
    model: MultiTRON,
    dataset: EncodedSessions | HasTest,
    points: int = 26,
    *,
    spacing: Literal["beta", "square"] = "beta",
    beta: Sequence[float] | None = None,
    k: int = 20,
    config: TrainingConfig | None = None,
    click_loss_mode: Literal["sampled", "exact"] = "sampled",
    repeats: int = 1,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """One row a preference: `front_table` at the preferences of `spaced_preferences`.

    Args:
        points: how many.
        spacing: where they lie, with `beta` (that of `config` when None); see `spaced_preferences`.
        k: the length of the lists.
        model, dataset, config, click_loss_mode, repeats, seed, progress: see `measure_front`.
    """
    if beta is None:
        beta = (TrainingConfig() if config is None else config).beta
    return evaluate_points(
        model,
        dataset,
        spaced_preferences(points, spacing=spacing, beta=beta),
        k=k,
        config=config,
        click_loss_mode=click_loss_mode,
        repeats=repeats,
        seed=seed,
        progress=progress,
    )
