"""What the assets of ranked lists share: the metadata of a written partition, and progress in the run's log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg

from orchestration.lifecycle.night import WrittenLists
from orchestration.runtime.in_process_runs import scoring_listener
from orchestration.runtime.metadata import as_markdown, column_schema
from serving.scorer import ScoringProgress

FALLBACK_SOURCE = "delta version of `recommendations`"


def list_metadata(lists: WrittenLists, lineage: dg.TableColumnLineage | None = None) -> dict[str, Any]:
    """The metadata of one partition of ranked lists, with its first lists as a sample.

    Args:
        lists: what was written.
        lineage: the upstream columns of the table's columns.
    """
    commit, contract = lists.commit, lists.contract
    metadata: dict[str, Any] = {
        "dagster/row_count": commit.rows,
        "dagster/partition_row_count": commit.rows,
        "dagster/column_schema": column_schema(
            contract.polars_schema(), {column.name: column.comment for column in contract.columns}
        ),
        "dagster/uri": lists.uri,
        "lists": commit.sessions,
        "model version": lists.model_version,
        "made by": dg.MetadataValue.asset(dg.AssetKey("deployed_model")),
        "assortment": "every item" if lists.assortment_items is None else f"{lists.assortment_items} items",
        "delta version": commit.delta_version,
        "files": commit.files,
        "bytes": commit.bytes,
        "seconds": commit.seconds,
        "sample": as_markdown(lists.sample, rows=lists.sample.height),
    }
    if lineage is not None:
        metadata["dagster/column_lineage"] = lineage
    if lists.triton_version is not None:
        metadata["triton version"] = lists.triton_version
    if lists.source_version is not None:
        metadata[FALLBACK_SOURCE] = lists.source_version
    return metadata


def progress_logger(context: dg.AssetExecutionContext) -> Callable[[ScoringProgress], None]:
    """A callback that writes the progress of scoring to the run's log, and passes it to `scoring_listener`."""
    listener = scoring_listener.get()

    def log_progress(progress: ScoringProgress) -> None:
        if listener is not None:
            listener(progress)
        context.log.info(
            f"{progress.sessions} of {progress.total} lists, {progress.rate:.0f}/s, {progress.seconds_left:.0f} s left"
        )

    return log_progress
