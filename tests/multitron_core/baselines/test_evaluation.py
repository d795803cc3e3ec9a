"""Baselines on six sessions whose counts can be read off, and on real data against known figures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from multitron_core.baselines.__main__ import main
from multitron_core.baselines.counts import co_visitation, popularity
from multitron_core.baselines.evaluation import (
    NOT_LISTED,
    against_baselines,
    baseline_ranks,
    evaluate_baselines,
    prefixes_of,
)
from multitron_core.baselines.scorer import Scorer
from multitron_core.baselines.session_knn import session_neighbours
from multitron_core.events.read import read_events
from multitron_core.sessions.batches import make_batch
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import prepare_sessions


def sessions(*clicks: list[int]) -> EncodedSessions:
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in clicks])]).astype(np.int64)
    items = np.array([item for session in clicks for item in session], dtype=np.int32)
    ids = pl.Series([f"s{i}" for i in range(len(clicks))])
    return EncodedSessions(ids, offsets, items, np.zeros(len(items), dtype=bool), "hash")


TRAIN = sessions([1, 2], [1, 2, 2], [1, 3], [3, 4], [5, 1, 2], [4, 4])
# Clicks: 1 x 4, 2 x 4, 3 x 2, 4 x 3, 5 x 1. Sessions of pairs: 12 x 3, 13, 34, 15, 25.


def scores(scorer: Scorer, *prefix: int) -> dict[int, float]:
    """What the scorer gives a prefix, by falling score."""
    frame = pl.DataFrame(
        {"step": [7] * len(prefix), "item": prefix, "back": range(len(prefix) - 1, -1, -1)},
        schema={"step": pl.Int64, "item": pl.Int32, "back": pl.Int32},
    )
    scored = scorer(frame).sort("score", "item", descending=[True, False])
    assert scored["step"].unique().to_list() in ([7], [])
    assert scored["item"].is_unique().all()
    return dict(zip(scored["item"].to_list(), scored["score"].to_list(), strict=True))


class TestPopularity:
    def test_clicks_are_counted(self) -> None:
        assert scores(popularity(TRAIN), 5) == {1: 4, 2: 4, 4: 3, 3: 2, 5: 1}
        assert list(scores(popularity(TRAIN, listed=2), 5)) == [1, 2]


class TestCoVisitation:
    def test_the_last_item_alone(self) -> None:
        scorer = co_visitation(TRAIN, last=1, own_items="excluded")
        assert scores(scorer, 5, 1) == {2: 3, 3: 1, 5: 1}
        assert scores(scorer, 2, 2) == {1: 3, 5: 1}

    def test_several_items_add_up_and_a_repeated_one_counts_once(self) -> None:
        scorer = co_visitation(TRAIN, last=3, own_items="excluded")
        assert scores(scorer, 1, 1, 3) == scores(scorer, 4, 1, 1, 3) == {2: 3, 4: 1, 5: 1}

    def test_own_items_counted_are_the_diagonal(self) -> None:
        assert scores(co_visitation(TRAIN, own_items="counted"), 3, 1) == {1: 4 + 1, 2: 3, 3: 2 + 1, 4: 1, 5: 1}

    def test_own_items_first(self) -> None:
        assert list(scores(co_visitation(TRAIN), 4, 5)) == [4, 5, 1, 2, 3]

    def test_the_weakest_neighbours_are_dropped(self) -> None:
        scorer = co_visitation(TRAIN, last=1, own_items="excluded", neighbours=2)
        assert scores(scorer, 1) == {2: 3, 3: 1}  # 3 and 5 are equal: the smaller index stays

    def test_counting_in_parts_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = scores(co_visitation(TRAIN), 1, 3)
        monkeypatch.setattr("multitron_core.baselines.counts._PAIRS_AT_A_TIME", 5)
        assert scores(co_visitation(TRAIN), 1, 3) == whole

    def test_an_item_nobody_saw_with_others_gives_nothing(self) -> None:
        assert scores(co_visitation(sessions([1, 2], [3]), last=1, own_items="excluded"), 3) == {}


class TestSessionNeighbours:
    def test_by_hand(self) -> None:
        # Prefix 3, 4: weights 1/2 (one back of two) and 1. Sessions [1, 3], [3, 4], [4, 4] have the similarities
        # .5 / sqrt 2, 1.5 / sqrt 2, 1 / sqrt 1.
        half, both = 0.5 / 2**0.5, 1.5 / 2**0.5
        expected = {4: both + 1, 3: half + both, 1: half}
        assert scores(session_neighbours(TRAIN, last=2), 3, 4) == pytest.approx(expected)
        assert scores(session_neighbours(TRAIN, last=2, own_items=False), 3, 4) == pytest.approx({1: half})

    def test_only_the_nearest_vote(self) -> None:
        assert scores(session_neighbours(TRAIN, last=2, nearest=1), 3, 4) == pytest.approx(
            {3: 1.5 / 2**0.5, 4: 1.5 / 2**0.5}
        )

    def test_only_recent_sessions_are_candidates(self) -> None:
        assert set(scores(session_neighbours(TRAIN, candidates=1), 1)) == {5, 1, 2}


def test_prefixes_reach_to_the_session_start() -> None:
    batch = make_batch(sessions([1, 2, 3], [4, 5]), np.arange(2), 50)
    assert sorted(prefixes_of(batch).rows()) == [(0, 4, 0), (1, 1, 0), (2, 1, 1), (2, 2, 0)]


def test_ranks_break_ties_by_index_and_know_what_is_not_listed() -> None:
    batch = make_batch(sessions([9, 2], [9, 3], [9, 1], [9, 8]), np.arange(4), 50)
    scored = pl.DataFrame({"item": [1, 2, 3], "score": [1.0, 5.0, 5.0]}, schema_overrides={"item": pl.Int32})
    ranks = baseline_ranks(lambda prefixes: prefixes.select("step").unique().join(scored, how="cross"), batch)
    assert ranks.tolist() == [1, 2, 3, NOT_LISTED]


def test_the_best_of_a_front_beside_the_best_baseline() -> None:
    front = pl.DataFrame(
        {
            "pi_order": [0.0, 0.5, 1.0],
            "click_recall_20": [0.5, 0.4, 0.9],
            "order_recall_20": [0.6, 0.7, 0.9],
            "order_density": [None, None, 0.1],
            "ranks_trained": [True, True, False],
        },
        schema_overrides={"order_density": pl.Float64},
    )
    table = pl.DataFrame(
        {
            "baseline": ["popularity", "co-visitation"],
            "click_recall_20": [0.1, 0.45],
            "order_recall_20": [0.8, None],
            "order_density": [0.1, 0.2],
        }
    )
    rows = {row["metric"]: row for row in against_baselines(front, table).iter_rows(named=True)}
    assert set(rows) == {"click_recall_20", "order_recall_20"}
    assert rows["click_recall_20"]["pi_order"] == 0.0
    assert rows["click_recall_20"]["best_baseline"] == "co-visitation"
    assert rows["click_recall_20"]["gain"] == pytest.approx(0.05)
    assert rows["order_recall_20"]["pi_order"] == 0.5
    assert rows["order_recall_20"]["gain"] == pytest.approx(-0.1)


def test_the_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        TRAIN.save(tmp_path / split)
    assert main(["--sessions", str(tmp_path), "--k", "3"]) == 0
    assert "click_recall_3" in capsys.readouterr().out
    assert main(["--sessions", str(tmp_path / "nowhere")]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_diginetica_last_week() -> None:
    """Popularity and last-item co-visitation have one definition: these are the figures of an independent program."""
    default = Path(__file__).parents[3] / "../shared/data"
    folder = Path(os.environ.get("MULTITRON_DATA", default)) / "diginetica-full"
    if not folder.exists():
        pytest.skip(f"no real data: {folder} is missing (set MULTITRON_DATA)")
    prepared = prepare_sessions(read_events(folder, "diginetica"), "diginetica")
    scorers = {
        "popularity": popularity(prepared.train),
        "last item": co_visitation(prepared.train, last=1, own_items="excluded"),
        "last five": co_visitation(prepared.train),
    }
    table = evaluate_baselines(prepared.train, prepared.test, baselines=scorers).rows_by_key(
        "baseline", named=True, unique=True
    )
    assert table["popularity"]["click_recall_20"] == pytest.approx(0.009, abs=5e-4)
    assert table["popularity"]["order_recall_20"] == pytest.approx(0.012, abs=5e-4)
    assert table["popularity"]["order_density"] == pytest.approx(0.023, abs=5e-4)
    assert table["last item"]["click_recall_20"] == pytest.approx(0.374, abs=3e-3)
    assert table["last item"]["order_recall_20"] == pytest.approx(0.309, abs=1e-3)
    assert table["last five"]["click_recall_20"] > 0.474
    assert table["last five"]["order_recall_20"] > 0.684
