"""How old an asset may be: the one place that says it.

A policy looks at an asset as a whole, so that one late pi hides behind the others; the sensor `missing_preferences` and
the check `every_pi_is_there` look at each.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from orchestration.shop.calendar import TIME_ZONE
from orchestration.shop.settings import Settings

NIGHTLY = ("events", "scoring_sessions", "recommendations", "published", "night")
WEEKLY = ("model", "deployed_model")
_HOURS_OF_A_DAY = 24


def with_freshness(assets: Sequence[dg.AssetsDefinition], settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets with their policies; without any where the calendar has ended, since nothing is to come there.

    A nightly asset must have been made between the day's end and the night's deadline; a model is late after eight days
    and stale after fifteen.
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
