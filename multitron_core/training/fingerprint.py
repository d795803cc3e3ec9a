"""The fingerprint of a training: a short hash of its configuration and data."""

from __future__ import annotations

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
    """The part of `sessions.PreparedSessions` that training reads."""

    @property
    def train(self) -> EncodedSessions: ...
    @property
    def vocabulary(self) -> Vocabulary: ...


def fingerprint(dataset: TrainingData, config: Preset) -> str:
    """A short hash of everything that a training depends on: settings, vocabulary and training sessions without ids.

    The training settings are hashed as JSON of their flat names, so that the fingerprints of version 0.1 stay valid.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(dataset.vocabulary.hash.encode())
    digest.update(json.dumps([dict(config.model), config.training.flat()], sort_keys=True).encode())
    data = dataset.train
    arrays = [(data.offsets, np.int64), (data.items, np.int32), (data.ordered, np.bool_)]
    if data.carted is not None:
        arrays.append((data.carted, np.bool_))
    for array, dtype in arrays:
        for start in range(0, len(array), 1 << 24):  # memory-mapped arrays are read in pieces
            digest.update(np.ascontiguousarray(array[start : start + (1 << 24)], dtype=dtype).tobytes())
    return digest.hexdigest()[:16]


def check_fingerprint(found: Any, identity: str, where: Path) -> None:
    """Refuse a folder or checkpoint of another training.

    Args:
        found: its fingerprint.
        identity: the fingerprint of this training.
        where: the folder or checkpoint.

    Raises:
        InputError: the two differ.
    """
    if found != identity:
        raise InputError(
            "this training has other settings or other data",
            where=where,
            found={"fingerprint": found, "expected": identity},
            hint="name another folder, or train with resume=False (--anew), which replaces it",
        )
