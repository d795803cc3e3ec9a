from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON, with_normalised_embeddings
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig
from multitron_core.training.own_clicks import CANDIDATES, fit_own_clicks, returning_shares
from multitron_core.training.step import StepLosses, losses_of, table_rows
from multitron_core.training.validation import HeldOut

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
    losses = StepLosses.of(CONFIG, ("click", "order"), (1.0, order_rate), torch.float32)
    with with_normalised_embeddings(model):
        fit_own_clicks(model, HeldOut(data, np.arange(len(data)), CONFIG, losses))
    assert model.own_clicks is not None
    return model.own_clicks.tolist()


def test_fit_own_clicks_is_larger_for_orders_that_return() -> None:
    of_click, of_order = fitted(a_model(), returning_sessions(ordered=True))
    assert of_order >= 1.5, "every order is of an item that was clicked before"
    assert 0.0 <= of_click < of_order, "of three clicks one comes back"


def test_fit_own_clicks_finds_the_lowest_loss_of_ordered_steps() -> None:
    model, data = a_model(), returning_sessions(ordered=True)
    _, of_order = fitted(model, data)
    config = CONFIG.changed(ordered_share=1.0)
    losses = StepLosses.of(config, ("click", "order"), (1.0, 0.3), torch.float32)
    held_out = HeldOut(data, np.arange(len(data)), config, losses)
    ordered = np.array([0.0, 1.0], dtype=np.float32)
    means = []
    with with_normalised_embeddings(model), torch.no_grad():
        for candidate in CANDIDATES:
            model.own_clicks[1] = candidate  # type: ignore[index]
            of_batches = [
                losses_of(model, *table_rows(model, inputs), inputs, losses)[:, 1]
                for inputs in held_out.batches(model, ordered)
            ]
            means.append(float(torch.cat(of_batches).mean()))
    assert of_order == CANDIDATES[int(np.argmin(means))]


def test_fit_own_clicks_keeps_the_weight_without_events() -> None:
    model = a_model()
    model.own_clicks.data.copy_(torch.tensor([0.3, 0.6]))  # type: ignore[union-attr]
    of_click, of_order = fitted(model, returning_sessions(ordered=False), order_rate=0.0)
    assert of_order == pytest.approx(0.6)
    assert of_click != pytest.approx(0.3)


def test_fit_own_clicks_changes_no_other_weight() -> None:
    model = a_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fitted(model, returning_sessions(ordered=True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if name != "own_clicks")


def test_returning_shares_by_hand() -> None:
    items = np.array([7, 7, 3, 5, 6, 5, 6, 7], dtype=np.int32)  # 7 7 3 | 5 6 5 6 | 7
    ordered = np.array([1, 1, 0, 1, 0, 1, 0, 1], dtype=bool)
    sessions = EncodedSessions(pl.Series(["a", "b", "c"]), np.array([0, 3, 7, 8]), items, ordered, "hash")
    shares = returning_shares(sessions)
    assert shares["click"] == pytest.approx(3 / 5)
    assert shares["order"] == pytest.approx(2 / 2)
    assert np.isnan(returning_shares(sessions.select(np.array([2])))["click"])
