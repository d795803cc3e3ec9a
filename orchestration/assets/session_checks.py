"""Asset check of prepared sessions: every event was either used or dropped by a rule."""

from __future__ import annotations

from typing import Any

import dagster as dg

from multitron_core.sessions.statistics import statistics_rows, unaccounted
from orchestration.runtime.metadata import as_markdown


def counts_check_spec(asset: str) -> dg.AssetCheckSpec:
    """The blocking check `counts_add_up` of an asset of prepared sessions; `check_counts` gives its result."""
    return dg.AssetCheckSpec(
        "counts_add_up",
        asset=asset,
        blocking=True,
        description="Events read = events used + events dropped by a rule, for clicks, orders and carts.",
    )


def check_counts(statistics: dict[str, Any]) -> dg.AssetCheckResult:
    """Whether the counts of `multitron_core.sessions` statistics add up.

    Args:
        statistics: of `prepare_sessions` or `encode_sessions`.
    """
    missing = unaccounted(statistics)
    return dg.AssetCheckResult(
        check_name="counts_add_up",
        passed=not missing,
        metadata={"counts": as_markdown(statistics_rows(statistics)), "unaccounted": str(missing or "none")},
    )
