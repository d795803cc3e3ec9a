"""Checkpoints of a training: tensors and state in one safetensors file, replaced atomically. No pickle.

A checkpoint is one file because one rename is atomic: a process that is killed while writing leaves the checkpoint
before.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from multitron_core.errors import InputError
from multitron_core.training.failures import is_out_of_memory
from multitron_core.training.fingerprint import check_fingerprint
from multitron_core.training.optimiser import Adam
from multitron_core.utils.atomic_file import atomic_file


@dataclass
class TrainingState:
    """The progress of a training; changed by its loop, stored in its checkpoint.

    Args:
        epoch, batch: the next batch, both from 0.
        sums: sums over the epoch's steps so far of what `StepLosses.names` lists.
        steps: number of real steps of the epoch so far.
        seconds: duration of the epoch so far.
        history: one row of metrics per finished epoch.
        best_epoch, best_loss: epoch with the lowest validation loss, -1 before the first validation.
    """

    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf

    def add_batch(self, means: list[float], steps: int, seconds: float) -> None:
        """Count a finished batch: its means, its real steps over all processes, its duration."""
        sums = self.sums or [0.0] * len(means)
        self.sums = [total + mean * steps for total, mean in zip(sums, means, strict=True)]
        self.steps += steps
        self.batch += 1
        self.seconds += seconds

    def means(self) -> list[float]:
        """Means over the epoch's steps so far."""
        return [total / self.steps for total in self.sums]

    def row(self, names: Sequence[str], sessions: int) -> dict[str, float]:
        """The row of metrics of the finished epoch.

        Args:
            names: what the means are of.
            sessions: number of sessions of an epoch.
        """
        row: dict[str, float] = {"epoch": self.epoch + 1}
        row |= {f"train_{name}": mean for name, mean in zip(names, self.means(), strict=True)}
        return row | {"seconds": self.seconds, "sessions_per_second": sessions / self.seconds}

    def next_epoch(self, row: dict[str, float]) -> TrainingState:
        """The state after the epoch that `row` describes."""
        return TrainingState(
            epoch=self.epoch + 1, history=[*self.history, row], best_epoch=self.best_epoch, best_loss=self.best_loss
        )

    def finished(self, epochs: int, patience: int) -> bool:
        """Whether all epochs are done, or `patience` epochs in a row did not improve the validation loss."""
        waited = self.epoch - 1 - self.best_epoch
        return self.epoch >= epochs or (0 < patience <= waited and self.best_epoch >= 0)


def save_training(
    path: Path,
    model: nn.Module,
    optimiser: Adam,
    best: Mapping[str, Tensor],
    state: TrainingState,
    identity: str,
) -> None:
    """Write the checkpoint of a training.

    Args:
        path: the file.
        model: its weights are stored.
        optimiser: its running means are stored.
        best: weights of the best epoch so far, empty before the first validation.
        state: the progress.
        identity: fingerprint of the training.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"adam.{name}": tensor for name, tensor in optimiser.state().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    save_checkpoint(path, tensors, {"fingerprint": identity, "progress": dataclasses.asdict(state)})


def load_training(
    path: Path, model: nn.Module, optimiser: Adam, identity: str
) -> tuple[TrainingState, dict[str, Tensor]]:
    """Restore model and optimiser from a checkpoint, in place.

    Returns:
        The progress, and the weights of the best epoch so far.

    Raises:
        InputError: the file cannot be read, or is of another training.
    """
    tensors, state = load_checkpoint(path)
    check_fingerprint(state.get("fingerprint"), identity, path)

    def under(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    model.load_state_dict(under("model."))
    optimiser.load(under("adam."))
    return TrainingState(**state["progress"]), under("best.")


def save_checkpoint(path: Path | str, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and state; an existing file stays complete until the new one is on the disk.

    Args:
        path: the file; its folder is made if it is missing.
        tensors: tensors by name.
        state: values that JSON can hold; floats are restored exactly.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path, sync=True) as new:
        save_file(whole, new, metadata={"state": json.dumps(state)})


def load_checkpoint(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_checkpoint` wrote, tensors on the CPU.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise  # the file may be complete
        raise InputError(
            "the checkpoint cannot be read",
            where=path,
            found=str(error),
            hint="delete it, or train with resume=False (--anew): training starts again",
        ) from error
