from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.config import ModelConfig, TrainingConfig
from multitron_core.encoded_sessions import EncodedSessions
from multitron_core.model import MultiTRON, settled
from multitron_core.own_clicks import fit_own_clicks, returning_shares, smallest_within_error
from multitron_core.validation import HeldOut

ITEMS = 40


def returning_sessions(*, ordered: bool) -> EncodedSessions:
    """Sessions of four clicks: the third comes back to the first, is ordered, and the others are new items."""
    generator = np.random.default_rng(5)
    rows = np.stack([generator.permutation(ITEMS)[:4] + 1 for _ in range(300)]).astype(np.int32)
    rows[:, 2] = rows[:, 0]
    labels = np.tile([False, False, ordered, False], 300)
    ids = pl.Series(np.arange(300).astype(str))
    return EncodedSessions(ids, np.arange(0, 1201, 4), rows.reshape(-1), labels, "hash")


def a_model() -> MultiTRON:
    torch.manual_seed(0)
    return MultiTRON(ModelConfig(items=ITEMS, dimension=16, layers=1, max_length=4, own_clicks="added", dropout=0.0))


CONFIG = TrainingConfig(uniform_negatives=30, in_batch_negatives=4, kept_negatives=20, order_loss="ordered_softmax")


def fitted(model: MultiTRON, data: EncodedSessions, *, order_rate: float = 0.3) -> list[float]:
    with settled(model):
        fit_own_clicks(model, HeldOut(data, np.arange(len(data)), CONFIG, (1.0, order_rate), torch.float32))
    assert model.own_clicks is not None
    return model.own_clicks.tolist()


def test_orders_of_what_was_seen_want_more_of_it_than_clicks() -> None:
    of_click, of_order = fitted(a_model(), returning_sessions(ordered=True))
    assert of_order >= 1.5, "every order is of an item that was clicked before"
    assert 0.0 <= of_click < of_order, "of three clicks one comes back"


def test_an_event_that_nothing_has_keeps_its_number() -> None:
    model = a_model()
    model.own_clicks.data.copy_(torch.tensor([0.3, 0.6]))  # type: ignore[union-attr]
    of_click, of_order = fitted(model, returning_sessions(ordered=False), order_rate=0.0)
    assert of_order == pytest.approx(0.6)
    assert of_click != pytest.approx(0.3)


def test_the_weights_of_a_model_are_its_own_again() -> None:
    model = a_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fitted(model, returning_sessions(ordered=True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if name != "own_clicks")


def test_few_steps_take_the_cautious_number_and_many_the_best() -> None:
    generator = np.random.default_rng(1)
    steps = generator.normal(3.0, 1.0, 40_000)
    # the third is best, by a hundredth on average; each step says so with a noise of a half
    losses = np.stack([steps, steps - 0.02, steps - 0.03]) + generator.normal(0.0, 0.5, (3, 40_000))
    assert smallest_within_error(losses) == 2
    assert smallest_within_error(losses[:, :50]) < 2
    assert smallest_within_error(np.stack([steps, steps])) == 0


def test_how_often_visitors_come_back() -> None:
    items = np.array([7, 7, 3, 5, 6, 5, 6, 7], dtype=np.int32)  # 7 7 3 | 5 6 5 6 | 7
    ordered = np.array([1, 1, 0, 1, 0, 1, 0, 1], dtype=bool)
    sessions = EncodedSessions(pl.Series(["a", "b", "c"]), np.array([0, 3, 7, 8]), items, ordered, "hash")
    shares = returning_shares(sessions)
    assert shares["click"] == pytest.approx(3 / 5)
    assert shares["order"] == pytest.approx(2 / 2)
    assert np.isnan(returning_shares(sessions.select(np.array([2])))["click"])
