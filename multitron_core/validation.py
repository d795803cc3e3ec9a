"""What an epoch's model is worth: losses and recall on held-out sessions at fixed preferences, with fixed negatives.

Fixed, so that two epochs differ by their weights alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from multitron_core.batches import make_batch, random_of
from multitron_core.config import TrainingConfig
from multitron_core.encoded_sessions import EncodedSessions
from multitron_core.losses import scalarisation
from multitron_core.metrics import score_blocks, step_states, target_ranks
from multitron_core.model import MultiTRON
from multitron_core.negatives import draw_negatives
from multitron_core.preference import preference
from multitron_core.step import Work, losses_of, prepare, rectangle_overhead, to_device

RECALL_SESSIONS = 1024
"""Recall is exact, over the full catalogue, which costs: at most so many held-out sessions, the most recent, count."""


@torch.no_grad()
def validate(
    model: MultiTRON,
    data: EncodedSessions,
    rows: np.ndarray,
    config: TrainingConfig,
    rates: Sequence[float],
    search: torch.dtype,
) -> dict[str, float]:
    """Losses and click recall@20 at `config.validation_pi`.

    Args:
        model: on its device; it is put into evaluation mode.
        data: the sessions.
        rows: int64, the held-out ones, each of two clicks or more.
        config: losses, negatives, seed.
        rates: share of the training data's targets that have each objective's event.
        search: dtype of the search of the hardest negatives.

    Returns:
        For each pi `validation_{objective}_loss_{pi}` and `validation_click_recall_20_{pi}`, and
        `validation_loss`, the mean over the preferences of the scalarised loss: what decides which epoch is the best.
    """
    model.eval()
    measured: dict[str, float] = {}
    objective = 0.0
    objectives = model.config.objectives
    for key in config.validation_pi:
        pi = np.asarray(preference(key, len(objectives)), dtype=np.float32)
        sums, steps = np.zeros(len(objectives) + 1), 0
        for losses, work in held_out_losses(model, data, rows, pi, config, rates, search):
            total = scalarisation(config)(losses, work.pi[work.negatives.session_of_step])
            sums += torch.cat([losses.sum(dim=0), total.sum()[None]]).cpu().numpy()
            steps += len(losses)
        for name, total_loss in zip(objectives, sums, strict=False):
            measured[f"validation_{name}_loss_{key}"] = float(total_loss / steps)
        measured[f"validation_click_recall_20_{key}"] = _recall(model, data, rows[-RECALL_SESSIONS:], pi)
        objective += float(sums[-1] / steps) / len(config.validation_pi)
    return {"validation_loss": objective, **measured}


def held_out_losses(
    model: MultiTRON,
    data: EncodedSessions,
    rows: np.ndarray,
    pi: np.ndarray,
    config: TrainingConfig,
    rates: Sequence[float],
    search: torch.dtype,
) -> Iterator[tuple[Tensor, Work]]:
    """The losses of held-out sessions at one preference, float32 [steps, objectives] a batch, and what they are of.

    The negatives are the same in each call. Arguments as in `validate`, pi float32 [objectives].
    """
    device = model.item_embedding.weight.device
    for number, first in enumerate(range(0, len(rows), config.batch_sessions)):
        batch = make_batch(data, rows[first : first + config.batch_sessions], model.config.max_length)
        random = random_of(config.seed, -1, number)
        negatives = draw_negatives(
            batch, model.config.items, config.uniform_negatives, config.in_batch_negatives, random
        )
        work = to_device(prepare(batch, negatives, pi, model.config, overhead=rectangle_overhead(device)), device)
        weight = model.item_embedding.weight
        yield losses_of(model, weight[work.batch_items], weight[work.uniform_items], work, config, rates, search), work


def _recall(model: MultiTRON, data: EncodedSessions, rows: np.ndarray, pi: np.ndarray) -> float:
    batch = make_batch(data, rows, model.config.max_length)
    states = step_states(model, batch, torch.from_numpy(pi))
    targets = torch.from_numpy(batch.targets).to(states.device)
    hits = sum(
        int((target_ranks(scores, targets[place]) <= 20).sum())
        for place, scores in score_blocks(states, model.item_embedding.weight[1:])
    )
    return hits / len(targets)
