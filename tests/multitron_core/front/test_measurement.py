"""Losses and ranks of a front against plain float64 formulas, on a small model."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.errors import InputError
from multitron_core.front import measurement
from multitron_core.front.measurement import check_list_length, measure_front
from multitron_core.losses.negatives import draw_negatives
from multitron_core.metrics.steps import evaluation_batches, step_states
from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.spacing import spaced_preferences
from multitron_core.sessions.encoded import EncodedSessions
from tests.multitron_core.front.conftest import ITEMS, SMALL, random_sessions


@pytest.mark.parametrize("mode", ["sampled", "exact"])
def test_measure_front_gives_the_same_on_cpu_and_gpu(
    model: MultiTRON, mode: Literal["sampled", "exact"], cuda: torch.device
) -> None:
    sessions = random_sessions(40)
    expected = measure_front(model, sessions, [0.0, 0.5, 1.0], config=SMALL, click_loss_mode=mode)
    found = measure_front(model.to(cuda), sessions, [0.0, 0.5, 1.0], config=SMALL, click_loss_mode=mode)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5, atol=1e-5)
    assert (found.ranks == expected.ranks).mean() > 0.99


@pytest.mark.parametrize("own_clicks", [None, (0.3, -0.7)])
def test_measure_front_exact_matches_the_plain_formula(
    model: MultiTRON, own_clicks: tuple[float, float] | None
) -> None:
    """The term of own clicks changes scores and ranks, but not the probability of an order."""
    data, without_own_clicks = random_sessions(), copy.deepcopy(model).double()
    if own_clicks is not None:
        model.own_clicks = torch.nn.Parameter(torch.tensor(own_clicks))
    measured = measure_front(model, data, [0.0, 0.6], config=SMALL, click_loss_mode="exact")
    model = model.double()
    clicks: list[float] = []
    orders: list[float] = []
    ranks: list[int] = []
    for session in dict.fromkeys(measured.steps["session"].to_list()):
        rows = slice(data.offsets[session], data.offsets[session + 1])
        items, ordered = data.items[rows][-6:].astype(np.int64), data.ordered[rows][-6:]
        pi = torch.tensor([0.4, 0.6]).double()
        inputs = (torch.from_numpy(items[None, :-1]), torch.tensor([len(items) - 1]), pi)
        scores = model.scores(model(*inputs))[0]
        columns = torch.from_numpy(items[1:])[:, None] - 1
        target_scores = scores.gather(1, columns)
        clicks += (scores.exp().sum(1).log() - target_scores[:, 0]).tolist()
        label = torch.from_numpy(ordered[1:])[:, None]
        probability = torch.sigmoid(without_own_clicks.scores(without_own_clicks(*inputs))[0].gather(1, columns))
        orders += (-torch.where(label, probability, 1 - probability).log())[:, 0].tolist()
        ranks += ((scores > target_scores).sum(1) + 1).tolist()
    np.testing.assert_allclose(measured.losses[1], np.column_stack([clicks, orders]), atol=1e-5)
    assert measured.ranks[1].tolist() == ranks


@pytest.mark.parametrize("collisions", ["masked", "official"])
def test_measure_front_sampled_matches_the_plain_formula(
    model: MultiTRON, collisions: Literal["masked", "official"]
) -> None:
    """Reference in float64: every copy of a negative is written out, and the hardest are kept."""
    config = SMALL.changed(batch_sessions=64, collisions=collisions)
    data = random_sessions()
    batch = evaluation_batches(data, 5, batch_sessions=64)[0]
    drawn = draw_negatives(batch, ITEMS, 40, 3, np.random.default_rng([7, 0, 0]))
    weight = model.item_embedding.weight.detach().double()
    states = step_states(model, batch, torch.tensor([0.5, 0.5])).double()
    expected = []
    for step, state in enumerate(states):
        copies = drawn.batch_copies[batch.session_of_step[step]]
        items = [*np.repeat(drawn.batch_items, copies), *np.repeat(drawn.uniform_items, drawn.uniform_copies)]
        if collisions == "masked":
            items = [item for item in items if item != batch.targets[step]]
        hardest = (weight[items] @ state).sort(descending=True).values[:8]
        target_score = weight[batch.targets[step]] @ state
        expected.append(float(torch.logsumexp(torch.cat([target_score[None], hardest]), dim=0) - target_score))
    measured = measure_front(model, data, [0.5], config=config, seed=7)
    np.testing.assert_allclose(measured.losses[0, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_measure_front_is_the_same_with_shortlists(
    model: MultiTRON, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared where pi moves the states a little (factor 1) and a lot (100); see also test_shortlists.py."""
    with torch.no_grad():
        model.linear.weight[:, -2:] *= factor
    monkeypatch.setattr(measurement, "MAX_RANK", 5)  # a catalogue of 30 items has few ranks and columns to leave out
    monkeypatch.setattr(measurement, "MANY_ITEMS", ITEMS)
    config, preferences = SMALL.changed(kept_negatives=2), spaced_preferences(15)
    listed = measure_front(model, random_sessions(40), preferences, config=config, repeats=2)
    whole = measure_front(model, random_sessions(40), preferences, config=config, repeats=2, shortlists=False)
    np.testing.assert_array_equal(listed.ranks, whole.ranks)
    np.testing.assert_allclose(listed.losses, whole.losses, atol=1e-5)


def test_measure_front_is_the_same_with_more_threads(model: MultiTRON) -> None:
    before, measured = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        measured.append(measure_front(model, random_sessions(40), [0.0, 0.5], config=SMALL))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(measured[0].ranks, measured[1].ranks)
    np.testing.assert_allclose(measured[0].losses, measured[1].losses, atol=1e-6)


def test_measure_front_uses_the_same_negatives_for_every_pi(model: MultiTRON) -> None:
    with torch.no_grad():
        model.linear.weight[:, -2:] = 0.0  # pi changes nothing
    measured = measure_front(model, random_sessions(), [0.0, 0.5, 1.0], config=SMALL)
    np.testing.assert_array_equal(measured.losses[0], measured.losses[1])
    np.testing.assert_array_equal(measured.losses[0], measured.losses[2])


def test_measure_front_seed_decides_and_repeats_reduce_noise(model: MultiTRON) -> None:
    data = random_sessions()
    losses = [measure_front(model, data, [0.5], config=SMALL, seed=seed).losses[..., 0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not np.array_equal(losses[0], losses[2])
    means = {
        repeats: [
            measure_front(model, data, [0.5], config=SMALL, seed=seed, repeats=repeats).losses[..., 0].mean()
            for seed in range(8)
        ]
        for repeats in (1, 16)
    }
    assert np.std(means[16]) < np.std(means[1])


def test_measure_front_ordered_softmax_is_click_loss_of_ordered(model: MultiTRON) -> None:
    config = SMALL.changed(order_loss="ordered_softmax")
    measured = measure_front(model, random_sessions(), [0.5], config=config)
    ordered = measured.steps["ordered"].to_numpy()
    assert measured.losses[0, :, 1].mean() == pytest.approx(measured.losses[0, ordered, 0].mean(), rel=1e-5)
    assert measured.reference == (math.log(9), math.log(9))


def test_measure_front_ranked_bce_is_the_sum_of_both_losses(model: MultiTRON) -> None:
    both, ranked, binary = (
        measure_front(model, random_sessions(), [0.5], config=SMALL.changed(order_loss=loss))
        for loss in ("ranked_bce", "ordered_softmax", "bce")
    )
    np.testing.assert_allclose(both.losses[..., 1], ranked.losses[..., 1] + binary.losses[..., 1], rtol=1e-5)
    assert both.reference == (math.log(9), math.log(9) + math.log(2))


def test_measure_front_measures_the_test_split(model: MultiTRON) -> None:
    class Prepared:
        test = random_sessions()

    measured = measure_front(model, Prepared(), [0.5], config=SMALL)
    expected = measure_front(model, Prepared.test, [0.5], config=SMALL)
    assert measured.steps.equals(expected.steps)
    np.testing.assert_array_equal(measured.losses, expected.losses)


def test_measure_front_restores_training_mode(model: MultiTRON) -> None:
    model.train()
    measure_front(model, random_sessions(), [0.5], config=SMALL)
    assert model.training


def test_measure_front_reports_progress_to_the_end(model: MultiTRON) -> None:
    reported: list[tuple[int, int]] = []
    measure_front(
        model, random_sessions(), [0.5], config=SMALL, progress=lambda done, total: reported.append((done, total))
    )
    assert reported == [(i + 1, len(reported)) for i in range(len(reported))]


def test_measure_front_refuses_sessions_without_steps(model: MultiTRON) -> None:
    no_clicks = (np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, bool))
    empty = EncodedSessions(pl.Series([], dtype=pl.String), *no_clicks, "hash")
    with pytest.raises(InputError, match="nothing to evaluate"):
        measure_front(model, empty, [0.5], config=SMALL)


@pytest.mark.parametrize("pi_orders", [[], [1.1], [float("nan")]])
def test_measure_front_refuses_bad_weights(model: MultiTRON, pi_orders: list[float]) -> None:
    with pytest.raises(InputError, match="weights in"):
        measure_front(model, random_sessions(), pi_orders, config=SMALL)


def test_measure_front_refuses_weights_that_do_not_sum_to_1(model: MultiTRON) -> None:
    with pytest.raises(InputError, match="must sum to 1"):
        measure_front(model, random_sessions(), [(0.5, 0.6)], config=SMALL)


@pytest.mark.parametrize("options", [{"repeats": 0}, {"click_loss_mode": "approximate"}])
def test_measure_front_refuses_bad_loss_settings(model: MultiTRON, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="invalid loss settings"):
        measure_front(model, random_sessions(), [0.5], config=SMALL, **options)


def test_measure_front_refuses_an_unknown_item(model: MultiTRON) -> None:
    data = random_sessions()
    data.items[-1] = ITEMS + 1
    with pytest.raises(InputError, match="outside the model's catalogue"):
        measure_front(model, data, [0.5], config=SMALL)


def test_measure_front_refuses_weights_that_are_not_finite(model: MultiTRON) -> None:
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        measure_front(model, random_sessions(), [0.5], config=SMALL)


def test_measure_front_refusals_with_three_objectives() -> None:
    model = MultiTRON(ModelConfig(items=ITEMS, dimension=8, objectives=("click", "cart", "order")))
    with pytest.raises(InputError, match="rows of one weight per objective"):
        measure_front(model, random_sessions(), [0.5], config=SMALL)
    with pytest.raises(InputError, match="no labels of carts"):
        measure_front(model, random_sessions(), [(0.2, 0.3, 0.5)], config=SMALL)


def test_ranks_trained_needs_weight_on_a_ranking_loss(model: MultiTRON) -> None:
    for order_loss, expected in (("bce", [True, True, False]), ("ordered_softmax", [True, True, True])):
        config = SMALL.changed(order_loss=order_loss)
        measured = measure_front(model, random_sessions(), [0.0, 0.5, 1.0], config=config)
        assert measured.ranks_trained.tolist() == expected


@pytest.mark.parametrize("k", [0, measurement.MAX_RANK + 1])
def test_check_list_length_refuses_ranks_beyond_the_exact(k: int) -> None:
    with pytest.raises(InputError, match="list length is out of range"):
        check_list_length(k)
    check_list_length(measurement.MAX_RANK)
