"""Group `ingestion`: from raw files to the event log."""

import datetime as dt
from collections.abc import Iterator

import dagster as dg
import polars as pl

from multitron_core.events.ingestion import ingest
from multitron_core.events.ingestion_checks import FEWEST_DAYS, USUAL_DAYS, reconciliation, reject_shares, volumes
from multitron_core.events.tables import EVENT_SCHEMA
from multitron_core.lake.lake import Lake
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import as_markdown, column_schema, counts
from orchestration.runtime.partitions import Partitions
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures
from orchestration.shop.home import Shop
from orchestration.shop.sources import raw_source

GROUP = "ingestion"
CHECKS = {
    "counts_add_up": "Per day: events read = accepted + duplicates + rejected, and the tables `events` and `rejects` "
    "have as many rows as were counted.",
    "volume_is_usual": "The number of events of a day is within min_volume to max_volume of [ingestion], relative to "
    f"the same weekday of the last {USUAL_DAYS} days or to all of these days. With fewer than {FEWEST_DAYS} such days, "
    "any number of events above 0 passes.",
    "rejects_are_few": "The share of rejected lines is at most max_share of [ingestion]. (Above max_reject_share of "
    "[source] the day is not ingested.)",
}


def ingestion_assets(partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The assets of the group `ingestion`."""

    @dg.asset(
        partitions_def=partitions.days,
        # A range of days is one run: a file with many days is read once, not once per day.
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=GROUP,
        kinds={"polars", "deltalake"},
        check_specs=[
            dg.AssetCheckSpec(name, asset="events", description=description, blocking=name == "counts_add_up")
            for name, description in CHECKS.items()
        ],
        op_tags=on_queue("ingestion"),
        description=(
            "The event log: clicks, carts and orders in one format, one Delta partition per day. Lines that cannot be "
            "read as events are in the table `rejects` with file, line and reason; the counts are in `ingestion`. Late "
            "events are written to the day on which they happened, and that day is materialized again."
        ),
    )
    def events(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        days = [dt.date.fromisoformat(key) for key in context.partition_keys]
        first, last = min(days), max(days)
        shop = shop_resource.load()
        lake = shop.lake()
        with failures(context):
            report = ingest(raw_source(shop), lake, first=first, last=last)
            checked = list(check_days(shop, lake, first, last))
        version = lake.version("events")
        for day in report.late_days:
            if partitions.days.has_partition_key(str(day)):
                # Dagster then shows what was made from that day as outdated.
                late: dict[str, str | int] = {"late events in files of": f"{first} to {last}", "delta version": version}
                context.log_event(dg.AssetMaterialization("events", partition=str(day), metadata=late))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": report.events,
                "dagster/column_schema": column_schema(EVENT_SCHEMA),
                "dagster/uri": lake.uri("events"),
                "counts": counts(report.counts),
                "days with late events": [str(day) for day in report.late_days],
                "days to ingest again": [str(day) for day in report.repeated_days],
                "delta version": version,
            },
            check_results=checked,
        )

    return [events]


def check_days(shop: Shop, lake: Lake, first: dt.date, last: dt.date) -> Iterator[dg.AssetCheckResult]:
    """The results of `CHECKS` for the ingested days from `first` to `last`; their metadata has one row per day.

    Args:
        shop: the shop; [ingestion] of its settings gives the limits.
        lake: its tables.
        first, last: the days, both included.
    """
    limits = shop.settings.ingestion.limits()
    tables = {
        "counts_add_up": (reconciliation(lake, first, last), "adds_up", dg.AssetCheckSeverity.ERROR),
        "volume_is_usual": (volumes(lake, first, last, limits), "near", dg.AssetCheckSeverity.ERROR),
        "rejects_are_few": (reject_shares(lake, first, last, limits), "few", dg.AssetCheckSeverity.WARN),
    }
    for name, (days, passed, severity) in tables.items():
        failed = days.filter(~pl.col(passed))["day"].to_list()
        yield dg.AssetCheckResult(
            check_name=name,
            passed=not failed,
            severity=severity,
            metadata={"days": as_markdown(days), "failed days": [str(day or "files without a day") for day in failed]},
        )
