"""Group `scoring`: from the event log and the live model to the ranked lists of a night, not yet published."""

import datetime as dt

import dagster as dg

from multitron_core.sessions.scoring import UNKNOWN_ITEM
from orchestration.assets.list_metadata import list_metadata, progress_logger
from orchestration.assets.session_checks import check_counts, counts_check_spec
from orchestration.lifecycle.night import (
    prepare_night_assortment,
    prepare_night_sessions,
    write_fallback_list,
    write_item_lists,
    write_session_lists,
)
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import column_schema, counts
from orchestration.runtime.partitions import Partitions, night_of
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures

GROUP = "scoring"


def scoring_assets(partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The assets of the group `scoring`, over a shop's days and nights."""
    return [
        _scoring_sessions(partitions),
        _assortment(partitions),
        _recommendations(partitions),
        _item_recommendations(partitions),
        _fallback_recommendations(partitions),
    ]


def _scoring_sessions(partitions: Partitions) -> dg.AssetsDefinition:
    @dg.asset(
        partitions_def=partitions.days,
        # Only the events of the day itself are required: a new shop has no earlier days.
        deps=["events", "deployed_model"],
        group_name=GROUP,
        kinds={"polars", "numpy"},
        check_specs=[counts_check_spec("scoring_sessions")],
        op_tags=on_queue("ingestion"),
        description=(
            "The sessions that a night scores: those with an event in the last state_days days up to the run date, "
            "encoded with the live model's vocabulary. They are prepared once and read by the scoring of every pi. "
            "Items that are new to the model are left out and counted; the next training includes them. The table "
            "`session_statistics` has the counts of events by use and by reason of removal."
        ),
    )
    def scoring_sessions(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop, day = shop_resource.load(), dt.date.fromisoformat(context.partition_key)
        with failures(context):
            prepared = prepare_night_sessions(shop, day)
        statistics = prepared.statistics
        return dg.MaterializeResult(
            check_results=[check_counts(statistics)],
            metadata={
                "dagster/row_count": len(prepared.sessions),
                "dagster/uri": str(prepared.folder),
                "dagster/column_schema": column_schema(prepared.sessions.to_frame().head(0)),
                "statistics": counts(statistics),
                # Separate numbers, so that Dagster plots them over the nights.
                "new items": statistics["unknown_items"],
                "clicks on new items": statistics["dropped"].get(f"clicks: {UNKNOWN_ITEM}", 0),
                "days": shop.settings.sessions.state_days,
                "vocabulary hash": prepared.sessions.vocabulary_hash,
            },
        )

    return scoring_sessions


def _assortment(partitions: Partitions) -> dg.AssetsDefinition:
    @dg.asset(
        partitions_def=partitions.days,
        deps=["deployed_model"],
        group_name=GROUP,
        kinds={"polars"},
        op_tags=on_queue("ingestion"),
        description=(
            "The items that the lists of a night may contain, from the table in `assortment` of [scoring]. Without "
            "that setting every item may be shown. The items are read once and saved, so that all preferences of the "
            "night use the same ones."
        ),
    )
    def assortment(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop, day = shop_resource.load(), dt.date.fromisoformat(context.partition_key)
        with failures(context):
            prepared = prepare_night_assortment(shop, day)
        if prepared.items is None:
            return dg.MaterializeResult(metadata={"items": "every item"})
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(prepared.items),
                "dagster/uri": str(prepared.path),
                "source": str(shop.assortment_path(day)),
                "items unknown to the model": prepared.unknown_items,
                "items of the model that are excluded": prepared.excluded_items,
            }
        )

    return assortment


def _recommendations(partitions: Partitions) -> dg.AssetsDefinition:
    session, clicks = (
        dg.TableColumnDep(asset_key=dg.AssetKey("scoring_sessions"), column_name=name)
        for name in ("session_id", "items")
    )
    lineage = dg.TableColumnLineage({"session_id": [session], "item_id": [clicks], "score": [clicks], "rank": [clicks]})

    @dg.asset(
        partitions_def=partitions.nights,
        deps=["scoring_sessions", "assortment", "deployed_model"],
        group_name=GROUP,
        kinds={"triton", "deltalake"},
        pool="triton",
        op_tags=on_queue("scoring"),
        description=(
            "The k best items of every session at one preference, one item per row. Rows are checked while they are "
            "written, and the partition is replaced in one commit: readers see either all old or all new rows."
        ),
    )
    def recommendations(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop, (day, pi) = shop_resource.load(), night_of(context.partition_key)
        with failures(context), shop_resource.server() as server:
            lists = write_session_lists(shop, server, day, pi, progress=progress_logger(context))
        return dg.MaterializeResult(metadata=list_metadata(lists, lineage))

    return recommendations


def _item_recommendations(partitions: Partitions) -> dg.AssetsDefinition:
    @dg.asset(
        partitions_def=partitions.nights,
        deps=["assortment", "deployed_model"],
        group_name=GROUP,
        kinds={"triton", "deltalake"},
        pool="triton",
        op_tags=on_queue("scoring"),
        description=(
            "The k best items to show with each item of the live model's vocabulary, for product pages. An item is "
            "scored as a session of one click on it, and is not part of its own list. Checked and published like "
            "`recommendations`."
        ),
    )
    def item_recommendations(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop, (day, pi) = shop_resource.load(), night_of(context.partition_key)
        with failures(context), shop_resource.server() as server:
            lists = write_item_lists(shop, server, day, pi, progress=progress_logger(context))
        return dg.MaterializeResult(metadata=list_metadata(lists))

    return item_recommendations


def _fallback_recommendations(partitions: Partitions) -> dg.AssetsDefinition:
    item, rank = (dg.TableColumnDep(dg.AssetKey("recommendations"), name) for name in ("item_id", "rank"))
    lineage = dg.TableColumnLineage({"item_id": [item], "score": [item, rank], "rank": [item, rank]})

    @dg.asset(
        partitions_def=partitions.nights,
        deps=["recommendations"],
        group_name=GROUP,
        kinds={"polars", "deltalake"},
        op_tags=on_queue("scoring"),
        description=(
            "The k items for visitors without history: the items with the largest mean discounted gain, the mean over "
            "sessions of 1 / log2(rank + 1), in the lists of `recommendations` at the same preference. Checked and "
            "published like `recommendations`."
        ),
    )
    def fallback_recommendations(
        context: dg.AssetExecutionContext, shop_resource: ShopResource
    ) -> dg.MaterializeResult:
        shop, (day, pi) = shop_resource.load(), night_of(context.partition_key)
        with failures(context):
            lists = write_fallback_list(shop, day, pi)
        return dg.MaterializeResult(metadata=list_metadata(lists, lineage))

    return fallback_recommendations
