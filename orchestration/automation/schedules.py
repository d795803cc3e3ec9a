"""Schedules: nightly housekeeping and weekly training. The sensor `nights` starts the nights."""

from __future__ import annotations

from typing import Any

import dagster as dg

from orchestration.shop.calendar import TIME_ZONE


def schedules(jobs_by_name: dict[str, Any]) -> list[dg.ScheduleDefinition]:
    """The schedules of a shop, stopped until an operator starts them in the UI.

    Args:
        jobs_by_name: `jobs.jobs()`.
    """
    return [
        dg.ScheduleDefinition(
            name="nightly_housekeeping",
            job=jobs_by_name["housekeeping_of_tables"],
            cron_schedule="0 7 * * *",
            execution_timezone=TIME_ZONE,
            description="Deletes nights older than keep_days, every day at 07:00 UTC.",
        ),
        dg.ScheduleDefinition(
            name="weekly_training",
            job=jobs_by_name["training"],
            cron_schedule="0 8 * * 0",
            execution_timezone=TIME_ZONE,
            description="Trains a model on all ingested days, every Sunday at 08:00 UTC; deploys it if it passes the "
            "quality gates.",
        ),
    ]
