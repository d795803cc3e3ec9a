"""A small shop and a quick preset, for tests that train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file

from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training import presets
from multitron_core.training.presets import Preset

ITEMS = 60


@dataclass(frozen=True)
class Shop:
    """Prepared sessions, as far as training reads them."""

    train: EncodedSessions
    vocabulary: Vocabulary


def shop(sessions: int = 240, seed: int = 1, order_share: float = 0.2, longest: int = 8) -> Shop:
    """Sessions that walk through a catalogue of six categories, ten items each."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, sessions)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    category = np.repeat(rng.integers(0, 6, sessions), lengths)
    items = (category * 10 + rng.integers(1, 11, offsets[-1])).astype(np.int32)
    ordered = rng.random(offsets[-1]) < order_share
    vocabulary = Vocabulary(pl.Series(range(1000, 1000 + ITEMS), dtype=pl.Int64))
    ids = pl.Series([f"session-{i}" for i in range(sessions)], dtype=pl.String)
    return Shop(EncodedSessions(ids, offsets, items, ordered, vocabulary.hash), vocabulary)


def small(**settings: object) -> Preset:
    """The preset `demo`, small enough to train in a second, with some training settings changed."""
    values = {
        "epochs": 3,
        "batch_sessions": 32,
        "learning_rate": 5e-3,
        "schedule": "constant",
        "uniform_negatives": 64,
        "in_batch_negatives": 4,
        "kept_negatives": 20,
        "validation_share": 0.1,
        "checkpoint_steps": 2,
    }
    return presets.named("demo", model={"dimension": 16, "layers": 1}, training=values | settings)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a model folder."""
    return load_file(folder / "weights.safetensors")


def same(one: Path, other: Path) -> bool:
    """Whether two model folders have the same weights, bit by bit."""
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
