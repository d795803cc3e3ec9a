"""Ranks of baselines, their comparison with a front, and their metrics on real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from multitron_core.baselines.counts import co_visitation, popularity
from multitron_core.baselines.evaluation import (
    NOT_LISTED,
    against_baselines,
    baseline_ranks,
    evaluate_baselines,
    prefixes_of,
)
from multitron_core.events.read import read_events
from multitron_core.sessions.batches import make_batch
from multitron_core.sessions.prepare import prepare_sessions
from tests.multitron_core.baselines.conftest import sessions


def test_prefixes_of_reach_to_the_session_start() -> None:
    batch = make_batch(sessions([1, 2, 3], [4, 5]), np.arange(2), 50)
    assert sorted(prefixes_of(batch).rows()) == [(0, 4, 0), (1, 1, 0), (2, 1, 1), (2, 2, 0)]


def test_baseline_ranks_break_ties_by_index() -> None:
    batch = make_batch(sessions([9, 2], [9, 3], [9, 1], [9, 8]), np.arange(4), 50)
    scored = pl.DataFrame({"item": [1, 2, 3], "score": [1.0, 5.0, 5.0]}, schema_overrides={"item": pl.Int32})
    ranks = baseline_ranks(lambda prefixes: prefixes.select("step").unique().join(scored, how="cross"), batch)
    assert ranks.tolist() == [1, 2, 3, NOT_LISTED]


def test_against_baselines_compares_the_best_of_both() -> None:
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


@pytest.mark.slow
def test_evaluate_baselines_on_the_last_week_of_diginetica(real_data: Path) -> None:
    """The expected metrics of popularity and last-item co-visitation are those of an independent program."""
    folder = real_data / "diginetica-full"
    if not folder.exists():
        pytest.skip(f"no real data at {folder}")
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
