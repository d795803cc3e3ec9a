from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from multitron_core.lake.lake import Lake
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.assets.list_checks import CHECKS, run_checks

DAY = dt.date(2026, 1, 8)
VOCABULARY = Vocabulary(pl.Series([10, 20, 30]))
GOOD = [("a", 1, 10, 2.0), ("a", 2, 20, 1.0), ("b", 1, 30, 0.5), ("b", 2, 10, 0.5)]


def written(lake: Lake, rows: list[tuple]) -> None:
    """Rows written past the lake's own checks: the fault that the asset checks are for."""
    frame = pl.DataFrame(
        rows,
        schema={"session_id": pl.String, "rank": pl.Int16, "item_id": pl.Int64, "score": pl.Float32},
        orient="row",
    ).with_columns(pi=pl.lit("0.50"), pi_click=0.5, pi_order=0.5, model_version=pl.lit("m"), run_date=pl.lit(DAY))
    write_deltalake(lake.uri("recommendations"), frame, mode="append")


@pytest.mark.parametrize(
    ("rows", "failing"),
    [
        (GOOD, set()),
        ([], {"rows_present"}),
        (GOOD[:3], {"rows_present", "ranks_dense"}),
        ([*GOOD[:3], ("b", 3, 10, 0.5)], {"ranks_dense"}),
        ([*GOOD[:3], ("b", 2, 99, 0.5)], {"items_known"}),
        ([*GOOD[:3], ("b", 2, 30, 0.5)], {"items_distinct"}),
        ([*GOOD[:3], ("b", 2, 10, 0.6)], {"scores_falling"}),
        ([*GOOD[:3], ("b", 2, 10, float("nan"))], {"scores_falling"}),
    ],
)
def test_each_fault_fails_its_check_and_no_other(rows: list[tuple], failing: set[str], tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create(pl.Int64)
    if rows:
        written(lake, rows)
    results = {result.check_name: result.passed for result in run_checks(lake, DAY, "0.50", k=2, vocabulary=VOCABULARY)}
    assert set(results) == set(CHECKS)
    assert {name for name, passed in results.items() if not passed} == failing
