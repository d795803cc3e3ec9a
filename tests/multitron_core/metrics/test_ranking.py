"""Ranks and ratios against small cases worked out by hand, and against a full sort."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multitron_core.errors import InputError
from multitron_core.metrics.ranking import ranking_metrics, score_blocks, target_ranks
from multitron_core.metrics.steps import evaluation_batches, step_states, step_table
from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.encoded import EncodedSessions


def sessions(*clicks: list[int], ordered: tuple[tuple[int, int], ...] = ()) -> EncodedSessions:
    """Sessions of item indices; `ordered` names (session, position) of the clicks that are ordered later."""
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in clicks])]).astype(np.int64)
    flags = np.zeros(offsets[-1], dtype=bool)
    for session, position in ordered:
        flags[offsets[session] + position] = True
    items = np.array([item for session in clicks for item in session], dtype=np.int32)
    return EncodedSessions(pl.Series([f"s{i}" for i in range(len(clicks))]), offsets, items, flags, "hash")


def steps(ranks: list[int], ordered: list[bool], last: list[bool]) -> pl.DataFrame:
    return pl.DataFrame({"rank": ranks, "ordered": ordered, "last": last}, schema_overrides={"rank": pl.Int32})


class TestRanks:
    def test_a_rank_counts_the_higher_items_and_the_equal_ones_before(self) -> None:
        scores = torch.tensor([[3.0, 1.0, 2.0, 2.0, 2.0]]).repeat(5, 1)
        assert target_ranks(scores, torch.tensor([1, 2, 3, 4, 5])).tolist() == [1, 5, 2, 3, 4]

    def test_equal_scores_everywhere_rank_by_index(self) -> None:
        assert target_ranks(torch.zeros(4, 4), torch.arange(1, 5)).tolist() == [1, 2, 3, 4]

    @given(hnp.arrays(np.float32, (3, 7), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])), st.integers(1, 7))
    def test_ranks_are_those_of_a_stable_sort(self, scores: np.ndarray, target: int) -> None:
        order = np.argsort(-scores, axis=1, kind="stable")
        expected = [row.tolist().index(target - 1) + 1 for row in order]
        assert target_ranks(torch.from_numpy(scores), torch.full((3,), target)).tolist() == expected

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_score_that_is_no_number_is_refused(self, value: float) -> None:
        with pytest.raises(InputError, match="not finite"):
            target_ranks(torch.tensor([[1.0, value]]), torch.tensor([2]))

    def test_blocks_give_the_scores_of_the_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(0)
        model = MultiTRON(ModelConfig(items=11, dimension=8)).eval()
        states = torch.randn(7, 8)
        monkeypatch.setattr(
            "multitron_core.metrics.ranking._BLOCK_SCORES", {"cpu": 22}
        )  # two steps, one in the last block
        monkeypatch.setattr("multitron_core.metrics.ranking._LEAST_ROWS", 1)
        blocks = [(place, scores.clone()) for place, scores in score_blocks(states, model.item_embedding.weight[1:])]
        assert [len(scores) for _, scores in blocks] == [2, 2, 2, 1]
        torch.testing.assert_close(torch.cat([scores for _, scores in blocks]), model.scores(states))


class TestSteps:
    def test_the_label_belongs_to_the_target_and_the_last_clicks_count(self) -> None:
        data = sessions([1, 2, 3, 4], [5], [6, 7], ordered=((0, 0), (0, 2), (2, 1)))
        table = step_table(evaluation_batches(data, max_length=2))
        assert table.sort("session", "target").to_dicts() == [
            {"session": 0, "target": 3, "ordered": True, "last": False},
            {"session": 0, "target": 4, "ordered": False, "last": True},
            {"session": 2, "target": 7, "ordered": True, "last": True},
        ]

    def test_two_sessions_of_one_step_are_both_last(self) -> None:
        assert step_table(evaluation_batches(sessions([1, 2], [1, 2]), 50))["last"].to_list() == [True, True]

    def test_no_session_of_two_clicks_is_refused(self) -> None:
        for data in (sessions(), sessions([1], [2])):
            with pytest.raises(InputError, match="nothing to evaluate"):
                evaluation_batches(data, 50)

    @settings(max_examples=20, deadline=None)
    @given(
        st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=8), min_size=1, max_size=6),
        st.integers(1, 3),
        st.sampled_from(["start", "end"]),
    )
    def test_a_state_depends_on_its_session_alone(
        self, clicks: list[list[int]], batch_sessions: int, positions: Literal["start", "end"]
    ) -> None:
        torch.manual_seed(0)
        model = MultiTRON(ModelConfig(items=9, dimension=8, max_length=5, positions=positions)).eval()
        pi = torch.tensor([0.3, 0.7])
        for batch in evaluation_batches(sessions(*clicks), 5, batch_sessions=batch_sessions):
            states = step_states(model, batch, pi, whole_sessions=True)
            for place, session in enumerate(batch.sessions):
                items = torch.tensor([clicks[session][-6:][:-1]])
                alone = model(items, torch.tensor([items.shape[1]]), pi)[0]
                own = slice(batch.starts[place], batch.starts[place] + batch.lengths[place])
                torch.testing.assert_close(states[own], alone.detach(), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("positions", ["start", "end"])
    def test_a_state_is_what_a_scorer_has_after_these_clicks(self, positions: Literal["start", "end"]) -> None:
        """No step knows how many clicks are still to come, wherever positions count from."""
        torch.manual_seed(0)
        model = MultiTRON(ModelConfig(items=9, dimension=8, max_length=5, positions=positions)).eval()
        pi = torch.tensor([0.3, 0.7])
        (batch,) = evaluation_batches(sessions([1, 2], [3, 4, 5, 6], [7, 8, 9, 1, 2, 3, 4]), 5)
        states = step_states(model, batch, pi)
        for start, length in zip(batch.starts, batch.lengths, strict=True):
            for clicks in range(1, length + 1):
                items = torch.from_numpy(batch.inputs[None, start : start + clicks])
                served = model.last_states(items, torch.tensor([clicks]), pi)[0].detach()
                torch.testing.assert_close(states[start + clicks - 1], served, atol=1e-5, rtol=1e-4)
        whole = step_states(model, batch, pi, whole_sessions=True)
        assert torch.allclose(whole, states, atol=1e-5) == (positions == "start")


class TestRatios:
    def test_by_hand(self) -> None:
        measured = ranking_metrics(
            steps([1, 4, 20, 21], ordered=[False, True, False, True], last=[False, True, False, True])
        )
        assert measured == pytest.approx(
            {
                "click_recall_20": 3 / 4,
                "click_mrr_20": (1 + 1 / 4 + 1 / 20) / 4,
                "last_click_recall_20": 1 / 2,
                "last_click_mrr_20": (1 / 4) / 2,
                "order_recall_20": 1 / 2,
                "order_density": 1 / 3,
                "recall_x_density": 3 / 4 / 3,
            }
        )

    def test_without_orders_there_is_no_order_recall_and_a_density_of_zero(self) -> None:
        measured = ranking_metrics(steps([1, 30], ordered=[False, False], last=[False, True]))
        assert measured["order_recall_20"] is None
        assert measured["order_density"] == 0.0

    def test_without_hits_there_is_no_density(self) -> None:
        measured = ranking_metrics(steps([30], ordered=[True], last=[True]))
        assert measured["order_density"] is None
        assert measured["recall_x_density"] is None
        assert measured["order_recall_20"] == 0.0

    def test_every_target_ordered_makes_the_recalls_equal(self) -> None:
        measured = ranking_metrics(steps([1, 30], ordered=[True, True], last=[False, True]))
        assert measured["order_recall_20"] == measured["click_recall_20"] == 0.5
        assert measured["order_density"] == 1.0

    def test_k_names_the_metrics(self) -> None:
        assert ranking_metrics(steps([2], [False], [True]), k=1)["click_recall_1"] == 0.0
