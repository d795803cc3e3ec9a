"""The list of an item: that of a session with one click on it, without the item itself."""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from multitron_core.lake.lake import Lake
from multitron_core.sessions.vocabulary import Vocabulary
from serving.in_process import InProcessScorer
from serving.interface import LiveModel, ScoringRequest
from serving.item_scorer import one_click_sessions, score_items
from serving.scorer import score_sessions
from tests.serving.conftest import write_model

K = 4


@dataclasses.dataclass
class SameModelOtherIds:
    """A scorer whose model claims another vocabulary of the same size."""

    scorer: InProcessScorer
    vocabulary: Vocabulary

    def live_model(self) -> LiveModel:
        return dataclasses.replace(self.scorer.live_model(), vocabulary_hash=self.vocabulary.hash)

    def top_k(self, request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        return self.scorer.top_k(request, model)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> InProcessScorer:
    return InProcessScorer(write_model(tmp_path_factory.mktemp("models") / "small", items=30))


@pytest.mark.parametrize("ids", ["numbers", "texts"])
def test_score_items_equals_sessions_of_one_click(scorer: InProcessScorer, ids: str, tmp_path: Path) -> None:
    numbers = pl.Series(np.random.default_rng(0).permutation(30) + 5)  # as text they sort in another order
    vocabulary = Vocabulary(numbers.cast(pl.Int64 if ids == "numbers" else pl.String))
    renamed = SameModelOtherIds(scorer, vocabulary)
    frames = list(score_items("0.50", K, scorer=renamed, vocabulary=vocabulary, window_sessions=7))
    found = pl.concat(frames)
    expected = pl.concat(
        score_sessions(one_click_sessions(vocabulary), "0.50", K + 1, scorer=renamed, vocabulary=vocabulary)
    ).filter(pl.col("item_id") != pl.col("session_id"))
    assert found["for_item_id"].dtype == vocabulary.item_ids.dtype
    assert found["for_item_id"].unique(maintain_order=True).to_list() == vocabulary.item_ids.sort().to_list()
    for item, rows in found.group_by("for_item_id"):
        assert rows["item_id"].to_list() == expected.filter(session_id=item[0])["item_id"].head(K).to_list()
    lake = Lake(tmp_path)
    lake.create(vocabulary.item_ids.dtype)
    committed = lake.replace_partition(
        date(2026, 1, 5), "0.50", frames, model_version="7", k=K, table="item_recommendations", expected_lists=30
    )
    assert committed.rows == 30 * K
