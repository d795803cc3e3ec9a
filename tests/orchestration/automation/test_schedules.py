from __future__ import annotations

import datetime as dt
import zoneinfo

import dagster as dg
import pytest

from orchestration.automation.jobs import JOB_ASSETS
from orchestration.code_location import build_definitions
from orchestration.shop.calendar import last_whole_day
from orchestration.shop.home import Shop
from orchestration.shop.settings import demo_settings


def test_every_asset_of_a_job_exists_and_every_job_has_its_assets(tmp_path) -> None:
    definitions = build_definitions(Shop(home=tmp_path, settings=demo_settings()))
    for name, assets in JOB_ASSETS.items():
        job = definitions.resolve_job_def(name)
        assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(assets)


@pytest.mark.parametrize("name", ["nightly_housekeeping", "weekly_training"])
def test_no_hour_of_a_clock_change_takes_or_repeats_a_schedule(name: str, tmp_path) -> None:
    schedule = build_definitions(Shop(home=tmp_path, settings=demo_settings())).resolve_schedule_def(name)
    assert isinstance(schedule, dg.ScheduleDefinition)
    minute, hour, day_of_month, month, _ = str(schedule.cron_schedule).split()
    assert minute.isdigit(), "one minute of one hour"
    assert hour.isdigit(), "one minute of one hour"
    assert (day_of_month, month) == ("*", "*")
    zone = zoneinfo.ZoneInfo(str(schedule.execution_timezone))
    hours = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=count) for count in range(365 * 24)]
    assert {moment.astimezone(zone).utcoffset() for moment in hours} == {dt.timedelta(0)}, (
        "a zone without clock changes"
    )


def test_the_last_whole_day_is_a_utc_day_whatever_the_zone() -> None:
    berlin = dt.timezone(dt.timedelta(hours=2))
    assert last_whole_day(dt.datetime(2026, 6, 10, 2, tzinfo=berlin)) == dt.date(2026, 6, 9)
    assert last_whole_day(dt.datetime(2026, 6, 10, 1, 59, tzinfo=berlin)) == dt.date(2026, 6, 8)
    assert last_whole_day(dt.datetime(2026, 6, 10, 0, tzinfo=dt.UTC)) == dt.date(2026, 6, 9)


def test_each_hour_of_a_clock_change_belongs_to_one_night() -> None:
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    for day in (dt.date(2026, 3, 29), dt.date(2026, 10, 25)):
        midnight = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
        hours = [(midnight + dt.timedelta(hours=hour)).astimezone(zone) for hour in range(24)]
        assert {last_whole_day(hour) for hour in hours} == {day - dt.timedelta(days=1)}
