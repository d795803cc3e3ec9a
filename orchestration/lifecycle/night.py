"""A night, step by step: its sessions, its assortment, and its ranked lists of sessions, items and new visitors.

Each function takes a shop and a day, writes one result into the shop's home or tables, and returns a summary of it as a
frozen dataclass. None of them needs Dagster.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.ingestion import read_event_log
from multitron_core.lake.contracts import TableContract, table_contracts
from multitron_core.lake.fallback import fallback_list
from multitron_core.lake.lake import Lake, PartitionCommit
from multitron_core.lake.partition_files import partition_files
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.scoring import encode_sessions
from multitron_core.sessions.statistics import statistics_rows
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.shop.assortment import night_assortment, read_assortment, save_assortment
from orchestration.shop.deployed import live_model_and_vocabulary, live_vocabulary, written_vocabulary
from orchestration.shop.home import Shop
from orchestration.shop.night_sessions import night_sessions, save_night_sessions
from orchestration.shop.sources import events_fingerprint, session_gap
from serving.interface import Server
from serving.item_scorer import score_items
from serving.scorer import ScoringProgress, log_progress, score_sessions

STATISTICS_TABLE = "session_statistics"
"""The Delta table of what became of the events of each night's sessions."""

SAMPLE_LISTS = 3
"""Lists that are read back as a sample of what was written."""


@dataclass(frozen=True, eq=False)
class NightSessions:
    """The sessions that a night scores.

    Args:
        sessions: encoded with the live model's vocabulary.
        statistics: counts of events that were used and dropped, see `multitron_core.sessions.scoring.encode_sessions`.
        folder: where the sessions were saved.
    """

    sessions: EncodedSessions
    statistics: dict[str, Any]
    folder: Path


def prepare_night_sessions(shop: Shop, day: dt.date) -> NightSessions:
    """Encode and save the sessions of the last `state_days` days up to `day`, and record their statistics.

    Raises:
        InputError: the event log has no event of the day, or no model is deployed.
    """
    lake = shop.lake()
    # Taken before the events are read: events that arrive in between make the sessions outdated, not wrongly current.
    fingerprint = events_fingerprint(lake, day)
    log = read_event_log(lake, last=day)
    if log.filter(pl.col("ts").dt.date() == day).head(1).collect().is_empty():
        raise InputError(
            "the event log has no events of this day",
            where=lake.uri("events"),
            found=str(day),
            hint=f"materialize `events` of {day} when its files have arrived; older sessions do not replace them",
        )
    sessions, statistics = encode_sessions(
        log,
        live_vocabulary(shop),
        until=day,
        days=shop.settings.sessions.state_days,
        session_gap=session_gap(shop),
    )
    folder = save_night_sessions(shop, day, sessions, events=fingerprint)
    lake.replace_rows(STATISTICS_TABLE, statistics_rows(statistics), key={"run_date": day})
    return NightSessions(sessions, statistics, folder)


@dataclass(frozen=True, eq=False)
class NightAssortment:
    """The items that the lists of a night may contain.

    Args:
        items: distinct item ids; None if every item may be shown.
        path: the file that they were saved to.
        unknown_items: number of these items that the live model does not know and cannot score.
        excluded_items: number of the live model's items that are not among them.
    """

    items: pl.Series | None
    path: Path
    unknown_items: int = 0
    excluded_items: int = 0


def prepare_night_assortment(shop: Shop, day: dt.date) -> NightAssortment:
    """Read the shop's assortment of a day and save it for all preferences of the night.

    Raises:
        InputError: the table is wrong, see `read_assortment`, or no model is deployed.
        UnavailableError: the table cannot be read at the moment.
    """
    vocabulary = live_vocabulary(shop)
    items = read_assortment(shop, day, vocabulary)
    path = save_assortment(shop, day, items)
    if items is None:
        return NightAssortment(None, path)
    known = int(items.is_in(vocabulary.item_ids.implode()).sum())
    return NightAssortment(items, path, unknown_items=len(items) - known, excluded_items=len(vocabulary) - known)


@dataclass(frozen=True, eq=False)
class WrittenLists:
    """One partition (day, pi) of a table of ranked lists, as it was written.

    Args:
        commit: the table, its Delta version, and the number of lists, rows, files and bytes.
        uri: the address of the table.
        contract: the columns of the table.
        model_version: the model that computed the scores.
        assortment_items: number of items that the lists were limited to; None for every item.
        sample: the rows of the first `SAMPLE_LISTS` lists, read back from the table.
        triton_version: the version in the Triton repository; None for lists that needed no scoring.
        source_version: the Delta version of `recommendations` that the lists were derived from, if they were.
    """

    commit: PartitionCommit
    uri: str
    contract: TableContract
    model_version: str
    assortment_items: int | None
    sample: pl.DataFrame
    triton_version: int | None = None
    source_version: int | None = None


def write_session_lists(
    shop: Shop,
    server: Server,
    day: dt.date,
    pi: str,
    *,
    progress: Callable[[ScoringProgress], None] = log_progress,
) -> WrittenLists:
    """Write the k best items of every session of a night to `recommendations`.

    Args:
        shop: the shop; [scoring] of its settings gives k and the items to exclude.
        server: computes the scores with the version that it serves.
        day: the run date.
        pi: the weight on orders, "0.00" to "1.00".
        progress: called after each window of sessions.

    Raises:
        InputError: the sessions or the assortment do not fit the served model, or a row breaks the table's contract.
        UnavailableError: sessions or assortment are not prepared, or the server does not respond.
    """
    scoring = shop.settings.scoring
    live, vocabulary = live_model_and_vocabulary(shop, server)
    sessions, assortment = night_sessions(shop, day), night_assortment(shop, day)
    lists = score_sessions(
        sessions,
        pi,
        scoring.k,
        scorer=server.scorer(),
        vocabulary=vocabulary,
        model=live,
        assortment=assortment,
        exclude_clicked=scoring.exclude_clicked,
        exclude_ordered=scoring.exclude_ordered,
        progress=progress,
    )
    return _replace_partition(
        shop.lake(),
        "recommendations",
        day,
        pi,
        lists,
        k=scoring.k,
        keys=sessions.session_ids,
        vocabulary=vocabulary,
        assortment=assortment,
        model_version=live.model_version,
        triton_version=live.version,
    )


def write_item_lists(
    shop: Shop,
    server: Server,
    day: dt.date,
    pi: str,
    *,
    progress: Callable[[ScoringProgress], None] = log_progress,
) -> WrittenLists:
    """Write the k best items to show with every item of the vocabulary to `item_recommendations`.

    Arguments and errors are those of `write_session_lists`; a night's sessions are not needed.
    """
    k = shop.settings.scoring.k
    live, vocabulary = live_model_and_vocabulary(shop, server)
    assortment = night_assortment(shop, day)
    lists = score_items(
        pi, k, scorer=server.scorer(), vocabulary=vocabulary, model=live, assortment=assortment, progress=progress
    )
    return _replace_partition(
        shop.lake(),
        "item_recommendations",
        day,
        pi,
        lists,
        k=k,
        keys=vocabulary.item_ids,
        vocabulary=vocabulary,
        assortment=assortment,
        model_version=live.model_version,
        triton_version=live.version,
    )


def write_fallback_list(shop: Shop, day: dt.date, pi: str) -> WrittenLists:
    """Write the list for visitors without history to `fallback_recommendations`.

    It is derived from the newest version of `recommendations`, see `multitron_core.lake.fallback`.

    Raises:
        InputError: `recommendations` of this day and pi is missing, or has fewer than k distinct items.
    """
    lake, k = shop.lake(), shop.settings.scoring.k
    source = lake.version("recommendations")
    rows = fallback_list(lake, day, pi, k, delta_version=source)
    scored = partition_files(lake.open("recommendations", source)).filter(run_date=day, pi=pi)
    return _replace_partition(
        lake,
        "fallback_recommendations",
        day,
        pi,
        [rows],
        k=k,
        keys=rows["audience"].unique(),
        vocabulary=written_vocabulary(shop, lake, "recommendations", day, pi, source),
        assortment=None,
        model_version=scored["model_version"][0],
        source_version=source,
    )


def _replace_partition(
    lake: Lake,
    table: str,
    day: dt.date,
    pi: str,
    lists: Iterable[pl.DataFrame],
    *,
    k: int,
    keys: pl.Series,
    vocabulary: Vocabulary,
    assortment: pl.Series | None,
    model_version: str,
    triton_version: int | None = None,
    source_version: int | None = None,
) -> WrittenLists:
    """Replace a partition by a stream of lists, one list per key; tables that do not exist are created."""
    item_type = vocabulary.item_ids.dtype
    lake.create(item_type)
    commit = lake.replace_partition(
        day,
        pi,
        lists,
        table=table,
        k=k,
        items=vocabulary if assortment is None else assortment,
        model_version=model_version,
        expected_lists=len(keys),
    )
    sample = lake.read_recommendations(
        pi, day, session_ids=keys.head(SAMPLE_LISTS).to_list(), table=table, unpublished=True
    )
    return WrittenLists(
        commit,
        lake.uri(table),
        table_contracts(item_type)[table],
        model_version,
        None if assortment is None else len(assortment),
        sample,
        triton_version,
        source_version,
    )
