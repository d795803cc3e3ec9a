"""Evaluation steps of test sessions: their batches, their table, and the model's state at each step."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from multitron_core.errors import InputError
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.objectives import LABELS
from multitron_core.sessions.batches import Batch, make_batch, rectangles, training_rows
from multitron_core.sessions.encoded import EncodedSessions

_RECTANGLE_OVERHEAD = 256  # cost of one more rectangle on a CPU, in cells


def evaluation_batches(dataset: EncodedSessions, max_length: int, *, batch_sessions: int = 256) -> list[Batch]:
    """Batches of consecutive sessions to evaluate; sessions of one click have no step and are left out.

    Args:
        dataset: Sessions in chronological order.
        max_length: Maximum number of steps per session; the last ones are used.
        batch_sessions: Sessions per batch. They share their negatives in the sampled click loss.

    Raises:
        InputError: No session has two clicks.
    """
    rows = training_rows(dataset)
    if not len(rows):
        raise InputError(
            "nothing to evaluate: no session has two clicks",
            where="the sessions to evaluate",
            found={"sessions": len(dataset)},
            hint="choose a time split with sessions in the test split",
        )
    return [
        make_batch(dataset, rows[first : first + batch_sessions], max_length)
        for first in range(0, len(rows), batch_sessions)
    ]


def step_table(batches: list[Batch]) -> pl.DataFrame:
    """Table of the evaluation steps, in the order of the batches.

    Returns:
        One row per step: `session` Int64 (row of the dataset), `target` Int64 (1-based item index), `ordered` Boolean
        (the target is ordered later in the session), `carted` Boolean (the same for carts, if the data has such
        labels), `last` Boolean (last step of its session).
    """
    return pl.concat(
        pl.DataFrame(
            {
                "session": batch.sessions[batch.session_of_step],
                "target": batch.targets,
                **{LABELS[event]: labels for event, labels in batch.labels.items()},
                "last": np.diff(batch.session_of_step, append=-1) != 0,
            }
        )
        for batch in batches
    )


@torch.inference_mode()
def step_states(model: MultiTRON, batch: Batch, pi: Tensor, *, whole_sessions: bool = False) -> Tensor:
    """The model's state at every step of a batch, computed only from the clicks up to the step, as in scoring.

    With positions that count from the end of a session, the position of a click depends on how many clicks follow. Each
    step's clicks are then read as a session that ends with them.

    Args:
        model: Model in evaluation mode.
        batch: Sessions of at most the model's `max_length` steps.
        pi: float [objectives], the preference.
        whole_sessions: Read whole sessions also with positions from the end, as the official evaluation does.

    Returns:
        float [steps, d] on the model's device, in the order of the batch.
    """
    weight = model.item_embedding.weight
    pi = pi.to(device=weight.device, dtype=weight.dtype)
    if model.config.positions == "end" and not whole_sessions:
        return _prefix_states(model, batch, pi)
    states = []
    for part in rectangles(batch, _RECTANGLE_OVERHEAD):
        items = np.where(part.source >= 0, batch.inputs[part.source], 0)
        lengths = torch.from_numpy(batch.lengths[part.first : part.last]).to(weight.device)
        padded = model(torch.from_numpy(items).to(weight.device), lengths, pi).flatten(0, 1)
        states.append(padded[torch.from_numpy(part.cells).to(weight.device)])
    return torch.cat(states)


def _prefix_states(model: MultiTRON, batch: Batch, pi: Tensor) -> Tensor:
    """States of all steps, each from a session that ends with the step."""
    weight = model.item_embedding.weight
    states = weight.new_empty(len(batch.inputs), weight.shape[1])
    for length in range(1, int(batch.lengths.max()) + 1):
        starts = batch.starts[np.searchsorted(batch.lengths, length) :]  # of the sessions with at least `length` steps
        clicks = torch.from_numpy(batch.inputs[starts[:, None] + np.arange(length)]).to(weight.device)
        lengths = torch.full((len(starts),), length, device=weight.device)
        states[torch.from_numpy(starts + length - 1).to(weight.device)] = model.last_states(clicks, lengths, pi)
    return states
