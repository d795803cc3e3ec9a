"""What training derives from the data before its first step: splits, preferences, rates, corrections."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from multitron_core.errors import InputError
from multitron_core.losses.negatives import log_draw_rates
from multitron_core.model.config import ModelConfig
from multitron_core.preference.keys import preference
from multitron_core.preference.objectives import labels_of
from multitron_core.sessions.batches import Batch, make_batch, training_rows
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig


def split_rows(data: EncodedSessions, validation_share: float) -> tuple[np.ndarray, np.ndarray]:
    """The sessions to train on and those held out: the most recent share, none where it rounds to none.

    Args:
        data: sessions in chronological order.
        validation_share: in [0, 1).

    Returns:
        int64 rows of both, sessions of one click left out.

    Raises:
        InputError: nothing is left to train on.
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


def _preferences(config: TrainingConfig, random: np.random.Generator, sessions: int) -> np.ndarray:
    """The preferences that a batch is trained at: float [objectives], or [sessions, objectives] for one each."""
    if config.trained_pi is not None:
        return np.array(preference(config.trained_pi, len(config.beta)))
    return random.dirichlet(config.beta, size=sessions if config.pi_per == "session" else None)


def event_rates(data: EncodedSessions, rows: np.ndarray, model: ModelConfig) -> tuple[float, ...]:
    """Share of the rows' targets that have each objective's event, later in the session; 1 for clicks."""
    found, steps = np.zeros(len(model.objectives), dtype=np.int64), 0
    for batch in _in_parts(data, rows, model):
        found += labels_of(model.objectives, batch.labels, len(batch.targets)).sum(axis=0)
        steps += len(batch.targets)
    return tuple(float(count) / steps for count in found)


def popularity_correction(
    data: EncodedSessions, rows: np.ndarray, model: ModelConfig, config: TrainingConfig
) -> np.ndarray | None:
    """What the logit of each item is lowered by where it is a negative, float64 [items + 1]; None where it is off.

    Args:
        data: the sessions.
        rows: int64, those that are trained on: the correction is a function of them and of the configs alone.
        model: its items, and how many inputs of a session it reads.
        config: the correction's strength, and the draws that it corrects.
    """
    if not config.popularity_correction:
        return None
    inputs = np.zeros(model.items + 1, dtype=np.int64)
    for batch in _in_parts(data, rows, model):
        inputs += np.bincount(batch.inputs, minlength=model.items + 1)
    batch_steps = inputs.sum() * min(1.0, config.batch_sessions / len(rows))
    rates = log_draw_rates(inputs, config.uniform_negatives, config.in_batch_negatives, batch_steps)
    return config.popularity_correction * rates


def _in_parts(data: EncodedSessions, rows: np.ndarray, model: ModelConfig) -> Iterator[Batch]:
    """The rows as large batches, since all at once may be more than memory holds."""
    for first in range(0, len(rows), 1 << 16):
        yield make_batch(data, rows[first : first + (1 << 16)], model.max_length)
