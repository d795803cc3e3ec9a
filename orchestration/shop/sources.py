"""The raw source of a shop, its session gap, and the fingerprint of a day's ingested events."""

from __future__ import annotations

import datetime as dt
import hashlib

import polars as pl

from multitron_core.events.ingestion import read_ingestion
from multitron_core.events.raw_source import RawSource
from multitron_core.lake.lake import Lake
from orchestration.shop.home import Shop


def raw_source(shop: Shop) -> RawSource:
    """The raw files that [source] of the shop's settings describes."""
    source = shop.settings.source
    return RawSource(
        path=shop.source_path,
        format=source.format,
        files=source.files,
        columns=source.columns or None,
        max_reject_share=source.max_reject_share,
        max_late_days=source.max_late_days,
        orders_required=source.orders_required,
        storage_options=shop.source_options,
    )


def session_gap(shop: Shop) -> dt.timedelta | None:
    """The inactivity gap at which a user's events are split into sessions; None if the raw events have session ids."""
    mapping = raw_source(shop).mapping
    return mapping.session_gap if mapping is not None and mapping.user_id is not None else None


def events_fingerprint(lake: Lake, day: dt.date) -> str | None:
    """A fingerprint of the events that were ingested for a day; it changes when events of the day are added.

    Args:
        lake: the shop's tables.
        day: the day of the events.

    Returns:
        12 hexadecimal digits of a SHA-256 over the counts in the table `ingestion`; None if the day has no event.
    """
    if not lake.exists("ingestion"):
        return None
    counted = read_ingestion(lake, day, day).filter(pl.col("day") == day, pl.col("what") == "accepted")
    if counted.is_empty():
        return None
    rows = counted.sort(counted.columns).select("source_day", "reason", "count").rows()
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:12]
