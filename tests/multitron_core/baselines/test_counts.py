"""Popularity and co-visitation on six sessions whose counts can be read off."""

from __future__ import annotations

from multitron_core.baselines.counts import co_visitation, popularity
from tests.multitron_core.baselines.conftest import TRAIN, scores, sessions


class TestPopularity:
    def test_counts_clicks(self) -> None:
        assert scores(popularity(TRAIN), 5) == {1: 4, 2: 4, 4: 3, 3: 2, 5: 1}
        assert list(scores(popularity(TRAIN, listed=2), 5)) == [1, 2]


class TestCoVisitation:
    def test_of_the_last_item(self) -> None:
        scorer = co_visitation(TRAIN, last=1, own_items="excluded")
        assert scores(scorer, 5, 1) == {2: 3, 3: 1, 5: 1}
        assert scores(scorer, 2, 2) == {1: 3, 5: 1}

    def test_sums_over_distinct_last_items(self) -> None:
        scorer = co_visitation(TRAIN, last=3, own_items="excluded")
        assert scores(scorer, 1, 1, 3) == scores(scorer, 4, 1, 1, 3) == {2: 3, 4: 1, 5: 1}

    def test_own_items_counted_add_the_diagonal(self) -> None:
        assert scores(co_visitation(TRAIN, own_items="counted"), 3, 1) == {1: 4 + 1, 2: 3, 3: 2 + 1, 4: 1, 5: 1}

    def test_own_items_first_are_listed_first(self) -> None:
        assert list(scores(co_visitation(TRAIN), 4, 5)) == [4, 5, 1, 2, 3]

    def test_drops_the_weakest_neighbours(self) -> None:
        scorer = co_visitation(TRAIN, last=1, own_items="excluded", neighbours=2)
        assert scores(scorer, 1) == {2: 3, 3: 1}  # items 3 and 5 tie; the smaller index is kept

    def test_max_pairs_does_not_change_scores(self) -> None:
        assert scores(co_visitation(TRAIN, max_pairs=5), 1, 3) == scores(co_visitation(TRAIN), 1, 3)

    def test_item_without_neighbours_has_no_scores(self) -> None:
        assert scores(co_visitation(sessions([1, 2], [3]), last=1, own_items="excluded"), 3) == {}
