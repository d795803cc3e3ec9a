"""Group `tables`: the channels that read the published tables, and retention."""

import dataclasses
import datetime as dt

import dagster as dg
import polars as pl

from multitron_core.lake.housekeeping import Housekeeping
from orchestration.lifecycle.tables import apply_shop_retention, update_channels
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import as_markdown
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures

GROUP = "tables"


def table_assets() -> list[dg.AssetsDefinition]:
    """The assets of the group `tables`; they have no partitions."""

    @dg.asset(
        deps=[dg.AssetDep("night", partition_mapping=dg.AllPartitionMapping()), "front"],
        group_name=GROUP,
        kinds={"deltalake"},
        op_tags=on_queue("scoring"),
        description=(
            "The table and the preference that each reader gets, from [channels] of shop.toml. A preference that an "
            "objective chose is recorded in the model folder, operating_points.json. To move a channel to another "
            "published preference, materialize only this asset. If a preference is not published, no channel changes."
        ),
    )
    def channels(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop = shop_resource.load()
        with failures(context):
            updated = update_channels(shop)
        chosen = updated.operating_points
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": updated.rows.height,
                "dagster/uri": shop.lake().uri("channels"),
                "channels": as_markdown(updated.rows),
                "operating points": "none" if chosen.is_empty() else as_markdown(chosen),
                "delta version": updated.delta_version,
            }
        )

    @dg.asset(
        deps=[dg.AssetDep("published", partition_mapping=dg.AllPartitionMapping())],
        group_name=GROUP,
        kinds={"deltalake"},
        op_tags=on_queue("scoring"),
        check_specs=[
            dg.AssetCheckSpec(
                "publications_readable",
                asset="housekeeping",
                description="Every published partition can still be read at the version that was published.",
            )
        ],
        description=(
            "Retention: deletes nights older than keep_days of [tables], then files that no reader can need, and "
            "writes checkpoints. The latest published night of each preference always stays. The sessions and "
            "assortments of deleted nights are removed from the home one week after their last change. The metadata "
            "have the sizes."
        ),
    )
    def housekeeping(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop = shop_resource.load()
        with failures(context):
            applied = apply_shop_retention(shop, dt.datetime.now(dt.UTC))
        reports = applied.tables
        unreadable = [f"{report.table} {day} {pi}" for report in reports for day, pi in report.unreadable]
        return dg.MaterializeResult(
            metadata={
                "tables": as_markdown(pl.DataFrame([_row(report) for report in reports])),
                "keep days": applied.keep_days,
                # Separate numbers, so that Dagster plots them over time.
                "bytes": sum(report.bytes for report in reports),
                "files": sum(report.files for report in reports),
                "small files": sum(report.small_files for report in reports),
                "rows": sum(report.rows for report in reports),
                "nights": max((report.nights for report in reports), default=0),
                "deleted nights": len({night for report in reports for night in report.deleted_nights}),
                "vacuumed files": sum(report.vacuumed_files for report in reports),
                "deleted local nights": len(applied.local.nights),
                "deleted local bytes": applied.local.bytes,
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="publications_readable",
                    passed=not unreadable,
                    metadata={
                        "unreadable": unreadable,
                        "hint": "materialize `published` for these partitions" if unreadable else "none",
                    },
                )
            ],
        )

    return [channels, housekeeping]


def _row(report: Housekeeping) -> dict[str, object]:
    """A report as one row of text."""
    return {
        name: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in dataclasses.asdict(report).items()
    }
