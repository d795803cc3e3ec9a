from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.keys import pi_vector
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig
from multitron_core.training.step import StepLosses
from multitron_core.training.validation import HeldOut, validate

ITEMS = 40


@pytest.fixture
def data() -> EncodedSessions:
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 9, 30)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = rng.integers(1, ITEMS + 1, offsets[-1]).astype(np.int32)
    ids = pl.Series([str(i) for i in range(30)], dtype=pl.String)
    return EncodedSessions(ids, offsets, items, rng.random(offsets[-1]) < 0.3, "hash")


def model() -> MultiTRON:
    torch.manual_seed(1)
    return MultiTRON(ModelConfig(items=ITEMS, dimension=8, layers=1, dropout=0.5, item_scale=1.0))


CONFIG = TrainingConfig(batch_sessions=7, uniform_negatives=20, in_batch_negatives=4, validation_pi=("0.00", "0.75"))
LOSSES = StepLosses.of(CONFIG, ("click", "order"), (1.0, 0.3), torch.float32)


def test_validate_gives_the_same_twice(data: EncodedSessions) -> None:
    rows = np.arange(10, 30)
    first = validate(model(), HeldOut(data, rows, CONFIG, LOSSES))
    torch.manual_seed(99)
    assert validate(model().train(), HeldOut(data, rows, CONFIG, LOSSES)) == first


def test_validate_averages_the_weighted_losses(data: EncodedSessions) -> None:
    found = validate(model(), HeldOut(data, np.arange(10, 30), CONFIG, LOSSES))
    at_zero = found["validation_click_loss_0.00"]
    at_three_quarters = 0.25 * found["validation_click_loss_0.75"] + 0.75 * found["validation_order_loss_0.75"]
    assert found["validation_loss"] == pytest.approx((at_zero + at_three_quarters) / 2, rel=1e-5)


def test_validate_recall_is_exact_over_the_catalogue(data: EncodedSessions) -> None:
    rows, trained = np.arange(10, 30), model().eval()
    hits = steps = 0
    for row in rows:
        clicks = torch.from_numpy(data.items[data.offsets[row] : data.offsets[row + 1]].astype(np.int64))
        pi = torch.tensor(pi_vector("0.75"))
        states = trained(clicks[None, :-1], torch.tensor([len(clicks) - 1]), pi)[0]
        best = trained.scores(states).topk(20, dim=1).indices + 1
        hits += int((best == clicks[1:, None]).any(dim=1).sum())
        steps += len(clicks) - 1
    found = validate(trained, HeldOut(data, rows, CONFIG, LOSSES))
    assert found["validation_click_recall_20_0.75"] == pytest.approx(hits / steps)
    assert 0 < hits < steps


def test_held_out_batches_differ_by_their_preference_alone(data: EncodedSessions) -> None:
    held_out, trained = HeldOut(data, np.arange(10, 30), CONFIG, LOSSES), model()
    clicks, orders = (list(held_out.batches(trained, np.array(pi))) for pi in ([1.0, 0.0], [0.0, 1.0]))
    assert [len(inputs.batch.lengths) for inputs in clicks] == [7, 7, 6]
    for one, other in zip(clicks, orders, strict=True):
        assert torch.equal(one.uniform_items, other.uniform_items)
        assert torch.equal(one.negatives.batch_copies, other.negatives.batch_copies)
        assert one.pi.tolist() == [[1.0, 0.0]] * len(one.pi)
        assert other.pi.tolist() == [[0.0, 1.0]] * len(other.pi)
