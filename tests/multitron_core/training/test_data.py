from __future__ import annotations

import numpy as np
import pytest

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.preference.objectives import Objective
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import DataSettings
from multitron_core.training.data import (
    check_beta,
    check_events,
    draw_preferences,
    event_rates,
    popularity_correction,
    split_rows,
)
from tests.multitron_core.training.examples import shop, small

CLICK = Objective("click", "click", "softmax")


def three_sessions() -> EncodedSessions:
    """Sessions 1 2 3 | 1 1 4 | 5 5 5 5 5 5; the 2 and the last 1 are ordered."""
    data = shop(sessions=3).train
    items = np.concatenate([[1, 2, 3], [1, 1, 4], [5, 5, 5, 5, 5, 5]])
    ordered = np.isin(np.arange(12), [1, 4])
    return EncodedSessions(data.session_ids, np.array([0, 3, 6, 12]), items, ordered, data.vocabulary_hash)


def test_split_rows_holds_out_the_most_recent_sessions() -> None:
    data = shop()
    rows, held_out = split_rows(data.train, 0.25)
    assert len(held_out) == (len(rows) + len(held_out)) // 4
    assert rows.max() < held_out.min()
    assert split_rows(data.train, 1e-9)[1].tolist() == []


def test_draw_preferences_per_session_and_per_batch() -> None:
    beta = (0.5, 1.0, 2.0)
    random = np.random.default_rng(1)
    assert draw_preferences(DataSettings(beta=beta), random, 4).shape == (4, 3)
    assert draw_preferences(DataSettings(beta=beta, pi_per="batch"), random, 4).shape == (3,)
    assert draw_preferences(DataSettings(trained_pi="0.25"), random, 4).tolist() == [0.75, 0.25]


def test_event_rates_count_targets() -> None:
    # The targets are 2 3 | 1 4; the 2 and the second 1 are ordered.
    assert event_rates(three_sessions(), np.array([0, 1]), ModelConfig(items=5)) == (1.0, 0.5)


def test_popularity_correction_counts_training_inputs_only() -> None:
    config = small(popularity_correction=0.5, uniform_negatives=8, in_batch_negatives=8).training
    model, rows = ModelConfig(items=5), np.array([0, 1])
    found = popularity_correction(three_sessions(), rows, model, config)
    assert found is not None
    # Inputs 1, 2, 1, 1, one batch: q = (8 absent / sum of absent + 8 share) * 5 / 16, half of its log.
    absent = np.exp(np.array([-3.0, -1.0, 0.0, 0.0, 0.0]))
    rates = (8 * absent / absent.sum() + 8 * np.array([0.75, 0.25, 0.0, 0.0, 0.0])) * 5 / 16
    np.testing.assert_allclose(found, 0.5 * np.log([1.0, *rates]))
    assert popularity_correction(three_sessions(), rows, model, small().training) is None


def test_check_beta_wants_one_number_per_objective() -> None:
    order = Objective("order", "order", "bce")
    check_beta([CLICK, order], (0.5, 0.5))
    with pytest.raises(InputError, match="give 2 numbers"):
        check_beta([CLICK, order], (0.5, 0.5, 0.5))


@pytest.mark.parametrize(("loss", "share"), [("bce", 1.0), ("ordered_softmax", 0.5)])
def test_check_events_accepts_losses_without_events(loss: str, share: float) -> None:
    check_events([CLICK, Objective("order", "order", loss, share)], (1.0, 0.0))


def test_check_events_refuses_ordered_steps_alone() -> None:
    order = Objective("order", "order", "ordered_softmax", 1.0)
    check_events([CLICK, order], (1.0, 0.1))
    with pytest.raises(InputError, match="order_loss='bce', ordered_share below 1"):
        check_events([CLICK, order], (1.0, 0.0))
