"""Failures of a run as errors that name the place, the value and the setting to change."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from multitron_core.errors import InputError
from multitron_core.sessions.batches import Batch
from multitron_core.training.presets import Preset


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; on a CPU, torch raises a plain RuntimeError for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    signs = ("can't allocate memory", "cannot allocate memory", "not enough memory", "can't start new thread")
    return any(sign in str(error).lower() for sign in signs)


def out_of_memory(preset: Preset, items: int, *, where: str | None, graphs: bool) -> InputError:
    """The error for too little memory, with the settings to lower.

    Args:
        preset: what was trained.
        items: size of the catalogue.
        where: epoch, batch and device; None before the first batch.
        graphs: whether CUDA graphs were used.
    """
    sizes = {"items": items, "dimension": preset.model_config(items).dimension}
    if where is None:
        return InputError(
            "out of memory",
            where="training, before its first batch",
            found=sizes,
            hint="lower dimension, or prepare the sessions again with fewer items (min_item_clicks)",
        )
    data, negatives = preset.training.data, preset.training.negatives
    return InputError(
        "out of memory",
        where=where,
        found={"batch_sessions": data.batch_sessions, "uniform_negatives": negatives.uniform_negatives} | sizes,
        hint=("set cuda_graphs to false, since graphs keep memory for each size of batch, or " if graphs else "")
        + "lower batch_sessions, then uniform_negatives; for a large catalogue lower dimension, or use "
        "optimiser='lazy_adam', which stores one number less per weight; the last checkpoint is kept",
    )


def check_loss(
    loss: float, limit: float, batch: Batch, session_ids: pl.Series, *, where: str, checkpoint: Path
) -> None:
    """Refuse a batch loss that is not finite or above the limit.

    Args:
        loss: mean over the batch.
        limit: `loss_limit`.
        batch: the batch, whose first sessions the error names.
        session_ids: ids of all sessions of the data.
        where: epoch and batch.
        checkpoint: the last one.

    Raises:
        InputError: such a loss.
    """
    if loss <= limit:  # False for NaN too
        return
    ids = session_ids.gather(batch.sessions).to_list()
    raise InputError(
        "the loss has exploded" if math.isfinite(loss) else "the loss is not finite",
        where=f"{where}, sessions {', '.join(map(str, ids[:8]))}" + (f" and {len(ids) - 8} more" if ids[8:] else ""),
        found=loss,
        hint="lower learning_rate, or raise loss_limit if so large a loss is intended; the last checkpoint is "
        f"{checkpoint}",
    )


def check_weights(weights: Mapping[str, Tensor], *, where: str, checkpoint: Path) -> None:
    """Refuse weights that are not finite, before they replace the last checkpoint.

    Raises:
        InputError: such a weight.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise InputError(
            "a weight is not finite", where=where, hint=f"lower learning_rate; the last checkpoint is {checkpoint}"
        )
