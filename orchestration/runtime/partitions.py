"""The partitions: days, preferences, and nights (a day and a preference)."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import dagster as dg

from multitron_core.errors import InputError
from multitron_core.lake.replace_where import checked_date
from multitron_core.preference.keys import pi_key
from orchestration.shop.settings import Settings

PARTITION_TAG = "dagster/partition"
"""The tag of a run that holds its partition key."""


@dataclass(frozen=True)
class Partitions:
    """The partition definitions of a shop; days are UTC days, as in the event log."""

    days: dg.DailyPartitionsDefinition
    preferences: dg.StaticPartitionsDefinition
    nights: dg.MultiPartitionsDefinition


def partitions_of(settings: Settings) -> Partitions:
    """The partitions that a shop's calendar and preferences give."""
    calendar = settings.calendar
    days = dg.DailyPartitionsDefinition(
        start_date=calendar.first_day.isoformat(),
        # Dagster's end is exclusive.
        end_date=(calendar.last_day + dt.timedelta(days=1)).isoformat() if calendar.last_day else None,
    )
    preferences = dg.StaticPartitionsDefinition(list(settings.preferences))
    return Partitions(days, preferences, dg.MultiPartitionsDefinition({"date": days, "pi": preferences}))


def night_key(day: dt.date | str, pi: str) -> dg.MultiPartitionKey:
    """The partition key of a night."""
    return dg.MultiPartitionKey({"date": str(day), "pi": pi})


def night_of(key: str) -> tuple[dt.date, str]:
    """(run date, pi) of a night's partition key.

    Raises:
        InputError: the key is no night's.
    """
    if not isinstance(key, dg.MultiPartitionKey):
        raise InputError("not the partition key of a night", found=key, hint='use "<date>|<pi>", "2026-01-08|0.50"')
    return checked_date(key.keys_by_dimension["date"]), pi_key(key.keys_by_dimension["pi"])
