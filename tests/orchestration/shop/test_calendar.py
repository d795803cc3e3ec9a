from __future__ import annotations

import datetime as dt
import zoneinfo
from pathlib import Path

from orchestration.shop.calendar import last_whole_day, open_nights
from orchestration.shop.home import Shop
from orchestration.shop.settings import Settings

DAYS = [dt.date(2026, 3, day) for day in (1, 2, 3)]


def shop_of_three_days(**night: object) -> Shop:
    calendar = {"first_day": DAYS[0], "last_day": DAYS[-1]}
    source = {"path": "raw", "format": "table"}
    return Shop(home=Path(), settings=Settings.model_validate({"source": source, "calendar": calendar, "night": night}))


def test_last_whole_day_is_a_utc_day_in_every_time_zone() -> None:
    berlin = dt.timezone(dt.timedelta(hours=2))
    assert last_whole_day(dt.datetime(2026, 6, 10, 2, tzinfo=berlin)) == dt.date(2026, 6, 9)
    assert last_whole_day(dt.datetime(2026, 6, 10, 1, 59, tzinfo=berlin)) == dt.date(2026, 6, 8)
    assert last_whole_day(dt.datetime(2026, 6, 10, 0, tzinfo=dt.UTC)) == dt.date(2026, 6, 9)


def test_last_whole_day_is_one_day_through_a_clock_change() -> None:
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    for day in (dt.date(2026, 3, 29), dt.date(2026, 10, 25)):
        midnight = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
        hours = [(midnight + dt.timedelta(hours=hour)).astimezone(zone) for hour in range(24)]
        assert {last_whole_day(hour) for hour in hours} == {day - dt.timedelta(days=1)}


def test_open_nights_have_begun_and_lie_in_the_calendar() -> None:
    shop = shop_of_three_days(begins_hours=1)
    assert open_nights(shop, dt.datetime(2026, 3, 2, 0, 59, tzinfo=dt.UTC)) == []
    assert open_nights(shop, dt.datetime(2026, 3, 2, 1, tzinfo=dt.UTC)) == [DAYS[0]]
    assert open_nights(shop, dt.datetime(2026, 6, 1, tzinfo=dt.UTC)) == DAYS


def test_open_nights_are_the_last_catch_up_days() -> None:
    shop = shop_of_three_days(catch_up_days=2)
    assert open_nights(shop, dt.datetime(2026, 6, 1, tzinfo=dt.UTC)) == DAYS[1:]
