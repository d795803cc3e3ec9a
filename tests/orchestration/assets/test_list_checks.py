from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster import AssetCheckEvaluation
from deltalake import write_deltalake

from multitron_core.errors import InputError
from multitron_core.lake.lake import Lake
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.assets.list_checks import CHECKS, COMPARISON, DELTA_VERSION, check_partition, checked_version
from orchestration.runtime.partitions import PARTITION_TAG, night_key

DAY = dt.date(2026, 1, 8)
VOCABULARY = Vocabulary(pl.Series([10, 20, 30]))
GOOD = [("a", 1, 10, 2.0), ("a", 2, 20, 1.0), ("b", 1, 30, 0.5), ("b", 2, 10, 0.5)]


Row = tuple[str, int, int, float]


def write_unchecked(lake: Lake, rows: list[Row]) -> None:
    """Write rows past the checks of the lake: the fault that the asset checks are for."""
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
def test_check_partition_fails_exactly_the_right_checks(rows: list[Row], failing: set[str], tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create(pl.Int64)
    if rows:
        write_unchecked(lake, rows)
    found = check_partition(lake, DAY, "0.50", k=2, vocabulary=VOCABULARY)
    results = {result.check_name: result.passed for result in found}
    assert set(results) == set(CHECKS)
    assert {name for name, passed in results.items() if not passed} == failing


def evaluate(instance: dg.DagsterInstance, version: int, *names: str, passed: bool = True) -> None:
    """Record evaluations of checks at a Delta version, as a run of the checks does."""
    for name in names:
        metadata = {DELTA_VERSION: dg.IntMetadataValue(version)}
        key, partition = dg.AssetKey("recommendations"), night_key(DAY, "0.50")
        found = AssetCheckEvaluation(key, name, passed, metadata, partition=partition)
        event = dg.DagsterEvent(dg.DagsterEventType.ASSET_CHECK_EVALUATION.value, "a job", event_specific_data=found)
        run = dg.DagsterRun("scoring", run_id=str(uuid.uuid4()), tags={PARTITION_TAG: str(partition)})
        instance.add_run(run)
        instance.report_dagster_event(event, run_id=run.run_id)


def test_checked_version_separates_the_checks_of_two_runs() -> None:
    names, partition = (*CHECKS, COMPARISON), night_key(DAY, "0.50")
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(InputError, match="a check has not run"):
            checked_version(instance, "recommendations", partition)
        evaluate(instance, 7, *names)
        # Of a run whose partition was replaced by the run above.
        evaluate(instance, 6, "ranks_dense", COMPARISON, passed=False)
        assert checked_version(instance, "recommendations", partition) == 7
        # Of a run that replaced the partition and has not ended its checks.
        evaluate(instance, 8, "rows_present")
        with pytest.raises(InputError, match=r"different versions.*'rows_present': 8.*run all checks of this"):
            checked_version(instance, "recommendations", partition)
        evaluate(instance, 8, *names)
        assert checked_version(instance, "recommendations", partition) == 8
        evaluate(instance, 8, COMPARISON, passed=False)
        with pytest.raises(InputError, match="a check failed"):
            checked_version(instance, "recommendations", partition)
