"""Freshness policies: how old each asset may be.

A freshness policy applies to an asset as a whole: the newest preference hides a late one. The sensor
`missing_preferences` and the check `every_pi_is_there` look at every preference.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from orchestration.shop.calendar import TIME_ZONE
from orchestration.shop.settings import Settings

NIGHTLY = ("events", "scoring_sessions", "recommendations", "published", "night")
"""Assets that every night materializes."""
WEEKLY = ("model", "deployed_model")
"""Assets that every training materializes."""
_HOURS_OF_A_DAY = 24


def with_freshness(assets: Sequence[dg.AssetsDefinition], settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets with freshness policies.

    Nightly assets must be materialized between the end of the day and the deadline of the night. Models warn after 8
    days and fail after 15. A shop whose calendar has an end gets no policies: nothing more is due there.

    Args:
        assets: the assets of the shop.
        settings: [calendar] and [night] are used.
    """
    if settings.calendar.last_day is not None:
        return list(assets)
    hours = settings.night.deadline_hours
    deadline = f"{int(hours % 1 * 60)} {int(hours) % _HOURS_OF_A_DAY} * * *"
    nightly = dg.FreshnessPolicy.cron(
        deadline_cron=deadline,
        lower_bound_delta=dt.timedelta(hours=min(hours, _HOURS_OF_A_DAY)),
        timezone=TIME_ZONE,
    )
    weekly = dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(days=15), warn_window=dt.timedelta(days=8))
    policies = dict.fromkeys(NIGHTLY, nightly) | dict.fromkeys(WEEKLY, weekly)

    def applied(spec: dg.AssetSpec) -> dg.AssetSpec:
        policy = policies.get(spec.key.to_user_string())
        return dg.apply_freshness_policy(spec, policy) if policy else spec

    return [asset.map_asset_specs(applied) for asset in assets]
