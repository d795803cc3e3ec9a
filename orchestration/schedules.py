"""Jobs and when they run.

Every job is one column of the asset graph; training and deployment have jobs of their own, since in one job with the
partitioned scoring they would run once a partition.
"""

import datetime as dt
from typing import Any

import dagster as dg

from orchestration.assets.serving import rollback_job
from orchestration.checks import LIST_TABLES
from orchestration.partitions import Partitions, night_key
from orchestration.shop import Settings

TIME_ZONE = "UTC"
"""Days are UTC days, so the night runs in UTC: in a zone ahead of it, midnight UTC would fall between its stages."""


def jobs(partitions: Partitions) -> dict[str, Any]:  # Dagster does not export the type of an asset job
    """The jobs by name."""
    return {
        job.name: job
        for job in (
            rollback_job(),
            dg.define_asset_job(
                "ingestion",
                dg.AssetSelection.assets("events"),
                partitions_def=partitions.days,
                description="Raw files of a day, or of a range of days in one run, to the event log.",
            ),
            dg.define_asset_job(
                "training",
                dg.AssetSelection.assets("training_sessions", "model", "front", "report", "deployed_model"),
                description="Event log to training sessions, one model, its front, report and gated deployment.",
            ),
            dg.define_asset_job(
                "session_preparation",
                dg.AssetSelection.assets("scoring_sessions", "assortment"),
                partitions_def=partitions.days,
                description="The sessions that a night scores, encoded with the live model's vocabulary, and the items "
                "that it may show.",
            ),
            dg.define_asset_job(
                "scoring",
                dg.AssetSelection.assets(*LIST_TABLES, "published"),
                partitions_def=partitions.nights,
                description="One (run date, pi): score sessions and items; replace, check, release their partitions.",
            ),
            dg.define_asset_job(
                "night_completion",
                dg.AssetSelection.assets("night", "channels"),
                partitions_def=partitions.days,
                description="What the night wrote, the check that every pi is there, and the channels.",
            ),
            dg.define_asset_job(
                "channel_publication",
                dg.AssetSelection.assets("channels"),
                description="The channels of shop.toml to their table, after somebody changed them.",
            ),
            dg.define_asset_job(
                "housekeeping_of_tables",
                dg.AssetSelection.assets("housekeeping"),
                description="Old nights and files that nobody needs go; sizes and ages are told.",
            ),
        )
    }


def schedules(settings: Settings, jobs_by_name: dict[str, Any]) -> list[dg.ScheduleDefinition]:
    """The nightly and weekly schedules; off until somebody turns them on in the UI."""

    def daily(name: str, job: str, hour: int, minute: int, description: str) -> dg.ScheduleDefinition:
        """A schedule that runs a daily job for the last whole day."""

        @dg.schedule(
            name=name,
            job=jobs_by_name[job],
            cron_schedule=f"{minute} {hour} * * *",
            execution_timezone=TIME_ZONE,
            description=description,
        )
        def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
            day = last_whole_day(context.scheduled_execution_time)
            return _outside_calendar(settings, day) or dg.RunRequest(run_key=str(day), partition_key=str(day))

        return evaluate

    @dg.schedule(
        job=jobs_by_name["scoring"],
        cron_schedule="0 2 * * *",
        execution_timezone=TIME_ZONE,
        description="Scores the last whole UTC day: a run for each pi, so that each succeeds and fails by itself.",
    )
    def nightly_scoring(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        day = last_whole_day(context.scheduled_execution_time)
        return _outside_calendar(settings, day) or [
            dg.RunRequest(run_key=f"{day}|{pi}", partition_key=night_key(day, pi)) for pi in settings.preferences
        ]

    return [
        daily("nightly_ingestion", "ingestion", 1, 0, "Ingests the last whole UTC day."),
        daily("nightly_session_preparation", "session_preparation", 1, 30, "Encodes its sessions, once for every pi."),
        nightly_scoring,
        daily("morning_completion", "night_completion", 6, 0, "Looks whether every pi of the night is there."),
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
            cron_schedule="0 3 * * 0",
            execution_timezone=TIME_ZONE,
            description="Trains on all ingested days every Sunday, and deploys the model when it passes its gates.",
        ),
    ]


def last_whole_day(tick: dt.datetime) -> dt.date:
    """The last UTC day that is over at `tick`, a time with a zone."""
    return tick.astimezone(dt.UTC).date() - dt.timedelta(days=1)


def _outside_calendar(settings: Settings, day: dt.date) -> dg.SkipReason | None:
    """Why `day` has no partition; None when it has one."""
    calendar = settings.calendar
    if calendar.first_day <= day and (calendar.last_day is None or day <= calendar.last_day):
        return None
    return dg.SkipReason(
        f"{day} lies outside the calendar of shop.toml ({calendar.first_day} to {calendar.last_day or 'today'})"
    )
