"""Jobs: which assets run together.

Training and deployment have a job without partitions: within the partitioned scoring they would run once per
partition. The sensor `nights` starts the jobs of a night as soon as their inputs exist (`night_steps`). Housekeeping
and the weekly training have schedules.
"""

from __future__ import annotations

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
    "ingestion": "Reads the raw files of a day, or of a range of days in one run, into the event log.",
    "training": "Prepares training sessions from the event log; trains a model; measures its front; writes its report; "
    "deploys it if it passes the quality gates.",
    "session_preparation": "Prepares the sessions that a night scores, encoded with the vocabulary of the live model, "
    "and the items that the night may recommend.",
    "scoring": "Scores one partition (run date, pi): writes the lists for sessions and items, checks and releases "
    "them.",
    "night_completion": "Closes a night: counts its rows, checks that every pi is released, measures the live model on "
    "the sessions of the day, updates the channels.",
    "channel_publication": "Writes the channels of shop.toml to their table; run it after a change of the channels.",
    "housekeeping_of_tables": "Deletes nights older than keep_days and files that no table uses; reports table sizes "
    "and ages.",
}


def jobs() -> dict[str, Any]:  # Dagster does not export the type of an asset job
    """The jobs by name; Dagster derives their partitions from their assets."""
    asset_jobs = {
        name: dg.define_asset_job(name, dg.AssetSelection.assets(*assets), description=_DESCRIPTIONS[name])
        for name, assets in JOB_ASSETS.items()
    }
    rollback = rollback_job()
    return {**asset_jobs, rollback.name: rollback}
