"""What an epoch's model is worth: losses and recall on held-out sessions at fixed preferences, with fixed negatives.

Fixed, so that two epochs differ by their weights alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multitron_core.losses.negatives import draw_negatives
from multitron_core.losses.scalarisation import scalarisation
from multitron_core.metrics.ranking import score_blocks, target_ranks
from multitron_core.metrics.steps import step_states
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.keys import preference
from multitron_core.sessions.batches import make_batch, random_of
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig
from multitron_core.training.step import losses_of
from multitron_core.training.step_inputs import StepInputs, rectangle_overhead, step_inputs, to_device

RECALL_SESSIONS = 1024
"""Recall is exact, over the full catalogue, which costs: at most so many held-out sessions, the most recent, count."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Sessions that training does not see, and how their losses are taken.

    Args:
        data: the sessions.
        rows: int64, the held-out ones, each of two clicks or more.
        config: losses, negatives, seed.
        rates: share of the training data's targets that have each objective's event.
        search: dtype of the search of the hardest negatives.
    """

    data: EncodedSessions
    rows: np.ndarray
    config: TrainingConfig
    rates: Sequence[float]
    search: torch.dtype

    def works(self, model: MultiTRON, pi: np.ndarray) -> Iterator[StepInputs]:
        """Its batches at one preference, float32 [objectives], on the model's device; the same negatives each time."""
        config, device = self.config, model.item_embedding.weight.device
        for number, first in enumerate(range(0, len(self.rows), config.batch_sessions)):
            rows = self.rows[first : first + config.batch_sessions]
            batch = make_batch(self.data, rows, model.config.max_length)
            negatives = draw_negatives(
                batch,
                model.config.items,
                config.uniform_negatives,
                config.in_batch_negatives,
                random_of(config.seed, -1, number),
            )
            yield to_device(
                step_inputs(batch, negatives, pi, model.config, overhead=rectangle_overhead(device)), device
            )

    def losses(self, model: MultiTRON, work: StepInputs) -> Tensor:
        """The losses of a batch, float32 [steps, objectives]."""
        weight = model.item_embedding.weight
        batch_rows, uniform_rows = weight[work.batch_items], weight[work.uniform_items]
        return losses_of(model, batch_rows, uniform_rows, work, self.config, self.rates, self.search)


@torch.no_grad()
def validate(model: MultiTRON, held_out: HeldOut) -> dict[str, float]:
    """Losses and click recall@20 at `config.validation_pi`.

    Args:
        model: on its device; it is put into evaluation mode.
        held_out: the sessions.

    Returns:
        For each pi `validation_{objective}_loss_{pi}` and `validation_click_recall_20_{pi}`, and
        `validation_loss`, the mean over the preferences of the scalarised loss: what decides which epoch is the best.
    """
    model.eval()
    config, objectives = held_out.config, model.config.objectives
    measured: dict[str, float] = {}
    objective = 0.0
    for key in config.validation_pi:
        pi = np.asarray(preference(key, len(objectives)), dtype=np.float32)
        sums, steps = np.zeros(len(objectives) + 1), 0
        for work in held_out.works(model, pi):
            losses = held_out.losses(model, work)
            total = scalarisation(config.scalarisation)(losses, work.pi[work.negatives.session_of_step])
            sums += torch.cat([losses.sum(dim=0), total.sum()[None]]).cpu().numpy()
            steps += len(losses)
        for name, total_loss in zip(objectives, sums, strict=False):
            measured[f"validation_{name}_loss_{key}"] = float(total_loss / steps)
        measured[f"validation_click_recall_20_{key}"] = _recall(
            model, held_out.data, held_out.rows[-RECALL_SESSIONS:], pi
        )
        objective += float(sums[-1] / steps) / len(config.validation_pi)
    return {"validation_loss": objective, **measured}


def _recall(model: MultiTRON, data: EncodedSessions, rows: np.ndarray, pi: np.ndarray) -> float:
    batch = make_batch(data, rows, model.config.max_length)
    states = step_states(model, batch, torch.from_numpy(pi))
    targets = torch.from_numpy(batch.targets).to(states.device)
    hits = sum(
        int((target_ranks(scores, targets[place]) <= 20).sum())
        for place, scores in score_blocks(states, model.item_embedding.weight[1:])
    )
    return hits / len(targets)
