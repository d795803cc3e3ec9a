"""The model folder: what training leaves behind, whole or not at all.

`weights.safetensors`, `config.json` (model, training, the vocabulary's hash, the fingerprint of what was trained on,
the version), `vocabulary.parquet`, `metrics.parquet` (a row an epoch).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.utils.atomic_folder import atomic_plain_folder
from multitron_core.utils.settings import from_dict


def write_model_folder(
    out_dir: Path,
    weights: dict[str, Tensor],
    *,
    vocabulary: Vocabulary,
    preset: str,
    training: Mapping[str, Any],
    model: ModelConfig,
    identity: str,
    history: list[dict[str, float]],
    details: dict[str, Any],
) -> None:
    """Write a model folder; it replaces an existing one atomically once it is complete.

    Args:
        out_dir: the folder.
        weights: the model's state, on the CPU.
        vocabulary: of the items.
        preset: the name of the preset that it was trained with.
        training: the settings that it was trained with.
        model: its shape.
        identity: what `fingerprint` gave.
        history: a row an epoch.
        details: more of `config.json`.
    """
    digest = hashlib.sha256(identity.encode())
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    described = {
        "preset": preset,
        "model": dataclasses.asdict(model),
        "training": dict(training),
        "vocabulary_hash": vocabulary.hash,
        "fingerprint": identity,
        "version": digest.hexdigest()[:12],
        **details,
    }
    with atomic_plain_folder(out_dir) as new:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, new / "weights.safetensors")
        (new / "config.json").write_text(json.dumps(described, indent=2))
        vocabulary.save(new / "vocabulary.parquet")
        pl.DataFrame(history).write_parquet(new / "metrics.parquet")


def write_untrained_model(
    out_dir: Path, model: ModelConfig, vocabulary: Vocabulary, *, seed: int = 0, version: str = "untrained"
) -> Path:
    """A model folder of random weights, for whoever asks how fast or whether at all, and not how well.

    Args:
        out_dir: the folder.
        model: its shape.
        vocabulary: of `model.items` items.
        seed: of the weights.
        version: the model's; two of one version count as one model.

    Returns:
        The folder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = MultiTRON(model).state_dict()
    write_model_folder(
        out_dir,
        weights,
        vocabulary=vocabulary,
        preset="untrained",
        training={},
        model=model,
        identity=f"untrained, seed {seed}",
        history=[],
        details={"version": version},
    )
    return out_dir


def load_model(folder: Path | str, device: str | torch.device = "cpu") -> MultiTRON:
    """The trained model of a model folder, in evaluation mode.

    Args:
        folder: what `training.train` wrote (`weights.safetensors`, `config.json`).
        device: where the weights go.

    Raises:
        InputError: a file is missing, damaged, or does not fit the config.
    """
    folder = Path(folder)
    try:
        config = from_dict(ModelConfig, json.loads((folder / "config.json").read_text())["model"])
        model = MultiTRON(config)
        model.load_state_dict(load_file(folder / "weights.safetensors"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            "the model cannot be read", where=folder, found=str(error), hint="train it again or name another folder"
        ) from error
    return model.to(device).eval()
