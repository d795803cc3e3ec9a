"""Partition definitions: days, preferences, and nights (one day at one preference)."""

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
    """The partition definitions of a shop.

    Args:
        days: the UTC days of the calendar, as in the event log.
        preferences: pi keys, "0.00" to "1.00".
        nights: one partition per day and preference.
    """

    days: dg.DailyPartitionsDefinition
    preferences: dg.StaticPartitionsDefinition
    nights: dg.MultiPartitionsDefinition


def partitions_of(settings: Settings) -> Partitions:
    """The partition definitions that follow from a shop's calendar and preferences."""
    calendar = settings.calendar
    days = dg.DailyPartitionsDefinition(
        start_date=calendar.first_day.isoformat(),
        # end_date is exclusive.
        end_date=(calendar.last_day + dt.timedelta(days=1)).isoformat() if calendar.last_day else None,
    )
    preferences = dg.StaticPartitionsDefinition(list(settings.preferences))
    return Partitions(days, preferences, dg.MultiPartitionsDefinition({"date": days, "pi": preferences}))


def night_key(day: dt.date | str, pi: str) -> dg.MultiPartitionKey:
    """The partition key of a day and a pi."""
    return dg.MultiPartitionKey({"date": str(day), "pi": pi})


def night_of(key: str) -> tuple[dt.date, str]:
    """The run date and pi of a night's partition key.

    Raises:
        InputError: the key has another form.
    """
    if not isinstance(key, dg.MultiPartitionKey):
        raise InputError("not the partition key of a night", found=key, hint='use "<date>|<pi>", "2026-01-08|0.50"')
    return checked_date(key.keys_by_dimension["date"]), pi_key(key.keys_by_dimension["pi"])
