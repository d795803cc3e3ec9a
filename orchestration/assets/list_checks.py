"""What a partition of ranked lists promises, read back from the table and checked; and which version was checked.

The writer refuses a wrong row before the commit; these checks look at what readers would get, and block what follows.
All of them look at one Delta version and say which: `published` releases that version and no other.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import polars as pl
from dagster import AssetCheckEvaluation

from multitron_core.errors import InputError
from multitron_core.lake.lake import Lake
from multitron_core.lake.night_comparison import NightComparison, Thresholds, compare_nights, violations
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.runtime.metadata import as_markdown
from orchestration.runtime.partitions import PARTITION_TAG, Partitions

LIST_TABLES = ("recommendations", "item_recommendations", "fallback_recommendations")
"""The tables of ranked lists that a night writes and releases together."""

CHECKS = {
    "rows_present": "The partition has rows: k for each list.",
    "ranks_dense": "Each list has the ranks 1 to k, each once.",
    "items_known": "Every item is in the live model's vocabulary.",
    "items_distinct": "No item stands twice in a list.",
    "scores_falling": "Scores are finite and do not rise with the rank.",
}
COMPARISON = "like_the_night_before"
DELTA_VERSION = "delta version"
WHAT_CHANGED = "what changed"
REASON = "reason"


def check_specs(partitions: Partitions, table: str) -> list[dg.AssetCheckSpec]:
    """The blocking checks of a table of ranked lists, a night each."""
    described = {
        **CHECKS,
        COMPARISON: "The night does not differ from the one published before beyond the thresholds of [quality]. What "
        "changed is in the metadata, and so is the reason where it fails; the first night has nothing to differ from.",
    }
    return [
        dg.AssetCheckSpec(name, asset=table, description=description, blocking=True, partitions_def=partitions.nights)
        for name, description in described.items()
    ]


def run_checks(
    lake: Lake,
    day: dt.date,
    pi: str,
    *,
    k: int,
    vocabulary: Vocabulary,
    table: str = "recommendations",
    delta_version: int | None = None,
) -> Iterator[dg.AssetCheckResult]:
    """Read the partition once, streaming, and judge it by itself.

    Args:
        lake: where the table is.
        day, pi: the partition.
        k: items a list.
        vocabulary: the items that may occur.
        table: the table of ranked lists.
        delta_version: the version to read, None for the newest.
    """
    opened = lake.open(table, delta_version)
    rows = pl.scan_delta(opened).filter(pl.col("run_date") == day, pl.col("pi") == pi)
    lists = (
        rows.join(vocabulary.to_frame().lazy(), on="item_id", how="left")
        .group_by(lake.contract(table, opened).list_key)
        .agg(
            items=pl.len(),
            dense=(pl.col("rank").sort() == pl.int_range(1, pl.len() + 1, dtype=pl.Int16)).all() & (pl.len() == k),
            unknown=pl.col("item_index").is_null().sum(),
            repeated=pl.len() - pl.col("item_id").n_unique(),
            falling=pl.col("score").is_finite().all()
            & (pl.col("score").sort_by("rank").diff().fill_null(0.0) <= 0.0).all(),
        )
    )
    found = (
        lists.select(
            lists=pl.len(),
            rows=pl.col("items").sum(),
            not_dense=(~pl.col("dense")).sum(),
            unknown=pl.col("unknown").sum(),
            repeated=pl.col("repeated").sum(),
            not_falling=(~pl.col("falling")).sum(),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )
    told: dict[str, Any] = {"partition": f"{day}|{pi}", DELTA_VERSION: opened.version()}

    def result(name: str, passed: bool, **metadata: int) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(asset_key=table, check_name=name, passed=passed, metadata={**told, **metadata})

    yield result("rows_present", found["rows"] == k * found["lists"] > 0, rows=found["rows"], lists=found["lists"])
    yield result("ranks_dense", found["not_dense"] == 0, lists_not_dense=found["not_dense"])
    yield result("items_known", found["unknown"] == 0, unknown_items=found["unknown"])
    yield result("items_distinct", found["repeated"] == 0, repeated_items=found["repeated"])
    yield result("scores_falling", found["not_falling"] == 0, lists_not_falling=found["not_falling"])


def compare(
    lake: Lake, day: dt.date, pi: str, *, table: str, delta_version: int, thresholds: Thresholds
) -> dg.AssetCheckResult:
    """The partition beside the night published before: what changed, and whether that looks right."""
    told: dict[str, Any] = {"partition": f"{day}|{pi}", DELTA_VERSION: delta_version}
    try:
        comparison = compare_nights(lake, day, pi, table=table, delta_version=delta_version)
    except InputError as error:  # nothing was written, or what was published before is gone: a person has to look
        reasons = [str(error)]
    else:
        reasons = violations(comparison, _for_lists_of(comparison, thresholds))
        told |= {WHAT_CHANGED: as_markdown(beside_the_night_before(comparison)), **_figures(comparison)}
    return dg.AssetCheckResult(
        asset_key=table,
        check_name=COMPARISON,
        passed=not reasons,
        description="; ".join(reasons) or None,
        metadata={**told, REASON: "; ".join(reasons) or "none"},
    )


def checked_version(instance: dg.DagsterInstance, table: str, partition: str) -> int:
    """The Delta version of a table at which a partition passed all of its checks, the last time that they ran.

    Raises:
        InputError: a check has not run for this partition or did not pass, or they looked at different versions.
    """
    names = (*CHECKS, COMPARISON)
    evaluations = _evaluations(instance, table, partition)
    latest = {name: _latest(evaluations, name) for name in names}
    version = max((_version_of(evaluation) for evaluation in latest.values() if evaluation), default=None)
    for name in names:
        evaluation = latest[name]
        where = f"{table}, partition {partition}, check {name}"
        if evaluation is None:
            raise InputError(
                "what has not been checked is not published", where=where, hint=f"materialize `{table}` of {partition}"
            )
        if _version_of(evaluation) != version:  # two runs' checks came in mixed: each has looked at its own version
            evaluation = _latest(evaluations, name, version=version)
        if evaluation is None:
            raise InputError(
                "the checks looked at different versions of the table",
                where=f"{table}, partition {partition}",
                found={name: _version_of(evaluation) for name, evaluation in latest.items() if evaluation},
                hint="run the checks of this partition again, all of them",
            )
        if not evaluation.passed:
            raise InputError(
                "what has failed its check is not published",
                where=where,
                found=evaluation.description or {key: value.value for key, value in evaluation.metadata.items()},
                hint=f"mend the cause and materialize `{table}` of {partition}; where the night is right and the "
                "thresholds are not, change [quality] of shop.toml and run the checks again",
            )
    assert version is not None
    return version


def what_changed(instance: dg.DagsterInstance, table: str, partition: str) -> str:
    """The partition beside the night before, in Markdown, as its comparison found it the last time that it ran."""
    evaluation = _latest(_evaluations(instance, table, partition), COMPARISON)
    found = evaluation.metadata.get(WHAT_CHANGED) if evaluation else None
    return str(found.value) if found else "not compared"


def _evaluations(instance: dg.DagsterInstance, table: str, partition: str) -> list[AssetCheckEvaluation]:
    """The evaluations of a table's checks for a partition, the newest first, from the runs of the partition."""
    entries = [
        record.event_log_entry
        for run in instance.get_run_records(dg.RunsFilter(tags={PARTITION_TAG: partition}))
        for record in instance.get_records_for_run(
            run.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        ).records
    ]
    newest_first = sorted(entries, key=lambda entry: entry.timestamp, reverse=True)
    evaluations = (entry.dagster_event.asset_check_evaluation_data for entry in newest_first if entry.dagster_event)
    return [each for each in evaluations if each.asset_key == dg.AssetKey(table)]


def _latest(
    evaluations: Sequence[AssetCheckEvaluation], name: str, *, version: int | None = None
) -> AssetCheckEvaluation | None:
    """The newest evaluation of a check, or its newest evaluation of a Delta version."""
    return next((e for e in evaluations if e.check_name == name and version in (None, _version_of(e))), None)


def _version_of(evaluation: AssetCheckEvaluation) -> int:
    return int(str(evaluation.metadata[DELTA_VERSION].value))


def _for_lists_of(comparison: NightComparison, thresholds: Thresholds) -> Thresholds:
    """A table of one list has every item once: there no item can take too large a share."""
    return dataclasses.replace(thresholds, max_top_share=1.0) if comparison.lists == 1 else thresholds


def beside_the_night_before(comparison: NightComparison) -> pl.DataFrame:
    """How tonight differs from the night published before: a row a figure, in the words of somebody who reads lists."""
    before = comparison.before
    rows = [
        ("lists", comparison.lists_before, comparison.lists),
        ("items shown", comparison.items_before, comparison.items),
        ("share of rows of the most shown 1 % of items", comparison.top_share_before, comparison.top_share),
        ("lists that only this night has", comparison.lost, comparison.gained),
        ("lists of both nights that are not the same", None, comparison.changed),
        ("share of a list's items that were there before", None, comparison.overlap),
    ]
    return pl.DataFrame(
        {
            "": [name for name, _, _ in rows],
            str(before) if before else "no night before": [_figure(value) for _, value, _ in rows],
            str(comparison.run_date): [_figure(value) for _, _, value in rows],
        }
    )


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.1%}"


def _figures(comparison: NightComparison) -> dict[str, Any]:
    """The figures that there are, by name; numbers stay numbers, so that Dagster plots them over the nights."""
    figures = dataclasses.asdict(comparison)
    for name in ("table", "run_date", "pi"):
        del figures[name]
    night = figures.pop("before")
    return {
        "compared with": str(night) if night else "nothing: the first night of this preference",
        **{name.replace("_", " "): value for name, value in figures.items() if value is not None},
    }
