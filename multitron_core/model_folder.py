"""The model folder: what training leaves behind, whole or not at all.

`weights.safetensors`, `config.json` (model, training, the vocabulary's hash, the fingerprint of what was trained on,
the version), `vocabulary.parquet`, `metrics.parquet` (a row an epoch).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor

from multitron_core.config import ModelConfig, TrainingConfig, from_dict
from multitron_core.encoded_sessions import EncodedSessions
from multitron_core.errors import InputError
from multitron_core.model import MultiTRON
from multitron_core.preset import Preset
from multitron_core.vocabulary import Vocabulary


class TrainingData(Protocol):
    """What training reads of `sessions.PreparedSessions`."""

    @property
    def train(self) -> EncodedSessions: ...
    @property
    def vocabulary(self) -> Vocabulary: ...


def fingerprint(dataset: TrainingData, config: Preset) -> str:
    """What a training depends on, as a short hash: config, vocabulary and training sessions (without their ids)."""
    digest = hashlib.sha256(dataset.vocabulary.hash.encode())
    digest.update(json.dumps([dict(config.model), dataclasses.asdict(config.training)], sort_keys=True).encode())
    data = dataset.train
    arrays = [(data.offsets, np.int64), (data.items, np.int32), (data.ordered, np.bool_)]
    if data.carted is not None:
        arrays.append((data.carted, np.bool_))
    for array, dtype in arrays:
        for start in range(0, len(array), 1 << 24):  # memory-mapped arrays are read piece by piece
            digest.update(np.ascontiguousarray(array[start : start + (1 << 24)], dtype=dtype).tobytes())
    return digest.hexdigest()[:16]


def write_model_folder(
    out_dir: Path,
    weights: dict[str, Tensor],
    *,
    vocabulary: Vocabulary,
    preset: Preset,
    model: ModelConfig,
    identity: str,
    history: list[dict[str, float]],
    details: dict[str, Any],
) -> None:
    """Write a model folder beside its place and rename it there; an older one goes only then.

    Args:
        out_dir: the folder.
        weights: the model's state, on the CPU.
        vocabulary: of the items.
        preset: how it was trained.
        model: its shape.
        identity: what `fingerprint` gave.
        history: a row an epoch.
        details: more of `config.json`.
    """
    writing = out_dir.with_name(out_dir.name + ".writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    digest = hashlib.sha256(identity.encode())
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    described = {
        "preset": preset.name,
        "model": dataclasses.asdict(model),
        "training": dataclasses.asdict(preset.training),
        "vocabulary_hash": vocabulary.hash,
        "fingerprint": identity,
        "version": digest.hexdigest()[:12],
        **details,
    }
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, writing / "weights.safetensors")
    (writing / "config.json").write_text(json.dumps(described, indent=2))
    vocabulary.save(writing / "vocabulary.parquet")
    pl.DataFrame(history).write_parquet(writing / "metrics.parquet")
    if out_dir.exists():  # a folder cannot be renamed onto another
        old = out_dir.with_name(out_dir.name + ".replaced")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(out_dir, old)
        os.replace(writing, out_dir)
        shutil.rmtree(old)
    else:
        os.replace(writing, out_dir)


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
        preset=Preset("untrained"),
        model=model,
        identity=f"untrained, seed {seed}",
        history=[],
        details={"version": version},
    )
    return out_dir


def training_config(folder: Path | str) -> TrainingConfig:
    """How the model of a folder was trained, for example what its front is measured with.

    Raises:
        InputError: not a model folder.
    """
    path = Path(folder) / "config.json"
    try:
        return from_dict(TrainingConfig, json.loads(path.read_text())["training"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "not a model folder", where=path, found=str(error), mend="name the folder that training wrote"
        ) from error


def refuse_another(found: Any, identity: str, where: Path) -> None:
    """Raise InputError where a folder or checkpoint has another fingerprint than `identity`."""
    if found != identity:
        raise InputError(
            "this is a training of another config or other data",
            where=where,
            found={"fingerprint": found, "wanted": identity},
            mend="name another folder, or train with resume=False, which replaces it",
        )
