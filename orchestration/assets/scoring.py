"""The event log and the live model to the night's tables of ranked lists, not yet released to anybody."""

import datetime as dt
import json

import dagster as dg
import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.ingestion import read_event_log
from multitron_core.lake.fallback import fallback_list
from multitron_core.lake.partition_files import partition_files
from multitron_core.sessions.scoring import UNKNOWN_ITEM, encode_sessions
from multitron_core.sessions.statistics import statistics_rows
from multitron_core.utils.atomic_folder import atomic_folder
from orchestration.assets.list_writer import NightLists, progress_logger
from orchestration.assets.session_checks import add_up, add_up_spec
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import column_schema, counts
from orchestration.runtime.partitions import Partitions, night_of
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures
from orchestration.shop.assortment import night_assortment, read_assortment, save_assortment
from orchestration.shop.deployed import live_model_and_vocabulary, live_vocabulary, written_vocabulary
from orchestration.shop.night_sessions import night_sessions
from orchestration.shop.sources import events_fingerprint, session_gap
from serving.item_scorer import score_items
from serving.scorer import score_sessions

GROUP = "scoring"
STATISTICS = "session_statistics"


def scoring_assets(partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The assets of the group `scoring`."""

    @dg.asset(
        partitions_def=partitions.days,
        deps=[
            # Whether earlier days are there is the event log's business: a new shop has none.
            dg.AssetDep("events"),
            dg.AssetDep("deployed_model"),
        ],
        group_name=GROUP,
        kinds={"polars", "numpy"},
        check_specs=[add_up_spec("scoring_sessions")],
        op_tags=on_queue("ingestion"),
        description=(
            "The sessions that a night scores: those of the last days as of the run date, never later, encoded with "
            "the live model's vocabulary. Prepared once, read by every pi. Items that the model does not know yet are "
            "counted; the next training brings them. What became of the events is in the table `session_statistics`."
        ),
    )
    def scoring_sessions(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        day = dt.date.fromisoformat(context.partition_key)
        days = here.settings.sessions.state_days
        with failures(context):
            made_from = events_fingerprint(shop.lake(), day)  # before the events are read: newer ones are redone
            log = read_event_log(shop.lake(), last=day)
            if log.filter(pl.col("ts").dt.date() == day).head(1).collect().is_empty():
                raise InputError(
                    "the event log has nothing of this day",
                    where=shop.lake().uri("events"),
                    found=str(day),
                    hint=f"materialize `events` of {day} when its files are in; yesterday's sessions are not today's",
                )
            sessions, statistics = encode_sessions(
                log, live_vocabulary(here), until=day, days=days, session_gap=session_gap(here)
            )
            folder = here.scoring_sessions(day)
            with atomic_folder(folder) as new:
                sessions.save(new)
                described = {
                    "events": made_from,
                    "vocabulary_hash": sessions.vocabulary_hash,
                    "sessions": len(sessions),
                }
                (new / "made_from.json").write_text(json.dumps(described))
            shop.lake().replace_rows(STATISTICS, statistics_rows(statistics), key={"run_date": day})
        return dg.MaterializeResult(
            check_results=[add_up(statistics)],
            metadata={
                "dagster/row_count": len(sessions),
                "dagster/uri": str(folder),
                "dagster/column_schema": column_schema(sessions.to_frame().head(0)),
                "statistics": counts(statistics),
                # Numbers of their own, so that Dagster plots them over the nights.
                "new items": statistics["unknown_items"],
                "clicks on new items": statistics["dropped"].get(f"clicks: {UNKNOWN_ITEM}", 0),
                "days": days,
                "vocabulary hash": sessions.vocabulary_hash,
            },
        )

    @dg.asset(
        partitions_def=partitions.days,
        deps=["deployed_model"],
        group_name=GROUP,
        kinds={"polars"},
        op_tags=on_queue("ingestion"),
        description=(
            "The items that the night's lists may hold, from the table that `assortment` of [scoring] names; every "
            "item where it names none. Read once and kept, so that every preference of the night shows the same."
        ),
    )
    def assortment(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        day = dt.date.fromisoformat(context.partition_key)
        with failures(context):
            vocabulary = live_vocabulary(here)
            items = read_assortment(here, day, vocabulary)
            path = save_assortment(here, day, items)
        if items is None:
            return dg.MaterializeResult(metadata={"items": "every item"})
        known = items.is_in(vocabulary.item_ids.implode()).sum()
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(items),
                "dagster/uri": str(path),
                "source": str(here.assortment_path(day)),
                "unknown to the model": len(items) - int(known),
                "the model's items that are left out": len(vocabulary) - int(known),
            }
        )

    @dg.asset(
        partitions_def=partitions.nights,
        deps=[scoring_sessions, assortment, "deployed_model"],
        group_name=GROUP,
        kinds={"triton", "deltalake"},
        pool="triton",
        op_tags=on_queue("scoring"),
        description=(
            "The k best items of every session, one item a row, for one run date and one preference. The partition is "
            "replaced in one commit, from a stream whose rows are checked before it: readers see the old or the new."
        ),
    )
    def recommendations(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        day, pi = night_of(context.partition_key)
        scoring = here.settings.scoring
        clicks = dg.TableColumnDep(asset_key=dg.AssetKey("scoring_sessions"), column_name="items")
        session = dg.TableColumnDep(asset_key=dg.AssetKey("scoring_sessions"), column_name="session_id")
        with failures(context), shop.server() as server:
            live, vocabulary = live_model_and_vocabulary(here, server)
            sessions, items = night_sessions(here, day), night_assortment(here, day)
            lists = score_sessions(
                sessions,
                pi,
                scoring.k,
                scorer=server.scorer(),
                vocabulary=vocabulary,
                model=live,
                assortment=items,
                exclude_clicked=scoring.exclude_clicked,
                exclude_ordered=scoring.exclude_ordered,
                progress=progress_logger(context),
            )
            night = NightLists(shop.lake(), day, pi, scoring.k, live.model_version, vocabulary, items)
            return night.write(
                "recommendations",
                lists,
                keys=sessions.session_ids,
                **{
                    "dagster/column_lineage": dg.TableColumnLineage(
                        {"session_id": [session], "item_id": [clicks], "score": [clicks], "rank": [clicks]}
                    ),
                    "triton version": live.version,
                },
            )

    @dg.asset(
        partitions_def=partitions.nights,
        deps=[assortment, "deployed_model"],
        group_name=GROUP,
        kinds={"triton", "deltalake"},
        pool="triton",
        op_tags=on_queue("scoring"),
        description=(
            "The k best items beside every item of the live model's vocabulary, itself left out: the item is scored as "
            "a session of one click. For product pages; written and released as `recommendations` is."
        ),
    )
    def item_recommendations(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        day, pi = night_of(context.partition_key)
        k = here.settings.scoring.k
        with failures(context), shop.server() as server:
            live, vocabulary = live_model_and_vocabulary(here, server)
            items = night_assortment(here, day)
            lists = score_items(
                pi,
                k,
                scorer=server.scorer(),
                vocabulary=vocabulary,
                model=live,
                assortment=items,
                progress=progress_logger(context),
            )
            night = NightLists(shop.lake(), day, pi, k, live.model_version, vocabulary, items)
            return night.write(
                "item_recommendations", lists, keys=vocabulary.item_ids, **{"triton version": live.version}
            )

    @dg.asset(
        partitions_def=partitions.nights,
        deps=[recommendations],
        group_name=GROUP,
        kinds={"polars", "deltalake"},
        op_tags=on_queue("scoring"),
        description=(
            "The k items for a visitor without history, who is taken for one of the night's sessions drawn at random: "
            "those that the lists of `recommendations` at this preference show most and highest (the mean of "
            "1 / log2(rank + 1)). Written and released as `recommendations` is."
        ),
    )
    def fallback_recommendations(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here, lake = shop.load(), shop.lake()
        day, pi = night_of(context.partition_key)
        k = here.settings.scoring.k
        with failures(context):
            source = lake.version("recommendations")
            rows = fallback_list(lake, day, pi, k, delta_version=source)
            scored = partition_files(lake.open("recommendations", source)).filter(run_date=day, pi=pi)
            vocabulary = written_vocabulary(here, lake, "recommendations", day, pi, source)
            night = NightLists(lake, day, pi, k, scored["model_version"][0], vocabulary)
            item, rank = (dg.TableColumnDep(dg.AssetKey("recommendations"), name) for name in ("item_id", "rank"))
            return night.write(
                "fallback_recommendations",
                [rows],
                keys=rows["audience"].unique(),
                **{
                    "delta version of `recommendations`": source,
                    "dagster/column_lineage": dg.TableColumnLineage(
                        {"item_id": [item], "score": [item, rank], "rank": [item, rank]}
                    ),
                },
            )

    return [scoring_sessions, assortment, recommendations, item_recommendations, fallback_recommendations]
