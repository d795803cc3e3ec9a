from __future__ import annotations

import datetime as dt
import zoneinfo

import dagster as dg
import pytest

from orchestration.automation.jobs import jobs
from orchestration.automation.schedules import schedules

SCHEDULES = schedules(jobs())


def test_schedules_are_stopped_until_an_operator_starts_them() -> None:
    assert [each.name for each in SCHEDULES] == ["nightly_housekeeping", "weekly_training"]
    assert {each.default_status for each in SCHEDULES} == {dg.DefaultScheduleStatus.STOPPED}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.name)
def test_schedules_tick_once_on_days_of_a_clock_change(schedule: dg.ScheduleDefinition) -> None:
    minute, hour, day_of_month, month, _ = str(schedule.cron_schedule).split()
    assert minute.isdigit(), "one minute of one hour"
    assert hour.isdigit(), "one minute of one hour"
    assert (day_of_month, month) == ("*", "*")
    zone = zoneinfo.ZoneInfo(str(schedule.execution_timezone))
    hours = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=count) for count in range(365 * 24)]
    offsets = {moment.astimezone(zone).utcoffset() for moment in hours}
    assert offsets == {dt.timedelta(0)}, "a time zone without clock changes"
