"""From the night's tables to what readers see: the checks, the release, and the night as a whole."""

import dataclasses
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import polars as pl

from multitron_core.lake.contracts import LIST_TABLES
from multitron_core.lake.lake import Lake
from orchestration.assets.list_checks import check_specs, checked_version, compare, run_checks, what_changed
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import as_markdown
from orchestration.runtime.partitions import Partitions, night_of
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures
from orchestration.shop.deployed import written_vocabulary

GROUP = "publication"


@dataclass(frozen=True)
class PublicationAssets:
    """The assets of the group `publication`, and the checks that stand before and behind them."""

    assets: list[dg.AssetsDefinition]
    checks: list[dg.AssetChecksDefinition]


def publication(partitions: Partitions) -> PublicationAssets:
    """The group `publication` over a shop's partitions."""

    @dg.asset(
        partitions_def=partitions.nights,
        deps=list(LIST_TABLES),
        group_name=GROUP,
        kinds={"deltalake"},
        op_tags=on_queue("scoring"),
        description=(
            "The release of a night at one preference, all tables or none: a row each that pins the Delta version that "
            "passed its checks. Readers that ask for the latest night get the latest one published; what has not been "
            "checked, or failed, is never seen, also when this asset is materialized alone."
        ),
    )
    def published(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        lake = shop.lake()
        day, pi = night_of(context.partition_key)
        with failures(context):
            versions = {table: checked_version(context.instance, table, context.partition_key) for table in LIST_TABLES}
            released = lake.publish_night(day, pi, versions)
        rows = pl.DataFrame([dataclasses.asdict(row) for row in released])
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows.height,
                "dagster/uri": lake.uri("published"),
                "published": as_markdown(rows),
                "made by": dg.MetadataValue.asset(dg.AssetKey("deployed_model")),
                **{
                    f"how {table} differ from the night before": dg.MetadataValue.md(
                        what_changed(context.instance, table, context.partition_key)
                    )
                    for table in LIST_TABLES
                },
            }
        )

    @dg.asset(
        partitions_def=partitions.days,
        deps=[
            dg.AssetDep(
                published, partition_mapping=dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="date")
            )
        ],
        group_name=GROUP,
        kinds={"polars"},
        op_tags=on_queue("scoring"),
        description="The night as a whole: what was published of each table for each preference.",
    )
    def night(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        with failures(context):
            there = published_of(shop.lake(), dt.date.fromisoformat(context.partition_key))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": int(there["rows"].sum()),
                "preferences": there["pi"].n_unique(),
                "published": as_markdown(there),
            }
        )

    @dg.asset_check(
        asset=night,
        partitions_def=partitions.days,
        blocking=True,
        op_tags=on_queue("scoring"),
        description="Every preference of every table is published for this date, a table's with the same number of "
        "lists, and all by one model version.",
    )
    def every_pi_is_there(context: dg.AssetCheckExecutionContext, shop: ShopResource) -> dg.AssetCheckResult:
        day = dt.date.fromisoformat(context.partition_key)
        wanted = shop.load().settings.preferences
        with failures(context):
            there = published_of(shop.lake(), day)
        pairs = set(there.select("table_name", "pi").iter_rows())
        missing = [f"{table} {pi}" for table in LIST_TABLES for pi in wanted if (table, pi) not in pairs]
        asked = there.filter(pl.col("pi").is_in(list(wanted)))
        lists = {table: asked.filter(table_name=table)["lists"].unique().sort().to_list() for table in LIST_TABLES}
        versions = asked["model_version"].unique().sort().to_list()
        return dg.AssetCheckResult(
            passed=not missing and all(len(counted) == 1 for counted in lists.values()) and len(versions) == 1,
            metadata={
                "missing": missing,
                "lists": lists,
                "model versions": versions,
                "hint": f"run the job `scoring` of {day} for {missing}" if missing else "none",
            },
        )

    return PublicationAssets(
        assets=[published, night], checks=[*(_checks(partitions, table) for table in LIST_TABLES), every_pi_is_there]
    )


def _checks(partitions: Partitions, table: str) -> dg.AssetChecksDefinition:
    """The checks of one table of ranked lists; all of them look at the same Delta version."""

    @dg.multi_asset_check(
        name=f"{table}_meet_contract",
        specs=check_specs(partitions, table),
        op_tags=on_queue("scoring"),
        description="What the table promises, read back from it; and what changed since the night before.",
    )
    def meet_contract(context: dg.AssetCheckExecutionContext, shop: ShopResource) -> Iterator[dg.AssetCheckResult]:
        here, lake = shop.load(), shop.lake()
        day, pi = night_of(context.partition_key)
        with failures(context):
            version = lake.version(table)
            results = [
                *run_checks(
                    lake,
                    day,
                    pi,
                    k=here.settings.scoring.k,
                    vocabulary=written_vocabulary(here, lake, table, day, pi, version),
                    table=table,
                    delta_version=version,
                ),
                compare(
                    lake, day, pi, table=table, delta_version=version, thresholds=here.settings.quality.thresholds()
                ),
            ]
        yield from results

    return meet_contract


def published_of(lake: Lake, day: dt.date) -> pl.DataFrame:
    """The rows of `published` of a day, by table and preference."""
    return lake.publications().filter(run_date=day).sort("table_name", "pi")
