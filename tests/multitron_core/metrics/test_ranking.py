"""Ranks and ratios against small cases computed by hand, and against a full sort."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multitron_core.errors import InputError
from multitron_core.metrics.ranking import ranking_metrics, score_blocks, target_ranks
from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON


def steps(ranks: list[int], ordered: list[bool], last: list[bool]) -> pl.DataFrame:
    return pl.DataFrame({"rank": ranks, "ordered": ordered, "last": last}, schema_overrides={"rank": pl.Int32})


class TestTargetRanks:
    def test_counts_higher_scores_and_earlier_ties(self) -> None:
        scores = torch.tensor([[3.0, 1.0, 2.0, 2.0, 2.0]]).repeat(5, 1)
        assert target_ranks(scores, torch.tensor([1, 2, 3, 4, 5])).tolist() == [1, 5, 2, 3, 4]

    def test_equal_scores_rank_by_index(self) -> None:
        assert target_ranks(torch.zeros(4, 4), torch.arange(1, 5)).tolist() == [1, 2, 3, 4]

    @given(hnp.arrays(np.float32, (3, 7), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])), st.integers(1, 7))
    def test_equals_a_stable_sort(self, scores: np.ndarray, target: int) -> None:
        order = np.argsort(-scores, axis=1, kind="stable")
        expected = [row.tolist().index(target - 1) + 1 for row in order]
        assert target_ranks(torch.from_numpy(scores), torch.full((3,), target)).tolist() == expected

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_refuses_a_score_that_is_not_finite(self, value: float) -> None:
        with pytest.raises(InputError, match="not finite"):
            target_ranks(torch.tensor([[1.0, value]]), torch.tensor([2]))


class TestScoreBlocks:
    def test_blocks_give_the_scores_of_the_model(self) -> None:
        torch.manual_seed(0)
        model = MultiTRON(ModelConfig(items=11, dimension=8)).eval()
        states = torch.randn(7, 8)
        weight = model.item_embedding.weight[1:]
        blocks = [(place, scores.clone()) for place, scores in score_blocks(states, weight, max_rows=2)]
        assert [place for place, _ in blocks] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]
        torch.testing.assert_close(torch.cat([scores for _, scores in blocks]), model.scores(states))

    def test_several_states_per_step(self) -> None:
        states, weight = torch.randn(3, 2, 4), torch.randn(5, 4)
        blocks = [scores.clone() for _, scores in score_blocks(states, weight, max_rows=3)]
        assert [tuple(scores.shape) for scores in blocks] == [(1, 2, 5)] * 3
        torch.testing.assert_close(torch.cat(blocks), states @ weight.T)


class TestRankingMetrics:
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

    def test_without_orders_recall_is_none_and_density_0(self) -> None:
        measured = ranking_metrics(steps([1, 30], ordered=[False, False], last=[False, True]))
        assert measured["order_recall_20"] is None
        assert measured["order_density"] == 0.0

    def test_without_hits_density_is_none(self) -> None:
        measured = ranking_metrics(steps([30], ordered=[True], last=[True]))
        assert measured["order_density"] is None
        assert measured["recall_x_density"] is None
        assert measured["order_recall_20"] == 0.0

    def test_recalls_are_equal_if_every_target_is_ordered(self) -> None:
        measured = ranking_metrics(steps([1, 30], ordered=[True, True], last=[False, True]))
        assert measured["order_recall_20"] == measured["click_recall_20"] == 0.5
        assert measured["order_density"] == 1.0

    def test_names_end_in_k(self) -> None:
        assert ranking_metrics(steps([2], [False], [True]), k=1)["click_recall_1"] == 0.0
