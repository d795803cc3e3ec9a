from __future__ import annotations

import datetime as dt

import dagster as dg
import pytest

from orchestration.code_location import build_definitions
from orchestration.schedules import last_whole_day
from orchestration.shop import Settings, Shop, demo_settings


def definitions_of(settings: Settings, tmp_path) -> dg.Definitions:
    return build_definitions(Shop(home=tmp_path, settings=settings))


def requests(definitions: dg.Definitions, schedule: str, tick: dt.datetime) -> list[dg.RunRequest]:
    context = dg.build_schedule_context(scheduled_execution_time=tick, repository_def=definitions.get_repository_def())
    return list(definitions.resolve_schedule_def(schedule).evaluate_tick(context).run_requests or [])


def test_a_night_is_a_run_for_each_pi(tmp_path) -> None:
    definitions = definitions_of(demo_settings(), tmp_path)
    night = requests(definitions, "nightly_scoring", dt.datetime(2026, 1, 9, 2, tzinfo=dt.UTC))
    assert [request.partition_key for request in night] == [
        f"2026-01-08|{pi}" for pi in ("0.00", "0.25", "0.50", "0.75", "1.00")
    ]
    assert len({request.run_key for request in night}) == 5


@pytest.mark.parametrize("schedule", ["nightly_ingestion", "nightly_session_preparation", "morning_completion"])
def test_a_daily_schedule_asks_for_the_last_whole_day(schedule: str, tmp_path) -> None:
    definitions = definitions_of(demo_settings(), tmp_path)
    asked = requests(definitions, schedule, dt.datetime(2026, 1, 5, 6, tzinfo=dt.UTC))
    assert [request.partition_key for request in asked] == ["2026-01-04"]


def test_outside_the_calendar_nothing_is_asked_for_and_the_reason_said(tmp_path) -> None:
    definitions = definitions_of(demo_settings(), tmp_path)
    context = dg.build_schedule_context(scheduled_execution_time=dt.datetime(2026, 2, 1, 2, tzinfo=dt.UTC))
    tick = definitions.resolve_schedule_def("nightly_scoring").evaluate_tick(context)
    assert not tick.run_requests
    assert "2026-01-31" in tick.skip_message


def test_the_last_whole_day_is_a_utc_day_whatever_the_zone() -> None:
    berlin = dt.timezone(dt.timedelta(hours=2))
    assert last_whole_day(dt.datetime(2026, 6, 10, 2, tzinfo=berlin)) == dt.date(2026, 6, 9)
    assert last_whole_day(dt.datetime(2026, 6, 10, 1, 59, tzinfo=berlin)) == dt.date(2026, 6, 8)
    assert last_whole_day(dt.datetime(2026, 6, 10, 0, tzinfo=dt.UTC)) == dt.date(2026, 6, 9)
