"""The steps of test sessions: batches to evaluate, their table, and the model's state at each."""

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

_RECTANGLE_OVERHEAD = 256  # cells that one more rectangle is worth on a CPU


def evaluation_batches(dataset: EncodedSessions, max_length: int, *, batch_sessions: int = 256) -> list[Batch]:
    """The steps to evaluate, in batches of consecutive sessions; sessions of one click have no step and are left out.

    Args:
        dataset: the sessions, in chronological order.
        max_length: steps that count a session, its last ones.
        batch_sessions: sessions that share their negatives in the sampled click loss; bounds memory.

    Raises:
        InputError: no session has two clicks.
    """
    rows = training_rows(dataset)
    if not len(rows):
        raise InputError(
            "there is nothing to evaluate: no session has two clicks",
            where="the sessions to evaluate on",
            found={"sessions": len(dataset)},
            hint="choose a time split that leaves sessions on the test side",
        )
    return [
        make_batch(dataset, rows[first : first + batch_sessions], max_length)
        for first in range(0, len(rows), batch_sessions)
    ]


def step_table(batches: list[Batch]) -> pl.DataFrame:
    """What is known of each step before it is ranked, in the order of the batches.

    Returns:
        `session` Int64 (row of the dataset), `target` Int64 (1-based item index), `ordered` Boolean (the target is
        ordered later), `carted` Boolean (the same, where the data has such labels), `last` Boolean (the session's last
        step).
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
    """The model's state at every step of a batch, from the clicks up to it alone, as a scorer has it.

    Where positions count from the session's end, a whole session read at once would tell each step how many clicks are
    still to come: there each step's clicks are read by themselves.

    Args:
        model: in evaluation mode.
        batch: of at most the model's `max_length` steps a session.
        pi: float [objectives].
        whole_sessions: read them whole all the same, as the official evaluation does.

    Returns:
        float [steps, d] on the model's device, in the batch's order.
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
    weight = model.item_embedding.weight
    states = weight.new_empty(len(batch.inputs), weight.shape[1])
    for length in range(1, int(batch.lengths.max()) + 1):
        starts = batch.starts[np.searchsorted(batch.lengths, length) :]  # of the sessions that have so many steps
        clicks = torch.from_numpy(batch.inputs[starts[:, None] + np.arange(length)]).to(weight.device)
        lengths = torch.full((len(starts),), length, device=weight.device)
        states[torch.from_numpy(starts + length - 1).to(weight.device)] = model.last_states(clicks, lengths, pi)
    return states
