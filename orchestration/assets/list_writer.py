"""What the assets that write ranked lists of one night at one preference share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl

from multitron_core.lake.contracts import table_contracts
from multitron_core.lake.lake import Lake, PartitionCommit
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.runtime.in_process_runs import scoring_listener
from orchestration.runtime.metadata import as_markdown, column_schema
from serving.scorer import ScoringProgress

SAMPLE_LISTS = 3


@dataclass(frozen=True, eq=False)
class NightLists:
    """One (day, pi) of the tables of ranked lists.

    Args:
        lake: the shop's tables.
        day, pi: the partition.
        k: items a list.
        model_version: of the model that answers; the label of the rows.
        vocabulary: its items.
        assortment: the items that lists may hold; None for all.
    """

    lake: Lake
    day: dt.date
    pi: str
    k: int
    model_version: str
    vocabulary: Vocabulary
    assortment: pl.Series | None = None

    def write(self, table: str, lists: Iterable[pl.DataFrame], *, keys: pl.Series, **more: Any) -> dg.MaterializeResult:
        """Replace the partition of a table, and say what was written.

        Args:
            table: of ranked lists; made when it is missing.
            lists: a stream of rows; checked before the commit.
            keys: what the lists are for, each once.
            more: metadata beside the usual.
        """
        self.lake.create(self.vocabulary.item_ids.dtype)
        committed = self.lake.replace_partition(
            self.day,
            self.pi,
            lists,
            table=table,
            k=self.k,
            items=self.vocabulary if self.assortment is None else self.assortment,
            model_version=self.model_version,
            expected_lists=len(keys),
        )
        return dg.MaterializeResult(metadata={**self._described(committed, keys), **more})

    def _described(self, committed: PartitionCommit, keys: pl.Series) -> dict[str, Any]:
        """The metadata of what was written, with the first few lists."""
        contract = table_contracts(self.vocabulary.item_ids.dtype)[committed.table]
        shown = self.lake.read_recommendations(
            committed.pi,
            committed.run_date,
            session_ids=keys.head(SAMPLE_LISTS).to_list(),
            table=committed.table,
            unpublished=True,
        )
        return {
            "dagster/row_count": committed.rows,
            "dagster/partition_row_count": committed.rows,
            "dagster/column_schema": column_schema(
                contract.polars_schema(), {column.name: column.comment for column in contract.columns}
            ),
            "dagster/uri": self.lake.uri(committed.table),
            "lists": committed.sessions,
            "model version": self.model_version,
            "made by": dg.MetadataValue.asset(dg.AssetKey("deployed_model")),
            "assortment": "every item" if self.assortment is None else f"{len(self.assortment)} items",
            "delta version": committed.delta_version,
            "files": committed.files,
            "bytes": committed.bytes,
            "seconds": committed.seconds,
            "sample": as_markdown(shown, rows=shown.height),
        }


def progress_logger(context: dg.AssetExecutionContext) -> Callable[[ScoringProgress], None]:
    """The progress of scoring, as lines in the run's log, and for whoever listens in this process."""
    listener = scoring_listener.get()

    def log_progress(progress: ScoringProgress) -> None:
        if listener is not None:
            listener(progress)
        context.log.info(
            f"{progress.sessions} of {progress.total} lists, {progress.rate:.0f}/s, {progress.seconds_left:.0f} s left"
        )

    return log_progress
