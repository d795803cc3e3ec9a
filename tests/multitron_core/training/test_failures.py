from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.errors import InputError
from multitron_core.sessions.batches import Batch
from multitron_core.training.failures import check_loss, check_weights, is_out_of_memory, out_of_memory
from tests.multitron_core.training.examples import small

CHECKPOINT = Path("model.checkpoint")


def batch(sessions: int) -> Batch:
    ones = np.ones(sessions, dtype=np.int64)
    return Batch(np.arange(sessions), ones, ones, ones, np.zeros(sessions, dtype=bool))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "mmap"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 12 bytes"), True),
        (RuntimeError("shapes do not match"), False),
        (OSError(errno.ENOSPC, "no space"), False),
    ],
)
def test_is_out_of_memory_by_type_and_text(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_out_of_memory_names_what_to_lower() -> None:
    early = str(out_of_memory(small(), 60, where=None, graphs=False))
    assert "before its first batch" in early
    assert "'dimension': 16" in early
    later = str(out_of_memory(small(), 60, where="epoch 1, batch 0 on cuda", graphs=True))
    assert "where: epoch 1, batch 0 on cuda" in later
    assert "set cuda_graphs to false" in later
    assert "'batch_sessions': 32" in later


@pytest.mark.parametrize(("loss", "words"), [(50.5, "exploded"), (float("nan"), "not finite")])
def test_check_loss_names_at_most_eight_sessions(loss: float, words: str) -> None:
    ids = pl.Series([f"s{number}" for number in range(10)])
    check_loss(50.0, 50.0, batch(10), ids, where="epoch 0, batch 3", checkpoint=CHECKPOINT)
    with pytest.raises(InputError, match=words) as caught:
        check_loss(loss, 50.0, batch(10), ids, where="epoch 0, batch 3", checkpoint=CHECKPOINT)
    assert "epoch 0, batch 3, sessions s0, s1, s2, s3, s4, s5, s6, s7 and 2 more" in str(caught.value)
    assert str(CHECKPOINT) in str(caught.value)


def test_check_weights_refuses_infinity() -> None:
    good = torch.zeros(3)
    check_weights({"a": good}, where="epoch 1", checkpoint=CHECKPOINT)
    with pytest.raises(InputError, match="not finite"):
        check_weights({"a": good, "b": good / 0.0}, where="epoch 1", checkpoint=CHECKPOINT)
    with pytest.raises(InputError, match="not finite"):
        check_weights({"b": torch.tensor([1.0, torch.inf])}, where="epoch 1", checkpoint=CHECKPOINT)
