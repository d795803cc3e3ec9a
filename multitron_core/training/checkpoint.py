"""Checkpoints: tensors and state in one safetensors file, replaced atomically. No pickle.

One file, because one rename is atomic: whoever is killed while writing leaves the checkpoint before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multitron_core.errors import InputError
from multitron_core.training.devices import is_out_of_memory
from multitron_core.utils.atomic_file import atomic_file


def save_checkpoint(path: Path | str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and state; what stood at `path` stays whole until the new file is on the disk.

    Args:
        path: the file; its folder is made when it is missing.
        tensors: by name.
        state: what JSON can hold; floats come back to the bit.
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
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise  # the file may be whole
        raise InputError(
            "the checkpoint cannot be read",
            where=path,
            found=str(error),
            hint="delete it, or train with resume=False: training starts anew",
        ) from error
