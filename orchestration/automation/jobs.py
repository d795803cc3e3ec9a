"""Jobs, and the schedules that do not belong to a night.

Every job is one column of the asset graph; training and deployment have jobs of their own, since in one job with the
partitioned scoring they would run once a partition. The jobs of a night are started by the sensor `nights`, when what
they need is there (`orchestration.nights`); housekeeping and the weekly training by the clock.
"""

from typing import Any

import dagster as dg

from multitron_core.lake.contracts import LIST_TABLES
from orchestration.assets.serving import rollback_job

JOB_ASSETS = {
    "ingestion": ("events",),
    "training": ("training_sessions", "model", "front", "report", "deployed_model"),
    "session_preparation": ("scoring_sessions", "assortment"),
    "scoring": (*LIST_TABLES, "published"),
    "night_completion": ("night", "live_front", "channels"),
    "channel_publication": ("channels",),
    "housekeeping_of_tables": ("housekeeping",),
}
"""The assets of each job, in the order of the night."""

_DESCRIPTIONS = {
    "ingestion": "Raw files of a day, or of a range of days in one run, to the event log.",
    "training": "Event log to training sessions, one model, its front, report and gated deployment.",
    "session_preparation": "The sessions that a night scores, encoded with the live model's vocabulary, and "
    "the items that it may show.",
    "scoring": "One (run date, pi): score sessions and items; replace, check, release their partitions.",
    "night_completion": "What the night wrote, the check that every pi is there, how the live model does on the day's "
    "sessions, and the channels.",
    "channel_publication": "The channels of shop.toml to their table, after somebody changed them.",
    "housekeeping_of_tables": "Old nights and files that nobody needs go; sizes and ages are told.",
}


def jobs() -> dict[str, Any]:  # Dagster does not export the type of an asset job
    """The jobs by name; Dagster infers their partitions from their assets."""
    asset_jobs = {
        name: dg.define_asset_job(name, dg.AssetSelection.assets(*assets), description=_DESCRIPTIONS[name])
        for name, assets in JOB_ASSETS.items()
    }
    rollback = rollback_job()
    return {**asset_jobs, rollback.name: rollback}
