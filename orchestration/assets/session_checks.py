"""Asset checks: the counts of prepared sessions add up."""

from __future__ import annotations

from typing import Any

import dagster as dg

from multitron_core.sessions.statistics import statistics_rows, unaccounted
from orchestration.runtime.metadata import as_markdown


def add_up_spec(asset: str) -> dg.AssetCheckSpec:
    """The check of sessions that `add_up` answers."""
    return dg.AssetCheckSpec(
        "counts_add_up",
        asset=asset,
        blocking=True,
        description="Clicks, orders and carts that came in = those used + those dropped, by rule.",
    )


def add_up(statistics: dict[str, Any]) -> dg.AssetCheckResult:
    """Whether every event that came in became part of a session or was dropped by a rule."""
    lost = unaccounted(statistics)
    return dg.AssetCheckResult(
        check_name="counts_add_up",
        passed=not lost,
        metadata={"counts": as_markdown(statistics_rows(statistics)), "unaccounted": str(lost or "none")},
    )
