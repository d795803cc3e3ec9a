"""Schedules that do not belong to a night: housekeeping and the weekly training."""

from __future__ import annotations

from typing import Any

import dagster as dg

from orchestration.shop.calendar import TIME_ZONE


def schedules(jobs_by_name: dict[str, Any]) -> list[dg.ScheduleDefinition]:
    """The schedules; off until somebody turns them on in the UI."""
    return [
        dg.ScheduleDefinition(
            name="nightly_housekeeping",
            job=jobs_by_name["housekeeping_of_tables"],
            cron_schedule="0 7 * * *",
            execution_timezone=TIME_ZONE,
            description="Deletes the nights that are older than keep_days, when the night is over.",
        ),
        dg.ScheduleDefinition(
            name="weekly_training",
            job=jobs_by_name["training"],
            cron_schedule="0 8 * * 0",
            execution_timezone=TIME_ZONE,
            description="Trains on all ingested days every Sunday after the night, and deploys the model when it "
            "passes its gates.",
        ),
    ]
