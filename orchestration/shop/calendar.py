"""The calendar of a shop: its time zone, the last complete day and the open nights."""

from __future__ import annotations

import datetime as dt

from orchestration.shop.home import Shop

TIME_ZONE = "UTC"
"""Days are UTC days, and schedules run in UTC: no hour is skipped or repeated by daylight saving time."""


def last_whole_day(moment: dt.datetime) -> dt.date:
    """The last UTC day that has ended at `moment`, a time with a time zone."""
    return moment.astimezone(dt.UTC).date() - dt.timedelta(days=1)


def open_nights(shop: Shop, now: dt.datetime) -> list[dt.date]:
    """The open nights of a shop, oldest first: begun, and within the last `catch_up_days` days.

    Args:
        shop: the shop; [night] and [calendar] of its settings bound the days.
        now: a time with a time zone.
    """
    settings = shop.settings
    last = min(last_whole_day(now), settings.last_night)
    days = [last - dt.timedelta(days=back) for back in reversed(range(settings.night.catch_up_days))]
    return [day for day in days if day >= settings.first_night and now >= settings.night.begins(day)]
