"""Validation after an epoch: losses and recall on held-out sessions at fixed preferences, with fixed negatives.

Both are fixed so that two epochs differ by their weights alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from multitron_core.metrics.ranking import score_blocks, target_ranks
from multitron_core.metrics.steps import step_states
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.keys import preference
from multitron_core.sessions.batches import make_batch, random_of
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig
from multitron_core.training.step import StepLosses, losses_of, table_rows
from multitron_core.training.step_inputs import StepInputs, draw_inputs, to_device

RECALL_SESSIONS = 1024
"""Largest number of held-out sessions, the most recent ones, for recall: it is exact over the whole catalogue."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Sessions that training does not read, and how their losses are computed.

    Args:
        data: the sessions.
        rows: int64, held-out sessions, each of two clicks or more.
        config: batch size, negatives, seed and validation settings.
        losses: the losses.
    """

    data: EncodedSessions
    rows: np.ndarray
    config: TrainingConfig
    losses: StepLosses

    def batches(self, model: MultiTRON, pi: np.ndarray) -> Iterator[StepInputs]:
        """The sessions in batches at one preference, on the model's device; each call draws the same negatives.

        Args:
            model: number of items, clicks that are read, device.
            pi: float32 [objectives].
        """
        device, size = model.item_embedding.weight.device, self.config.data.batch_sessions
        for number, first in enumerate(range(0, len(self.rows), size)):
            random = random_of(self.config.data.seed, -1, number)
            rows = self.rows[first : first + size]
            inputs = draw_inputs(self.data, rows, model.config, self.config, random, device=device, pi=pi)
            yield to_device(inputs, device)


@torch.no_grad()
def validate(model: MultiTRON, held_out: HeldOut) -> dict[str, float]:
    """Losses and click recall@20 at `validation_pi`.

    Args:
        model: on its device; it is put into evaluation mode.
        held_out: the sessions.

    Returns:
        For each pi `validation_{objective}_loss_{pi}` and `validation_click_recall_20_{pi}`. `validation_loss` is the
        mean over the preferences of the scalarised loss; the best epoch has the lowest.
    """
    model.eval()
    preferences, objectives = held_out.config.validation.validation_pi, model.config.objectives
    measured: dict[str, float] = {}
    mean_loss = 0.0
    for key in preferences:
        pi = np.asarray(preference(key, len(objectives)), dtype=np.float32)
        sums, steps = np.zeros(len(objectives) + 1), 0
        for inputs in held_out.batches(model, pi):
            losses = losses_of(model, *table_rows(model, inputs), inputs, held_out.losses)
            total = held_out.losses.scalarise(losses, inputs.pi[inputs.negatives.session_of_step])
            sums += torch.cat([losses.sum(dim=0), total.sum()[None]]).cpu().numpy()
            steps += len(losses)
        for name, loss in zip(objectives, sums, strict=False):
            measured[f"validation_{name}_loss_{key}"] = float(loss / steps)
        recall = _click_recall(model, held_out.data, held_out.rows[-RECALL_SESSIONS:], pi)
        measured[f"validation_click_recall_20_{key}"] = recall
        mean_loss += float(sums[-1] / steps) / len(preferences)
    return {"validation_loss": mean_loss, **measured}


def _click_recall(model: MultiTRON, data: EncodedSessions, rows: np.ndarray, pi: np.ndarray) -> float:
    """Share of steps whose target is among the 20 highest scores of the whole catalogue."""
    batch = make_batch(data, rows, model.config.max_length)
    states = step_states(model, batch, torch.from_numpy(pi))
    targets = torch.from_numpy(batch.targets).to(states.device)
    hits = sum(
        int((target_ranks(scores, targets[block]) <= 20).sum())
        for block, scores in score_blocks(states, model.item_embedding.weight[1:])
    )
    return hits / len(targets)
