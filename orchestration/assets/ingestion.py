"""Raw files to the event log."""

import datetime as dt

import dagster as dg

from multitron_core.event_log import EVENT_SCHEMA, RawSource, ingest
from orchestration.metadata import column_schema, counts
from orchestration.partitions import Partitions
from orchestration.resources import ShopResource
from orchestration.retries import failures
from orchestration.shop import Shop

GROUP = "ingestion"


def raw_source(shop: Shop) -> RawSource:
    """The raw files that a shop's settings name."""
    source = shop.settings.source
    return RawSource(
        path=shop.source_path,
        format=source.format,
        files=source.files,
        columns=source.columns or None,
        max_reject_share=source.max_reject_share,
    )


def session_gap(shop: Shop) -> dt.timedelta | None:
    """The inactivity gap that cuts users' events into sessions; None where the log has sessions."""
    mapping = raw_source(shop).mapping
    return mapping.session_gap if mapping is not None and mapping.user_id is not None else None


def ingestion_assets(partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The assets of the group `ingestion`."""

    @dg.asset(
        partitions_def=partitions.days,
        # A range of days is one run: history in one file is read once, not once a day.
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=GROUP,
        kinds={"polars", "deltalake"},
        description=(
            "The canonical event log: clicks, carts and orders of the day, one Delta partition a day. "
            "Lines that are no events stand in the table `rejects` with file, line and reason."
        ),
    )
    def events(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        days = [dt.date.fromisoformat(key) for key in context.partition_keys]
        lake = shop.lake()
        with failures(context):
            report = ingest(raw_source(shop.load()), lake, first=min(days), last=max(days))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": report.events,
                "dagster/column_schema": column_schema(EVENT_SCHEMA),
                "dagster/uri": lake.uri("events"),
                "counts": counts(report.counts),
                "days to be redone": [str(day) for day in report.late_days],
                "delta version": lake.version("events"),
            }
        )

    return [events]
