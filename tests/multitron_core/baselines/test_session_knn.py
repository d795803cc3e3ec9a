"""Session neighbours on six sessions, with similarities computed by hand."""

from __future__ import annotations

import pytest

from multitron_core.baselines.session_knn import session_neighbours
from tests.multitron_core.baselines.conftest import TRAIN, scores


class TestSessionNeighbours:
    def test_scores_by_hand(self) -> None:
        # Prefix 3, 4 with last=2: weights 1/2 and 1. The sessions [1, 3], [3, 4], [4, 4] have the similarities
        # 0.5 / sqrt(2), 1.5 / sqrt(2), 1 / sqrt(1).
        half, both = 0.5 / 2**0.5, 1.5 / 2**0.5
        expected = {4: both + 1, 3: half + both, 1: half}
        assert scores(session_neighbours(TRAIN, last=2), 3, 4) == pytest.approx(expected)
        assert scores(session_neighbours(TRAIN, last=2, own_items=False), 3, 4) == pytest.approx({1: half})

    def test_uses_only_the_nearest_sessions(self) -> None:
        assert scores(session_neighbours(TRAIN, last=2, nearest=1), 3, 4) == pytest.approx(
            {3: 1.5 / 2**0.5, 4: 1.5 / 2**0.5}
        )

    def test_candidates_are_the_most_recent_sessions(self) -> None:
        assert set(scores(session_neighbours(TRAIN, candidates=1), 1)) == {5, 1, 2}
