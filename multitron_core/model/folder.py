"""The model folder that training leaves behind, complete or absent.

- `weights.safetensors`
- `config.json`: see `description.ModelDescription`
- `vocabulary.parquet`
- `metrics.parquet`: one row per epoch; not of an imported model
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.model.description import FILE_NAME, ModelDescription
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.utils.atomic_folder import atomic_plain_folder


def write_model_folder(
    out_dir: Path,
    weights: Mapping[str, Tensor],
    description: ModelDescription,
    vocabulary: Vocabulary,
    *,
    history: Sequence[Mapping[str, float]] | None = None,
) -> None:
    """Write a model folder; it replaces an existing one atomically once it is complete.

    Args:
        out_dir: the folder.
        weights: state of the model, on the CPU.
        description: contents of `config.json`.
        vocabulary: the items.
        history: one row per epoch; None writes no `metrics.parquet`.
    """
    with atomic_plain_folder(out_dir) as new:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, new / "weights.safetensors")
        (new / FILE_NAME).write_text(json.dumps(description.to_dict(), indent=2))
        vocabulary.save(new / "vocabulary.parquet")
        if history is not None:
            pl.DataFrame(history).write_parquet(new / "metrics.parquet")


def weights_version(identity: str, weights: Mapping[str, Tensor]) -> str:
    """The version of a model: 12 hexadecimal digits of the SHA-256 of its identity and weights.

    Args:
        identity: what the weights were made from, for example the fingerprint of a training.
        weights: state of the model, on the CPU.
    """
    digest = hashlib.sha256(identity.encode())
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def write_untrained_model(
    out_dir: Path, model: ModelConfig, vocabulary: Vocabulary, *, seed: int = 0, version: str = "untrained"
) -> Path:
    """Write a model folder of random weights, for tests and measurements of speed.

    Args:
        out_dir: the folder.
        model: shape of the model.
        vocabulary: `model.items` items.
        seed: seed of the weights.
        version: version of the model; two models with the same version count as one.

    Returns:
        `out_dir`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = MultiTRON(model).state_dict()
    description = ModelDescription(
        preset="untrained",
        model=model,
        training={},
        vocabulary_hash=vocabulary.hash,
        version=version,
        fingerprint=f"untrained, seed {seed}",
    )
    write_model_folder(out_dir, weights, description, vocabulary, history=[])
    return out_dir


def load_model(folder: Path | str, device: str | torch.device = "cpu") -> MultiTRON:
    """The trained model of a model folder, in evaluation mode.

    Args:
        folder: what `training.train` wrote.
        device: where the weights go.

    Raises:
        InputError: a file is missing, damaged, or does not fit the config.
    """
    folder = Path(folder)
    model = MultiTRON(ModelDescription.read(folder).model)
    try:
        model.load_state_dict(load_file(folder / "weights.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            "the model's weights cannot be read",
            where=folder,
            found=str(error),
            hint="train it again or name another folder",
        ) from error
    return model.to(device).eval()
