"""The fingerprint of a training: a short hash of its configuration and data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from multitron_core.errors import InputError
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training.presets import Preset


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


def refuse_another(found: Any, identity: str, where: Path) -> None:
    """Raise InputError where a folder or checkpoint has another fingerprint than `identity`."""
    if found != identity:
        raise InputError(
            "this is a training of another config or other data",
            where=where,
            found={"fingerprint": found, "wanted": identity},
            hint="name another folder, or train with resume=False, which replaces it",
        )
