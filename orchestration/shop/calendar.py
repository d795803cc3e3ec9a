"""The days of a shop's calendar: which nights are open, which day was the last whole one."""

from __future__ import annotations

import datetime as dt

from orchestration.shop.home import Shop


def open_nights(shop: Shop, now: dt.datetime) -> list[dt.date]:
    """The days whose nights have begun and are still made up for, the oldest first."""
    settings = shop.settings
    last = min(last_whole_day(now), settings.last_night)
    days = [last - dt.timedelta(days=back) for back in reversed(range(settings.night.catch_up_days))]
    return [day for day in days if day >= settings.first_night and now >= settings.night.begins(day)]


TIME_ZONE = "UTC"
"""Days are UTC days, so the night runs in UTC: there no hour is removed or repeated, and midnight is midnight."""


def last_whole_day(moment: dt.datetime) -> dt.date:
    """The last UTC day that is over at `moment`, a time with a zone."""
    return moment.astimezone(dt.UTC).date() - dt.timedelta(days=1)
