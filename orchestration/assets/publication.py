"""Group `publication`: the checks of a night's tables, their publication, and the completeness of the night."""

import dataclasses
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import polars as pl

from multitron_core.lake.contracts import LIST_TABLES
from multitron_core.lake.lake import Lake
from orchestration.assets.list_checks import (
    check_partition,
    check_specs,
    checked_version,
    compare_with_previous_night,
    what_changed,
)
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import as_markdown
from orchestration.runtime.partitions import Partitions, night_of
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures
from orchestration.shop.deployed import written_vocabulary

GROUP = "publication"


@dataclass(frozen=True)
class PublicationAssets:
    """The group `publication`.

    Args:
        assets: `published` and `night`.
        checks: of the tables of ranked lists, and of `night`.
    """

    assets: list[dg.AssetsDefinition]
    checks: list[dg.AssetChecksDefinition]


def publication_assets(partitions: Partitions) -> PublicationAssets:
    """The assets and checks of the group `publication`, over a shop's partitions."""

    @dg.asset(
        partitions_def=partitions.nights,
        deps=list(LIST_TABLES),
        group_name=GROUP,
        kinds={"deltalake"},
        op_tags=on_queue("scoring"),
        description=(
            "The publication of a night at one preference, for all tables or none: one row per table with the Delta "
            "version that passed its checks. Readers of the latest night get the latest published one. A partition "
            "without passed checks is never published, even if this asset is materialized alone."
        ),
    )
    def published(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        lake = shop_resource.load().lake()
        day, pi = night_of(context.partition_key)
        with failures(context):
            versions = {table: checked_version(context.instance, table, context.partition_key) for table in LIST_TABLES}
            publications = lake.publish_night(day, pi, versions)
        rows = pl.DataFrame([dataclasses.asdict(row) for row in publications])
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows.height,
                "dagster/uri": lake.uri("published"),
                "published": as_markdown(rows),
                "made by": dg.MetadataValue.asset(dg.AssetKey("deployed_model")),
                **{
                    f"{table}: changes to the previous night": dg.MetadataValue.md(
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
        description="One night with all its preferences: what was published, per table and preference.",
    )
    def night(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        with failures(context):
            rows = published_rows_of(shop_resource.load().lake(), dt.date.fromisoformat(context.partition_key))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": int(rows["rows"].sum()),
                "preferences": rows["pi"].n_unique(),
                "published": as_markdown(rows),
            }
        )

    @dg.asset_check(
        asset=night,
        partitions_def=partitions.days,
        blocking=True,
        op_tags=on_queue("scoring"),
        description="Every preference of every table is published for this date. The preferences of a table have the "
        "same number of lists, and one model version wrote all of them.",
    )
    def every_pi_is_there(context: dg.AssetCheckExecutionContext, shop_resource: ShopResource) -> dg.AssetCheckResult:
        shop, day = shop_resource.load(), dt.date.fromisoformat(context.partition_key)
        preferences = shop.settings.preferences
        with failures(context):
            rows = published_rows_of(shop.lake(), day)
        pairs = set(rows.select("table_name", "pi").iter_rows())
        missing = [f"{table} {pi}" for table in LIST_TABLES for pi in preferences if (table, pi) not in pairs]
        expected = rows.filter(pl.col("pi").is_in(list(preferences)))
        lists = {table: expected.filter(table_name=table)["lists"].unique().sort().to_list() for table in LIST_TABLES}
        versions = expected["model_version"].unique().sort().to_list()
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
    """The checks of one table of ranked lists; all of them read the same Delta version."""

    @dg.multi_asset_check(
        name=f"{table}_meet_contract",
        specs=check_specs(partitions, table),
        op_tags=on_queue("scoring"),
        description="The contract of the table, checked on its rows, and the changes to the previous night.",
    )
    def meet_contract(
        context: dg.AssetCheckExecutionContext, shop_resource: ShopResource
    ) -> Iterator[dg.AssetCheckResult]:
        shop = shop_resource.load()
        lake = shop.lake()
        day, pi = night_of(context.partition_key)
        with failures(context):
            version = lake.version(table)
            results = [
                *check_partition(
                    lake,
                    day,
                    pi,
                    k=shop.settings.scoring.k,
                    vocabulary=written_vocabulary(shop, lake, table, day, pi, version),
                    table=table,
                    delta_version=version,
                ),
                compare_with_previous_night(
                    lake, day, pi, table=table, delta_version=version, thresholds=shop.settings.quality.thresholds()
                ),
            ]
        yield from results

    return meet_contract


def published_rows_of(lake: Lake, day: dt.date) -> pl.DataFrame:
    """The rows of `published` of a day, sorted by table and preference."""
    return lake.publications().filter(run_date=day).sort("table_name", "pi")
