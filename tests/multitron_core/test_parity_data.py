"""Labels, steps, negatives and preferences: rules of the paper and of the authors' code, against counts by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.losses.negatives import draw_negatives
from multitron_core.sessions.batches import Batch, make_batch, training_rows
from multitron_core.sessions.prepare import prepare_sessions
from multitron_core.training.trainer import Trainer
from tests.multitron_core import plain_formulas as plain
from tests.multitron_core.losses.test_negatives import batch_of
from tests.multitron_core.sessions.test_prepare import DAY, Event, log_of
from tests.multitron_core.training.examples import shop, small


def batch_of_events(*sessions: list[tuple[str, int]], most: int = 50) -> tuple[Batch, list[int]]:
    """The prepared sessions as one batch, and their numbers in its order; an event each minute.

    A last session of all items is the test set, which may not be empty.
    """
    log = [
        Event(f"{number:03}", item, 60 * place, kind)
        for number, events in enumerate(sessions)
        for place, (kind, item) in enumerate(events)
    ]
    items = sorted({event.item for event in log if event.type == "click"})
    log += [Event("test", item, 9 * DAY, "click") for item in [*items, *items]]
    train = prepare_sessions(log_of(log), min_session_clicks=1, min_item_clicks=1, split_days=1).train
    batch = make_batch(train, training_rows(train), most)
    return batch, [int(train.session_ids[int(row)]) for row in batch.sessions]


def labels_by_session(*sessions: list[tuple[str, int]], most: int = 50) -> dict[int, list[bool]]:
    batch, numbers = batch_of_events(*sessions, most=most)
    parts = np.split(batch.ordered, batch.starts[1:])
    return {number: part.tolist() for number, part in zip(numbers, parts, strict=True)}


def clicks(*items: int) -> list[tuple[str, int]]:
    return [("click", item) for item in items]


class TestLabels:
    """Labels of the targets: all clicks but a session's first."""

    def test_by_hand(self) -> None:
        found = labels_by_session(
            clicks(1, 2, 3),  # no orders
            [*clicks(1, 2, 3), ("order", 1), ("order", 2), ("order", 3)],  # every click ordered
            [*clicks(1, 2), ("order", 2)],  # one step
            [*clicks(1, 2), ("order", 1)],  # one step, whose input is ordered and not its target
            [*clicks(1, 2), ("order", 2), *clicks(2, 3)],  # an order labels the clicks before it alone
            [*clicks(1, 2, 2), ("order", 2), ("order", 2)],  # both clicks of an item; ordered twice is ordered
        )
        assert found == {
            0: [False, False],
            1: [True, True],
            2: [True],
            3: [False],
            4: [True, False, False],
            5: [True, True],
        }

    def test_labels_cover_the_whole_session_and_its_last_clicks(self) -> None:
        events = [*clicks(*range(1, 61)), ("order", 7), ("order", 12), ("order", 60)]
        found = labels_by_session(events)[0]
        # 60 clicks: 51 are kept, 10 to 60, and 11 to 60 are targets. 7 was cut, 12 is the second target, 60 the last.
        assert len(found) == 50
        assert np.flatnonzero(found).tolist() == [1, 49]

    @pytest.mark.parametrize(("count", "steps"), [(2, 1), (50, 49), (51, 50), (52, 50)])
    def test_the_cut(self, count: int, steps: int) -> None:
        batch, _ = batch_of_events(clicks(*range(1, count + 1)))
        assert len(batch.inputs) == steps
        assert batch.targets[-1] == batch.inputs[-1] + 1 == count  # indices follow first appearance

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(
            st.lists(st.tuples(st.sampled_from(["click", "click", "order"]), st.integers(1, 5)), max_size=14),
            min_size=1,
            max_size=4,
        ),
        st.integers(1, 6),
    )
    def test_against_a_scan_from_the_end(self, sessions: list[list[tuple[str, int]]], most: int) -> None:
        sessions = [[("click", item) for item in range(1, 6)], *sessions]  # so that every item is of train
        batch, numbers = batch_of_events(*sessions, most=most)
        scanned = [plain.steps_of(*plain.labelled_clicks(sessions[number]), most) for number in numbers]
        flat = [[value for session in scanned for value in session[part]] for part in range(3)]
        assert [batch.inputs.tolist(), batch.targets.tolist(), batch.ordered.tolist()] == flat
        assert sorted(numbers) == [
            number for number, events in enumerate(sessions) if sum(kind == "click" for kind, _ in events) > 1
        ]


class TestUniformNegatives:
    def test_items_that_no_session_clicked_come_equally_often(self) -> None:
        # Inputs are 1, 2 and 3; 4 is a target alone, so it may be drawn, for every session and as often as the others.
        batch = batch_of([[1], [3, 2]], last=[2, 4])
        found = draw_negatives(batch, 9, uniform=60_000, in_batch=0, rng=np.random.default_rng(1))
        drawn = dict(zip(found.uniform_items.tolist(), found.uniform_copies.tolist(), strict=True))
        place = found.batch_items.tolist().index(4)
        assert found.batch_copies.sum(axis=0).nonzero()[0].tolist() == [place]
        assert found.batch_copies[0, place] == found.batch_copies[1, place]
        drawn[4] = int(found.batch_copies[0, place])
        assert sorted(drawn) == [4, 5, 6, 7, 8, 9]
        deviation = math.sqrt(60_000 * (1 / 6) * (5 / 6))
        assert max(abs(count - 10_000) for count in drawn.values()) < 4 * deviation

    def test_how_often_a_target_is_among_them(self) -> None:
        # 20 draws of 48 items: 1 - (47/48)^20 of the batches draw the one target that nobody has as an input.
        batch, rng = batch_of([[1], [2]], last=[2, 3]), np.random.default_rng(2)
        rounds = 3_000
        hits = 0
        for _ in range(rounds):
            found = draw_negatives(batch, 50, uniform=20, in_batch=0, rng=rng)
            hits += bool(found.batch_copies[0, found.batch_items.tolist().index(3)])
        expected = 1 - (47 / 48) ** 20
        assert abs(hits / rounds - expected) < 4 * math.sqrt(expected * (1 - expected) / rounds)

    def test_draws_are_with_replacement(self) -> None:
        found = draw_negatives(batch_of([[1]], last=[2]), 3, uniform=100, in_batch=0, rng=np.random.default_rng(3))
        assert found.batch_copies.sum() + found.uniform_copies.sum() == 100  # of two items


class TestInBatchNegatives:
    def test_steps_of_the_other_sessions_come_equally_often(self) -> None:
        # Session 0 sees the inputs 2, 2, 3 and 4, 5 of the two others: 3 of these 5 without replacement, so each item
        # 3/5 of its clicks; the drawn copies of item 2 have the variance of the hypergeometric distribution.
        batch, rng, rounds = batch_of([[1], [4, 5], [2, 2, 3]], last=[9, 8, 7]), np.random.default_rng(4), 4_000
        copies = np.stack(
            [draw_negatives(batch, 9, uniform=0, in_batch=3, rng=rng).batch_copies[0] for _ in range(rounds)]
        )
        items = np.unique(np.concatenate([batch.inputs, batch.targets])).tolist()
        mean = dict(zip(items, copies.mean(axis=0), strict=True))
        assert [mean[item] for item in (1, 7, 8, 9)] == [0.0] * 4  # its own input, and the others' last targets
        deviation = 4 * math.sqrt(0.36 / rounds)  # the largest variance of them, of item 2
        assert mean[2] == pytest.approx(6 / 5, abs=deviation)
        assert [mean[item] for item in (3, 4, 5)] == pytest.approx([3 / 5] * 3, abs=deviation)
        assert copies[:, items.index(2)].var() == pytest.approx(3 * (2 / 5) * (3 / 5) * (5 - 3) / (5 - 1), rel=0.1)
        assert copies.max() == 2
        assert (copies.sum(axis=1) == 3).all()

    def test_a_batch_of_one_has_none(self) -> None:
        found = draw_negatives(batch_of([[1, 2]], last=[3]), 3, uniform=0, in_batch=5, rng=np.random.default_rng(5))
        assert found.batch_copies.tolist() == [[0, 0, 0]]
        assert len(found.uniform_items) == 0

    def test_a_session_that_clicked_what_others_clicked_meets_it(self) -> None:
        # Other sessions' inputs are drawn by step, not by item: the rule rejects the session's steps alone.
        found = draw_negatives(
            batch_of([[1], [1]], last=[2, 3]), 3, uniform=0, in_batch=1, rng=np.random.default_rng(6)
        )
        assert found.batch_copies[:, 0].tolist() == [1, 1]


class TestPreferences:
    @pytest.mark.parametrize("beta", [(0.5, 0.5), (1.2, 1.2), (2.0, 2.0), (0.5, 1.5)])
    def test_the_moments_of_the_dirichlet_distribution(self, tmp_path: Path, beta: tuple[float, float]) -> None:
        preset = small(beta=beta, batch_sessions=8, uniform_negatives=0, in_batch_negatives=0, validation_share=0.0)
        run = Trainer(shop(sessions=1300), preset, "", tmp_path / "none", torch.device("cpu"))
        pi = np.concatenate([inputs.pi.numpy() for inputs in run.batches(0, 0)]).astype(np.float64)
        a, b = beta
        mean, variance = a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
        assert len(pi) > 1000
        np.testing.assert_allclose(pi.sum(axis=1), 1.0, atol=1e-6)
        assert pi[:, 0].mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / len(pi)))
        assert pi[:, 0].var() == pytest.approx(variance, rel=0.15)

    @pytest.mark.parametrize(("pi_per", "distinct"), [("batch", 1), ("session", 8)])
    def test_one_a_batch_or_one_a_session(self, tmp_path: Path, pi_per: str, distinct: int) -> None:
        preset = small(pi_per=pi_per, batch_sessions=8, uniform_negatives=0, validation_share=0.0)
        run = Trainer(shop(), preset, "", tmp_path / "none", torch.device("cpu"))
        batches = run.batches(0, 0)
        first, second = next(batches), next(batches)
        assert len(np.unique(first.pi.numpy(), axis=0)) == distinct
        assert not np.array_equal(first.pi[0], second.pi[0])

    def test_a_single_objective_model_has_its_own_everywhere(self, tmp_path: Path) -> None:
        preset = small(trained_pi="0.25", batch_sessions=8, uniform_negatives=0, validation_share=0.0)
        run = Trainer(shop(), preset, "", tmp_path / "none", torch.device("cpu"))
        for inputs in run.batches(0, 0):
            assert np.unique(inputs.pi.numpy(), axis=0).tolist() == [[0.75, 0.25]]
