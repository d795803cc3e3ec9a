"""What training derives from the data before its first step: splits, event rates, corrections; and preferences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from multitron_core.errors import InputError
from multitron_core.losses.negatives import log_draw_rates
from multitron_core.losses.objective_losses import OBJECTIVE_LOSSES
from multitron_core.model.config import ModelConfig
from multitron_core.preference.keys import preference
from multitron_core.preference.objectives import Objective, labels_of
from multitron_core.sessions.batches import Batch, make_batch, training_rows
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import DataSettings, TrainingConfig


def split_rows(data: EncodedSessions, validation_share: float) -> tuple[np.ndarray, np.ndarray]:
    """Sessions to train on, and the most recent share, which is held out; none where it rounds to none.

    Args:
        data: sessions in chronological order.
        validation_share: in [0, 1).

    Returns:
        int64 rows of both; sessions of one click are excluded.

    Raises:
        InputError: no session to train on is left.
    """
    rows = training_rows(data)
    cut = len(rows) - int(len(rows) * validation_share)
    if not cut:
        raise InputError(
            "there is no session to train on",
            where="training.train",
            found={"sessions": len(data), "of two clicks or more": len(rows)},
            hint="prepare the sessions with a split that leaves training sessions of two clicks or more",
        )
    return rows[:cut], rows[cut:]


def draw_preferences(settings: DataSettings, random: np.random.Generator, sessions: int) -> np.ndarray:
    """The preferences that a batch is trained at.

    Args:
        settings: the distribution, or one fixed preference.
        random: the source of randomness.
        sessions: number of sessions in the batch.

    Returns:
        float64 [objectives] for all sessions, or [sessions, objectives].
    """
    if settings.trained_pi is not None:
        return np.array(preference(settings.trained_pi, len(settings.beta)))
    return random.dirichlet(settings.beta, size=sessions if settings.pi_per == "session" else None)


def check_beta(objectives: Sequence[Objective], beta: Sequence[float]) -> None:
    """Refuse a beta that does not have one number per objective.

    Raises:
        InputError: numbers are missing or too many.
    """
    if len(objectives) != len(beta):
        raise InputError(
            "beta must have one number per objective",
            where="training.train",
            found={"objectives": tuple(objective.name for objective in objectives), "beta": tuple(beta)},
            hint=f"give {len(objectives)} numbers, or use Preset.with_objectives",
        )


def check_events(objectives: Sequence[Objective], rates: Sequence[float]) -> None:
    """Refuse a loss of ordered steps alone where no training session has such a step.

    Raises:
        InputError: such an objective.
    """
    for objective, rate in zip(objectives, rates, strict=True):
        if OBJECTIVE_LOSSES[objective.loss].ranks and objective.share == 1.0 and rate == 0.0:
            raise InputError(
                f"no training session has a target with a later {objective.event}",
                where=f"TrainingConfig, losses.{objective.event}_loss",
                found=objective.loss,
                hint=f"use {objective.event}_loss='bce', ordered_share below 1, or training data with "
                f"{objective.event}s",
            )


def event_rates(data: EncodedSessions, rows: np.ndarray, model: ModelConfig) -> tuple[float, ...]:
    """Share of the rows' targets that have each objective's event later in the session; 1 for clicks."""
    found, steps = np.zeros(len(model.objectives), dtype=np.int64), 0
    for batch in _large_batches(data, rows, model):
        found += labels_of(model.objectives, batch.labels, len(batch.targets)).sum(axis=0)
        steps += len(batch.targets)
    return tuple(float(count) / steps for count in found)


def popularity_correction(
    data: EncodedSessions, rows: np.ndarray, model: ModelConfig, config: TrainingConfig
) -> np.ndarray | None:
    """The amount subtracted from the logit of each item where it is a negative, float64 [items + 1]; None if off.

    Args:
        data: the sessions.
        rows: int64, sessions that are trained on; the correction depends on them and on the configs alone.
        model: number of items, and number of clicks that are read.
        config: strength of the correction, and the draws that it corrects.
    """
    settings = config.negatives
    if not settings.popularity_correction:
        return None
    inputs = np.zeros(model.items + 1, dtype=np.int64)
    for batch in _large_batches(data, rows, model):
        inputs += np.bincount(batch.inputs, minlength=model.items + 1)
    batch_steps = inputs.sum() * min(1.0, config.data.batch_sessions / len(rows))
    rates = log_draw_rates(inputs, settings.uniform_negatives, settings.in_batch_negatives, batch_steps)
    return settings.popularity_correction * rates


def _large_batches(data: EncodedSessions, rows: np.ndarray, model: ModelConfig) -> Iterator[Batch]:
    """The rows in batches of 65,536 sessions: all at once may be more than memory holds."""
    for first in range(0, len(rows), 1 << 16):
        yield make_batch(data, rows[first : first + (1 << 16)], model.max_length)
