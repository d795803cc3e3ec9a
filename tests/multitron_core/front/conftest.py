"""A small model and random sessions for the tests of fronts."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig

ITEMS = 30
SMALL = TrainingConfig(batch_sessions=4, uniform_negatives=40, in_batch_negatives=3, kept_negatives=8)


def random_sessions(sessions: int = 11, *, seed: int = 0) -> EncodedSessions:
    """Sessions of one to eight random clicks; about 30 % of the clicks are ordered later."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 9, sessions))]).astype(np.int64)
    return EncodedSessions(
        pl.Series([str(s) for s in range(sessions)]),
        offsets,
        rng.integers(1, ITEMS + 1, offsets[-1]).astype(np.int32),
        rng.random(offsets[-1]) < 0.3,
        "hash",
    )


@pytest.fixture
def model() -> MultiTRON:
    """An untrained model of `ITEMS` items in evaluation mode."""
    torch.manual_seed(1)
    return MultiTRON(ModelConfig(items=ITEMS, dimension=8, max_length=5, item_scale=1.0)).eval()
