from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON, with_normalised_embeddings
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig
from multitron_core.training.own_clicks import TRIED, fit_own_clicks, returning_shares
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
    with with_normalised_embeddings(model):
        fit_own_clicks(model, HeldOut(data, np.arange(len(data)), CONFIG, (1.0, order_rate), torch.float32))
    assert model.own_clicks is not None
    return model.own_clicks.tolist()


def test_orders_of_what_was_seen_want_more_of_it_than_clicks() -> None:
    of_click, of_order = fitted(a_model(), returning_sessions(ordered=True))
    assert of_order >= 1.5, "every order is of an item that was clicked before"
    assert 0.0 <= of_click < of_order, "of three clicks one comes back"


def test_the_number_fitted_is_the_one_of_the_lowest_loss() -> None:
    model, data = a_model(), returning_sessions(ordered=True)
    _, of_order = fitted(model, data)
    of_ordered_steps = replace(CONFIG, ordered_share=1.0)
    held_out = HeldOut(data, np.arange(len(data)), of_ordered_steps, (1.0, 0.3), torch.float32)
    ordered = np.array([0.0, 1.0], dtype=np.float32)
    with with_normalised_embeddings(model), torch.no_grad():
        of_tried = []
        for tried in TRIED:
            model.own_clicks[1] = tried  # type: ignore[index]
            losses = [held_out.losses(model, work)[:, 1] for work in held_out.works(model, ordered)]
            of_tried.append(float(torch.cat(losses).mean()))
    assert of_order == TRIED[int(np.argmin(of_tried))]


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


def test_how_often_visitors_come_back() -> None:
    items = np.array([7, 7, 3, 5, 6, 5, 6, 7], dtype=np.int32)  # 7 7 3 | 5 6 5 6 | 7
    ordered = np.array([1, 1, 0, 1, 0, 1, 0, 1], dtype=bool)
    sessions = EncodedSessions(pl.Series(["a", "b", "c"]), np.array([0, 3, 7, 8]), items, ordered, "hash")
    shares = returning_shares(sessions)
    assert shares["click"] == pytest.approx(3 / 5)
    assert shares["order"] == pytest.approx(2 / 2)
    assert np.isnan(returning_shares(sessions.select(np.array([2])))["click"])
