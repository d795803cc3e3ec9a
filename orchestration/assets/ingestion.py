"""Raw files to the event log."""

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
    "counts_add_up": "Of each day: lines and events that came in = accepted + duplicates + rejected, and the tables "
    "`events` and `rejects` have as many rows as were counted.",
    "volume_is_usual": "A day has about as many events as usual: as the same weekday of the last "
    f"{USUAL_DAYS} days, or as all of these days. Says nothing before {FEWEST_DAYS} days.",
    "rejects_are_few": "The share of bad lines lies below max_share of [ingestion]. (Above max_reject_share of "
    "[source] a day is not ingested at all.)",
}


def ingestion_assets(partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The assets of the group `ingestion`."""

    @dg.asset(
        partitions_def=partitions.days,
        # A range of days is one run: history in one file is read once, not once a day.
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=GROUP,
        kinds={"polars", "deltalake"},
        check_specs=[
            dg.AssetCheckSpec(name, asset="events", description=description, blocking=name == "counts_add_up")
            for name, description in CHECKS.items()
        ],
        op_tags=on_queue("ingestion"),
        description=(
            "The canonical event log: clicks, carts and orders of the day, one Delta partition a day. "
            "Lines that are no events stand in the table `rejects` with file, line and reason, what was counted in "
            "`ingestion`. Events that came late land in the day they belong to, which is then materialized here too."
        ),
    )
    def events(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        days = [dt.date.fromisoformat(key) for key in context.partition_keys]
        first, last = min(days), max(days)
        here, lake = shop.load(), shop.lake()
        with failures(context):
            report = ingest(raw_source(here), lake, first=first, last=last)
            checked = list(check_days(here, lake, first, last))
        version = lake.version("events")
        for day in report.late_days:
            if partitions.days.has_partition_key(str(day)):
                # What was made from that day is older than its events now, and Dagster shows it.
                told: dict[str, str | int] = {"late events of": f"{first} to {last}", "delta version": version}
                context.log_event(dg.AssetMaterialization("events", partition=str(day), metadata=told))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": report.events,
                "dagster/column_schema": column_schema(EVENT_SCHEMA),
                "dagster/uri": lake.uri("events"),
                "counts": counts(report.counts),
                "days to be redone": [str(day) for day in report.late_days],
                "days to be ingested again": [str(day) for day in report.repeated_days],
                "delta version": version,
            },
            check_results=checked,
        )

    return [events]


def check_days(shop: Shop, lake: Lake, first: dt.date, last: dt.date) -> Iterator[dg.AssetCheckResult]:
    """What was ingested of the days from `first` to `last`, judged; the figures of each day are in the metadata."""
    limits = shop.settings.ingestion.limits()
    judged = {
        "counts_add_up": (reconciliation(lake, first, last), "adds_up", dg.AssetCheckSeverity.ERROR),
        "volume_is_usual": (volumes(lake, first, last, limits), "near", dg.AssetCheckSeverity.ERROR),
        "rejects_are_few": (reject_shares(lake, first, last, limits), "few", dg.AssetCheckSeverity.WARN),
    }
    for name, (days, right, severity) in judged.items():
        wrong = days.filter(~pl.col(right))["day"].to_list()
        yield dg.AssetCheckResult(
            check_name=name,
            passed=not wrong,
            severity=severity,
            metadata={"days": as_markdown(days), "wrong": [str(day or "files of no day") for day in wrong]},
        )
