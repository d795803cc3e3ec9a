"""The event log and the live model to published recommendation tables."""

import dataclasses
import datetime as dt
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import polars as pl

from multitron_core.encoded_sessions import EncodedSessions
from multitron_core.errors import InputError, UnavailableError
from multitron_core.event_log import read_event_log
from multitron_core.lake import Lake
from multitron_core.sessions import encode_sessions
from multitron_core.table_contracts import recommendations as recommendations_contract
from multitron_core.vocabulary import Vocabulary
from orchestration import models
from orchestration.assets.ingestion import session_gap
from orchestration.checks import recommendation_checks, run_checks
from orchestration.metadata import as_markdown, column_schema, counts
from orchestration.partitions import Partitions, night_of
from orchestration.resources import ShopResource
from orchestration.retries import failures
from orchestration.shop import Shop
from serving.repository import ModelRepository, live_model_of
from serving.request import LiveModel
from serving.scorer import Progress, score_sessions

GROUP = "scoring"
SAMPLE_SESSIONS = 3


def live_model(shop: Shop) -> LiveModel:
    """The deployed version, from the model repository.

    Raises:
        InputError: nothing is deployed.
    """
    repository = ModelRepository(shop.triton_repository)
    config = repository.read_config()
    if config is None:
        raise InputError("nothing is deployed", where=repository.folder, mend="materialize the asset `deployed_model`")
    return live_model_of(config)


def live_vocabulary(shop: Shop) -> Vocabulary:
    """The vocabulary of the live model."""
    return Vocabulary.load(models.folder_of(shop, live_model(shop).model_version) / "vocabulary.parquet")


def night_sessions(shop: Shop, day: dt.date) -> EncodedSessions:
    """The encoded sessions of a night.

    Raises:
        UnavailableError: they have not been prepared; they may be on their way.
    """
    folder = shop.scoring_sessions(day)
    if not folder.exists():
        raise UnavailableError(
            "the night's sessions are not prepared",
            where=folder,
            mend=f"materialize `scoring_sessions` of {day}, then this partition",
        )
    return EncodedSessions.load(folder)


@dataclass(frozen=True)
class Scoring:
    """The assets of the group `scoring`, and their checks."""

    assets: list[dg.AssetsDefinition]
    checks: list[dg.AssetChecksDefinition]


def scoring(partitions: Partitions) -> Scoring:
    """The group `scoring` over a shop's partitions."""

    @dg.asset(
        partitions_def=partitions.days,
        deps=[
            # Whether earlier days are there is the event log's business: a new shop has none.
            dg.AssetDep("events"),
            dg.AssetDep("deployed_model"),
        ],
        group_name=GROUP,
        kinds={"polars", "numpy"},
        description=(
            "The sessions that a night scores: those of the last days as of the run date, never later, encoded with "
            "the live model's vocabulary. Prepared once, read by every pi."
        ),
    )
    def scoring_sessions(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        day = dt.date.fromisoformat(context.partition_key)
        days = here.settings.sessions.state_days
        with failures(context):
            log = read_event_log(shop.lake(), last=day)
            if log.filter(pl.col("ts").dt.date() == day).head(1).collect().is_empty():
                raise InputError(
                    "the event log has nothing of this day",
                    where=shop.lake().uri("events"),
                    found=str(day),
                    mend=f"materialize `events` of {day} when its files are in; yesterday's sessions are not today's",
                )
            sessions, statistics = encode_sessions(
                log, live_vocabulary(here), until=day, days=days, session_gap=session_gap(here)
            )
            folder = here.scoring_sessions(day)
            beside = folder.with_name(folder.name + ".new")
            shutil.rmtree(beside, ignore_errors=True)
            sessions.save(beside)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(sessions),
                "dagster/uri": str(folder),
                "dagster/column_schema": column_schema(sessions.to_frame().head(0)),
                "statistics": counts(statistics),
                "days": days,
                "vocabulary hash": sessions.vocabulary_hash,
            }
        )

    @dg.asset(
        partitions_def=partitions.nights,
        deps=[scoring_sessions, "deployed_model"],
        group_name=GROUP,
        kinds={"triton", "deltalake"},
        pool="triton",
        description=(
            "The k best items of every session, one item a row, for one run date and one preference. The partition is "
            "replaced in one commit, from a stream whose rows are checked before it: readers see the old or the new."
        ),
    )
    def recommendations(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here, lake = shop.load(), shop.lake()
        day, pi = night_of(context.partition_key)
        with failures(context), shop.server() as server:
            live = live_model(here)
            vocabulary = live_vocabulary(here)
            sessions = night_sessions(here, day)
            lake.create(vocabulary.item_ids.dtype)

            def log_progress(progress: Progress) -> None:
                context.log.info(
                    f"{progress.sessions} of {progress.total} sessions, {progress.rate:.0f}/s, "
                    f"{progress.seconds_left:.0f} s left"
                )

            committed = lake.replace_partition(
                day,
                pi,
                score_sessions(
                    sessions,
                    pi,
                    here.settings.scoring.k,
                    scorer=server.scorer(),
                    vocabulary=vocabulary,
                    progress=log_progress,
                ),
                model_version=live.model_version,
                k=here.settings.scoring.k,
                items=vocabulary,
                expected_lists=len(sessions),
            )
        sample = lake.read_recommendations(
            pi, day, session_ids=sessions.session_ids.head(SAMPLE_SESSIONS).to_list(), unpublished=True
        )
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": committed.rows,
                "dagster/partition_row_count": committed.rows,
                "dagster/column_schema": _contract_schema(vocabulary),
                "dagster/uri": lake.uri("recommendations"),
                "dagster/column_lineage": _lineage(),
                "sessions": committed.sessions,
                "model version": live.model_version,
                "triton version": live.version,
                "delta version": committed.delta_version,
                "files": committed.files,
                "bytes": committed.bytes,
                "seconds": committed.seconds,
                "sample": as_markdown(sample, rows=SAMPLE_SESSIONS * here.settings.scoring.k),
            }
        )

    @dg.multi_asset_check(
        specs=recommendation_checks(partitions), description="What the table promises, read back from the table."
    )
    def recommendations_as_promised(
        context: dg.AssetCheckExecutionContext, shop: ShopResource
    ) -> Iterator[dg.AssetCheckResult]:
        here, lake = shop.load(), shop.lake()
        day, pi = night_of(context.partition_key)
        yield from run_checks(lake, day, pi, k=here.settings.scoring.k, vocabulary=live_vocabulary(here))

    @dg.asset(
        partitions_def=partitions.nights,
        deps=[recommendations],
        group_name=GROUP,
        kinds={"deltalake"},
        description=(
            "The release: a row that pins the checked Delta version of this partition. Readers that ask for the latest "
            "night get the latest one published; what failed its checks is never seen."
        ),
    )
    def published(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        lake = shop.lake()
        day, pi = night_of(context.partition_key)
        with failures(context):
            publication = lake.publish(day, pi)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": publication.rows,
                "dagster/uri": lake.uri("published"),
                "publication": counts(dataclasses.asdict(publication)),
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
        description="The night as a whole: what was published for each pi of the grid.",
    )
    def night(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        day = dt.date.fromisoformat(context.partition_key)
        there = published_of(shop.lake(), day)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": int(there["rows"].sum()),
                "preferences": there.height,
                "published": as_markdown(there),
            }
        )

    @dg.asset_check(
        asset=night,
        partitions_def=partitions.days,
        blocking=True,
        description="Every pi of the grid is published for this date, with the same sessions and one model version.",
    )
    def every_pi_is_there(context: dg.AssetCheckExecutionContext, shop: ShopResource) -> dg.AssetCheckResult:
        day = dt.date.fromisoformat(context.partition_key)
        there = published_of(shop.lake(), day)
        missing = sorted(set(shop.load().settings.scoring.pi) - set(there["pi"]))
        lists, versions = there["lists"].unique().to_list(), there["model_version"].unique().to_list()
        return dg.AssetCheckResult(
            passed=not missing and len(lists) == 1 and len(versions) == 1,
            metadata={
                "missing": missing,
                "sessions": lists,
                "model versions": versions,
                "mend": f"materialize `recommendations` and `published` of {day} for {missing}" if missing else "none",
            },
        )

    return Scoring(
        assets=[scoring_sessions, recommendations, published, night],
        checks=[recommendations_as_promised, every_pi_is_there],
    )


def published_of(lake: Lake, day: dt.date) -> pl.DataFrame:
    """The rows of `published` for the recommendations of a day."""
    return lake.publications("recommendations").filter(run_date=day).sort("pi")


def _contract_schema(vocabulary: Vocabulary) -> dg.TableSchema:
    contract = recommendations_contract(vocabulary.item_ids.dtype)
    return column_schema(contract.polars_schema(), {column.name: column.comment for column in contract.columns})


def _lineage() -> dg.TableColumnLineage:
    """Where the columns come from."""
    session = dg.TableColumnDep(asset_key=dg.AssetKey("scoring_sessions"), column_name="session_id")
    clicks = dg.TableColumnDep(asset_key=dg.AssetKey("scoring_sessions"), column_name="items")
    return dg.TableColumnLineage({"session_id": [session], "item_id": [clicks], "score": [clicks], "rank": [clicks]})
